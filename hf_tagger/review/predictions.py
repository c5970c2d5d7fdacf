"""A catalogue's products with the model's predictions, read and predicted in the background."""

import atexit
import json
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.verdicts import fingerprint
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline

AT_ONCE = 16


@dataclass(frozen=True)
class Product:
    """A record and its row among the products to review. `given`: the catalogue's own tags."""

    row: int
    id: str
    text: str | None
    language: str | None
    images: list
    given: dict[str, list[str] | None]

    @property
    def fingerprint(self) -> str:
        """Of its text and photos as they are now; photos are read for it."""
        return fingerprint({"text": self.text, "images": self.images})


@dataclass(frozen=True)
class Prediction:
    """Of one product."""

    scores: np.ndarray  # float32 [T]
    chosen: np.ndarray  # the predicted tags, bool [T]
    pooled: np.ndarray | None = None  # the pooled vector, float32 [D]; None: not known
    error: str | None = None  # why it could not be tagged


class CatalogPredictions:
    """`products`, in catalogue order, and their predictions. Both grow while a background thread reads and predicts.

    Args:
        tagger: used under `lock`.
        records: gives the catalogue's records, from the first.
        known: {product id: Prediction} of products that need no prediction.
        most: number of products, the first ones.
    """

    def __init__(self, tagger: ProductTaggingPipeline, records: Callable[[], Iterable[Record | Refusal]],
                 allow_urls: bool = False, known: Mapping[str, Prediction] | None = None, most: int = 10_000):
        self.tagger, self.lock = tagger, threading.Lock()
        self.products: list[Product] = []
        self.row_of: dict[str, int] = {}
        self.repeated: set[str] = set()  # ids that later rows have, too
        self.finished, self.error = False, None
        self._records, self.allow_urls, self._known, self._most = records, allow_urls, known or {}, most
        self._predictions: list[Prediction | None] = []
        self._folder = TemporaryDirectory(prefix="hf_tagger-")
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._run, daemon=True)
        weakref.finalize(self, self._folder.cleanup)

    @property
    def attributes(self) -> list[dict[str, Any]]:
        return self.tagger.model.config.attributes

    @property
    def languages(self) -> list[str]:
        return sorted({product.language for product in self.products if product.language})

    @property
    def predicted(self) -> int:
        """How many products have a prediction."""
        return len(self._predictions) - self._predictions.count(None)

    def start(self) -> None:
        self._thread.start()
        atexit.register(self.stop)  # a thread that is inside torch when Python ends makes it crash

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def ready(self) -> list[int]:
        """The rows that have a prediction."""
        return [row for row, found in enumerate(self._predictions) if found is not None and found.error is None]

    def of(self, row: int) -> Prediction:
        """Of one product; predicted now if it has not been yet."""
        if self._predictions[row] is None:
            self._predict([row])
        return self._predictions[row]

    def _run(self) -> None:
        rows = []
        try:
            for record in islice((one for one in self._records() if not isinstance(one, Refusal)), self._most):
                if self._stop.is_set():
                    return
                rows.append(self._take(record))
                if len(rows) == AT_ONCE:
                    self._predict(rows)
                    rows = []
            self._predict(rows)
        except Exception as error:  # shown on the page; what was read before can still be reviewed
            logging.getLogger(__name__).exception("reading the catalogue failed")
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.finished = True

    def _take(self, record: Record) -> int:
        if record["id"] in self.row_of:  # verdicts refer to the id, so only its first product is kept
            self.repeated.add(record["id"])
            return self.row_of[record["id"]]
        row = len(self.products)
        images = [self._kept(image, f"{row}-{number}") for number, image in enumerate(record["images"])]
        self._predictions.append(self._known.get(record["id"]))
        self.products.append(Product(row, record["id"], record["text"], record["language"], images, record["tags"]))
        self.row_of[record["id"]] = row
        return row

    def _kept(self, image: Any, name: str) -> Any:
        """Photos that came as bytes are kept in files: those of a whole catalogue would fill the memory."""
        data = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(data, bytes):
            return image
        path = Path(self._folder.name, name)
        path.write_bytes(data)
        return str(path)

    def _predict(self, rows: list[int]) -> None:
        with self.lock:
            rows = [row for row in rows if self._predictions[row] is None]
            if rows:
                found = predict(self.tagger, [self.products[row] for row in rows], self.allow_urls)
                for row, prediction in zip(rows, found, strict=True):
                    self._predictions[row] = prediction


