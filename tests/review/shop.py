"""A shop of four products under review."""

import csv
import time
from pathlib import Path

import yaml

from hf_tagger.feedback.log import VerdictLog
from hf_tagger.review.predictions import CatalogPredictions
from hf_tagger.review.queue import ReviewQueue
from hf_tagger.review.session import ReviewDesk
from tests.tiny_tagger import photo

SCHEMA = {"id": "sku", "text": ["title"], "language_column": "language", "images": ["photo"], "attributes": {
    "colour": {}, "category": {}, "features": {"kind": "multi", "format": "delimited"}}}
ROWS = [  # P3 shows what its title does not say
    ("P1", "red mug", "en", "Red", "Mug"), ("P2", "blue dress waterproof", "en", "Blue", "Dress"),
    ("P3", "new and", "de", "Blue", "Mug"), ("P4", "red dress <b>{{value}}</b> ${1+1}", "de", "Red", "Dress"),
]


def write_shop(folder: Path) -> Path:
    """products.csv with its photos, and shop.yaml."""
    with open(folder / "products.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "title", "language", "photo", "colour", "category", "features"])
        for sku, title, language, colour, category in ROWS:
            photo(colour, category, size=120).save(folder / f"{sku}.png")
            writer.writerow([sku, title, language, f"{sku}.png", colour, category, ""])
    config = {"catalog": {"source": {"path": str(folder / "products.csv")}, "schema": SCHEMA}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    return folder


def records(folder: Path):
    for sku, title, language, colour, category in ROWS:
        yield {"id": sku, "text": title, "language": language, "images": [str(folder / f"{sku}.png")],
               "tags": {"colour": [colour], "category": [category], "features": None}}


def wait(predictions):
    """Started, and all of it read and predicted."""
    predictions.start()
    while not predictions.finished:
        time.sleep(0.005)
    return predictions


def make_desk(tagger, folder, store, **options) -> ReviewDesk:
    """A desk over the rows of a shop, all of them predicted."""
    predictions = wait(CatalogPredictions(tagger, lambda: records(folder), **options))
    log = VerdictLog(store, predictions.attributes)
    queue = ReviewQueue(predictions, log, has_vectors=True)
    return ReviewDesk(predictions, store, queue, log, "tiny@1")
