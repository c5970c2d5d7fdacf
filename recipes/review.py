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
import sys
from pathlib import Path
from typing import Any

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment.protection import check_listening
from hf_tagger.deployment.rate_limit import PROXY_HELP, proxy_addresses
from hf_tagger.model.urls import without_credentials

ELSEWHERE = ("feedback", "host", "port", "auth", "open_to_all", "trusted_proxy")  # what a Space has settings for


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    if options.space:
        from hf_tagger.review.space import write_space

        write_space(options.space, options.model, options.catalogue, **page_options(options, overrides))
        print(f"written to {options.space}: fill in what README.md says, and push it to a Space")
        return
    people = read_people(options.auth) if options.auth else None
    check_listening(options.host, people is not None, options.open_to_all, "--auth FILE")
    from hf_tagger.review.app import build_app

    app = build_app(options.model, options.catalogue, options.feedback, **page_options(options, overrides))
    from hf_tagger.review.page import launch

    print(f"verdicts go to {without_credentials(options.feedback)}; stop with Ctrl-C")
    launch(app, options.host, options.port, people, options.auth, options.trusted_proxy)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
