"""The review page of a model and a catalogue, put together: of `hf_tagger review`, and of a Space."""

import os
from functools import partial
from pathlib import Path

from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import load_checked_evaluation
from hf_tagger.feedback.versions import LINEAGE

# Before gradio is imported: otherwise it sends usage data to its makers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

PATIENCE = 5.0  # seconds that a click waits for other writers before it fails
NOT_INSTALLED = "the review page needs more than the base installation: pip install 'hf_tagger[review]'"


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