@torch.inference_mode()
def predict(tagger: ProductTaggingPipeline, products: Sequence[Product], allow_urls: bool = False) -> list[Prediction]:
    """As the pipeline tags them; a product whose photo cannot be read is tagged by its text alone."""
    tags = tagger.model.config.num_tags
    nothing = np.zeros(tags, np.float32), np.zeros(tags, bool)
    prepared = [_prepare(tagger, product, allow_urls) for product in products]
    found = [Prediction(*nothing, error=one.get("error")) for one in prepared]
    rows = [row for row, one in enumerate(prepared) if "error" not in one]
    if rows:
        output = tagger.forward(tagger.collate([prepared[row] for row in rows]), languages=None)
        parts = [output["scores"].float(), output["chosen"], output["pooled"].float()]
        parts = [part.cpu().numpy() for part in parts]
        for row, *one in zip(rows, *parts, strict=True):
            found[row] = Prediction(*one)
    return found


def _prepare(tagger: ProductTaggingPipeline, product: Product, allow_urls: bool) -> dict[str, Any]:
    whole = {"text": product.text, "images": product.images, "language": product.language}
    prepared = tagger.preprocess(whole, on_error="skip", allow_urls=allow_urls)
    if "error" in prepared and product.text and product.images:
        alone = tagger.preprocess(whole | {"images": []}, on_error="skip")
        return prepared if "error" in alone else alone
    return prepared


def read_predictions(path: str | Path, attributes: Sequence[dict]) -> dict[str, Prediction]:
    """{product id: Prediction} of predictions.parquet of `hf_tagger evaluate` (its first evaluation view), or of the
    folder of `hf_tagger tag`, which holds the scores of the predicted tags only: all others are 0.

    Raises ConfigError for another file, or one of a model with other tags.
    """
    path = Path(path)
    tags = [(entry["name"], tag) for entry in attributes for tag in entry["tags"]]
    try:
        if path.is_dir():
            return _of_shards(path, {tag: column for column, tag in enumerate(tags)})
        return _of_evaluation(pq.read_table(path), path, tags)
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise ConfigError(f"{path} is neither predictions.parquet of `hf_tagger evaluate` nor a folder of "
                          f"`hf_tagger tag`: {error}") from error


def _of_evaluation(table: pa.Table, path: Path, tags: list[tuple[str, str]]) -> dict[str, Prediction]:
    named = [tuple(pair) for pair in json.loads((table.schema.metadata or {})[b"tags"])]
    if named != tags:
        raise ConfigError(f"{path} was written by a model with other tags: score this one with `hf_tagger evaluate`")
    protocol = table["protocol"].to_pylist()
    table = table.slice(0, sum(name == protocol[0] for name in protocol)) if protocol else table
    scores = np.array(table["scores"].to_pylist(), np.float32).reshape(len(table), len(tags))
    chosen = np.zeros(scores.shape, bool)
    column = {tag: number for number, tag in enumerate(tags)}
    for name in dict.fromkeys(name for name, _ in tags):
        for row, predicted in enumerate(table[f"{name}.predicted"].to_pylist()):
            chosen[row, [column[name, tag] for tag in predicted]] = True
    return {product: Prediction(*one) for product, *one in zip(table["id"].to_pylist(), scores, chosen, strict=True)}


def _of_shards(folder: Path, column: Mapping[tuple[str, str], int]) -> dict[str, Prediction]:
    shards = sorted(folder.glob("part-*.parquet"))
    if not shards:
        raise ConfigError(f"{folder} holds no shard of `hf_tagger tag`")
    found = {}
    for shard in shards:
        for row in pq.read_table(shard).to_pylist():
            scores = np.zeros(len(column), np.float32)
            for attribute, tag, score in zip(row["attribute"], row["tags"], row["scores"], strict=True):
                if (attribute, tag) not in column:
                    raise ConfigError(f"{shard}: {attribute}: {tag} is no tag of this model: tag the catalogue with it")
                scores[column[attribute, tag]] = score
            found[row["id"]] = Prediction(scores, scores > 0, error=None if row["tags"] else row["error"])
    return found
