"""Open a page on which people accept and correct a catalogue's tags: `hf_tagger review`.

    hf_tagger review runs/my-shop my.yaml
    hf_tagger review runs/my-shop products_export.csv
    hf_tagger review runs/my-shop my.yaml --split test --predictions runs/my-shop/evaluation/predictions.parquet
    hf_tagger review my-shop/tagger my.yaml --space my-space
    hf_tagger review runs/my-shop my.yaml --host 0.0.0.0 --auth people.txt

MODEL is a model folder, adapter folder or Hub id. CATALOGUE is a YAML file with source and schema, such as the training
configuration, or the path of a catalogue: an export of a shop's system, or a file with the columns of the training one
or of --config; keys of `catalog` can be overridden as `--key.sub value`. The page is served to this machine only,
unless --host is given; others have to log in then, with a NAME:PASSWORD of --auth, and their verdicts carry that name;
they stay logged in when the page is started again. Verdicts go into the feedback store;
`hf_tagger update` trains the model on them.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hf_tagger import UserError
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment.protection import check_listening
from hf_tagger.deployment.rate_limit import PROXY_HELP, proxy_addresses
from hf_tagger.evaluation.settings import load_checked_evaluation
from hf_tagger.feedback.versions import LINEAGE
from hf_tagger.model.urls import without_credentials

# Before gradio is imported: otherwise it sends usage data to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

PATIENCE = 5.0  # seconds that a click waits for other writers before it fails
ELSEWHERE = ("feedback", "host", "port", "auth", "open_to_all", "trusted_proxy")  # what a Space has settings for
NOT_INSTALLED = "the review page needs more than the base installation: pip install 'hf_tagger[review]'"


def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    try:
        if options.space:
            from hf_tagger.review.space import write_space

            write_space(options.space, options.model, options.catalogue, **page_options(options, overrides))
            print(f"written to {options.space}: fill in what README.md says, and push it to a Space")
            return 0
        people = read_people(options.auth) if options.auth else None
        check_listening(options.host, people is not None, options.open_to_all, "--auth FILE")
        app = build_app(options.model, options.catalogue, options.feedback, **page_options(options, overrides))
    except UserError as error:
        print(f"hf_tagger review: {error}", file=sys.stderr)
        return 2
    from hf_tagger.review.page import launch

    print(f"verdicts go to {without_credentials(options.feedback)}; stop with Ctrl-C", flush=True)
    launch(app, options.host, options.port, people, options.auth, options.trusted_proxy)
    return 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="hf_tagger review", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model folder, adapter folder or Hub id")
    parser.add_argument("catalogue", help="YAML file, or the path of a catalogue")
    parser.add_argument("--config", help="YAML file whose schema reads CATALOGUE, in place of the model's")
    parser.add_argument("--feedback", default="feedback.db", help="path or URL of the store (default: feedback.db)")
    parser.add_argument("--split", help="which split (default: train, which updates learn from, or the first)")
    parser.add_argument("--predictions", help="predictions.parquet of `hf_tagger evaluate`, or the folder of "
                                              "`hf_tagger tag`: what is there need not be predicted again")
    parser.add_argument("--products", type=int, default=10_000, help="at most so many products, the first ones")
    parser.add_argument("--reviewer", default="", help="your name, unless you type it on the page")
    parser.add_argument("--speech", help="checkpoint of a speech recogniser, for a microphone in the try-it tab")
    parser.add_argument("--host", default="127.0.0.1", help="whom the page answers (0.0.0.0: whoever reaches it)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument("--auth", metavar="FILE", help="who may log in: a line NAME:PASSWORD for each")
    parser.add_argument("--open_to_all", action="store_true", help="ask nobody to log in, whomever the page answers")
    parser.add_argument("--trusted_proxy", type=proxy_addresses, default="", metavar="ADDRESS", help=PROXY_HELP)
    parser.add_argument("--space", metavar="FOLDER", help="write a Space that runs this page into FOLDER, and end")
    options, overrides = parser.parse_known_args(arguments)
    if options.space:
        given = [f"--{name}" for name in ELSEWHERE if getattr(options, name) != parser.get_default(name)]
        if given:
            parser.error(f"{', '.join(given)}: in a Space, its own settings say who reaches the page, and its secret "
                         "FEEDBACK_URL where verdicts go: leave that out with --space")
    return options, overrides


def page_options(options: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Those of `build_app`."""
    return {"split": options.split, "predictions": options.predictions, "most": options.products,
            "reviewer": options.reviewer, "speech": options.speech, "config": options.config, "overrides": overrides}


def read_people(path: str) -> list[tuple[str, str]]:
    """(name, password) of those who may log in. Raises ConfigError for a file that does not say so, and where."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    people = {}
    for number, line in enumerate(lines, 1):
        name, separator, password = line.strip().partition(":")
        if not line.strip():
            continue
        if not separator or not name or len(password) < 8 or name in people:
            raise ConfigError(f"{path}, line {number}: write NAME:PASSWORD, each name once, with at least 8 letters "
                              "for a password")
        people[name] = password
    if not people:
        raise ConfigError(f"{path} names nobody: write a line NAME:PASSWORD for each reviewer")
    return list(people.items())


def build_app(model: str, catalogue: str, feedback: str = "feedback.db", *, split: str | None = None,
              predictions: str | None = None, most: int = 10_000, reviewer: str = "", speech: str | None = None,
              overrides: list[str] = (), config: str | None = None):
    """The review page as a Gradio app, to be served by `page.launch`. The arguments are the command's. Reading and
    predicting products starts in the background.

    Raises UserError for a model, catalogue, store or file that does not fit.
    """
    settings = load_checked_evaluation(catalogue, model, list(overrides), config)
    try:
        from hf_tagger.feedback.log import VerdictLog
        from hf_tagger.feedback.store import FeedbackStore
        from hf_tagger.review.page import build_page
        from hf_tagger.review.predictions import CatalogPredictions, read_predictions
        from hf_tagger.review.queue import ReviewQueue
        from hf_tagger.review.session import ReviewDesk
    except ModuleNotFoundError as error:
        raise ConfigError(f"{NOT_INSTALLED} ({error})") from error
    import torch

    from hf_tagger.evaluation.protocols import open_tagger

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    tagger = open_tagger(model, device)
    attributes = tagger.model.config.attributes
    store = FeedbackStore(feedback, attributes, PATIENCE)
    folder = Path(model) if Path(model).is_dir() else Path(feedback).parent
    catalog = open_catalog(settings.catalog, folder / "catalog")
    catalog.names.learn(attributes)
    split = choose_split(catalog, split)
    catalog = catalog.with_tags_if_any(split)
    known = read_predictions(predictions, attributes) if predictions else {}
    found = CatalogPredictions(tagger, partial(_told, catalog, split), catalog.schema.allow_urls, known, most)
    log = VerdictLog(store, attributes)
    queue = ReviewQueue(found, log, has_vectors=not known)
    desk = ReviewDesk(found, store, queue, log, model_version(model, tagger))
    page = build_page(desk, reviewer, speech)
    found.start()
    return page


def _told(catalog, split: str):
    """The records of a split; when they have been read, it is said how many rows were."""
    try:
        yield from catalog.records(split)
    finally:
        print(catalog.totals(), flush=True)


def choose_split(catalog, wanted: str | None) -> str:
    if wanted is None:
        return "train" if "train" in catalog.splits else catalog.splits[0]
    if wanted not in catalog.splits:
        raise ConfigError(f"there is no split {wanted!r}; the catalogue has {', '.join(catalog.splits)}")
    return wanted


def model_version(model: str, tagger) -> str:
    """`model_version` of the verdicts: the model's name and a fingerprint of its weights, or its version number."""
    from hf_tagger.deployment.bulk import opened_fingerprint

    folder, fingerprint = Path(model).resolve(), opened_fingerprint(model, tagger.model)
    if (folder / LINEAGE).is_file():  # a version of recipes/update.py
        return f"{folder.parent.name}/{folder.name}"
    return f"{folder.name}@{fingerprint[:12]}" if folder.is_dir() else fingerprint
