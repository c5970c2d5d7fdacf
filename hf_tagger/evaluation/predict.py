"""Runs a tagger over a split and collects what metrics need: each product once, whatever the number of processes."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from hf_tagger.catalog.batching.collate import UNKNOWN, model_inputs, tower_inputs
from hf_tagger.evaluation.metrics import score_attributes
from hf_tagger.model.decisions import attribute_slices, predicted_tags, tag_scores
from hf_tagger.model.saving import first_control_id
from hf_tagger.model.towers import TowerFeatures

PER_PRODUCT = ("ids", "tags", "free_form", "texts", "languages", "about")
LOG_LIKELIHOOD = "decoder/log_likelihood"
# Scores of products x tags that are held of one set of products: of more products a sample is looked at.
ENTRIES = 100_000_000
ENTRIES_AT_ONCE = 4_000_000


@dataclass
class Predictions:
    """A tagger's scores and decisions for N products, with the tags that these have."""

    attributes: list[dict]  # as in `TaggerConfig`
    ids: list[str] = field(default_factory=list)
    tags: list[dict[str, list[str] | None]] = field(default_factory=list)  # {attribute: given tags} of each product
    scores: np.ndarray | None = None  # [N, T]
    chosen: np.ndarray | None = None  # bool [N, T]
    logits: np.ndarray | None = None  # [N, T + A], "none" of each attribute last; None where no model gave any
    # Of batches with `labels`: sum of the log-probabilities of the decoder's tokens, and their number [N, 2].
    written: np.ndarray | None = None
    about: list[dict[str, Any]] = field(default_factory=list)  # what else is known of each product, see `Collator`
    drawn_from: int | None = None  # products of which these are a sample; None: they are all

    @property
    def products(self) -> str:
        """How many, for a person."""
        drawn = "" if self.drawn_from is None else f", a sample of {self.drawn_from:,}, by a hash of their ids"
        return f"{len(self.ids):,} products{drawn}"

    def and_of(self, other: "Predictions") -> "Predictions":
        """These products and those of `other`, by logits of the same model."""
        drawn_from = None if other.drawn_from is None else len(self.ids) + other.drawn_from
        return Predictions(self.attributes, self.ids + other.ids, self.tags + other.tags, drawn_from=drawn_from,
                           logits=np.concatenate([self.logits, other.logits])).decided(self.attributes)

    def decided(self, attributes: list[dict]) -> "Predictions":
        """Decides anew with the calibration and thresholds of `attributes`. Without logits, scores stay as they are."""
        scores = self.scores
        if self.logits is not None:
            scores = np.empty((len(self.logits), self.logits.shape[1] - len(attributes)), np.float32)
            for rows in blocks(*self.logits.shape):
                scores[rows] = tag_scores(attributes, self.logits[rows])
        return replace(self, attributes=attributes, scores=scores, chosen=predicted_tags(attributes, scores))

    def parts(self) -> Iterator[tuple[dict, list[str], np.ndarray, np.ndarray, np.ndarray]]:
        """(attribute, tags, references [N, C], chosen [N, P], scores [N, P]) of each attribute, as `evaluation.metrics`
        takes them. Of the C tags, the first P are the vocabulary's; the others only occur among the given tags."""
        for attribute, where in zip(self.attributes, attribute_slices(self.attributes), strict=True):
            references, tags = self._references(attribute)
            yield attribute, tags, references, self.chosen[:, where], self.scores[:, where]

    def metrics(self) -> dict[str, float]:
        """Scores of `score_attributes`; tags outside the vocabulary are columns that are never predicted."""
        scores = score_attributes({attribute["name"]: (attribute["kind"], references, chosen, scores)
                                   for attribute, _, references, chosen, scores in self.parts()})
        if self.written is not None:
            total, tokens = self.written.sum(0)
            scores[LOG_LIKELIHOOD] = float(total / tokens) if tokens else float("nan")
        return scores

    def _references(self, attribute: dict) -> tuple[np.ndarray, list[str]]:
        """int [N, tags of the vocabulary + unseen tags] in {0, 1, -100}, and all these tags."""
        column = {tag: index for index, tag in enumerate(attribute["tags"])}
        for tags in self.tags:
            for tag in tags.get(attribute["name"]) or ():
                column.setdefault(tag, len(column))
        references = np.zeros((len(self.tags), len(column)), dtype=np.int8)
        for row, tags in enumerate(self.tags):
            given = tags.get(attribute["name"])
            if given is None:
                references[row] = UNKNOWN
            else:
                references[row, [column[tag] for tag in given]] = 1
        return references, list(column)


def outputs_of(
    model, batches: Iterable[dict[str, Any]], without: Sequence[str] = (), **options
) -> Iterator[tuple[dict, Any]]:
    """(batch, `TaggerOutput`) of every batch that has products. `without`: modalities hidden from the model; products
    that have no other are left out of their batch. `options`: of the model's forward."""
    for _, batch, outputs in outputs_of_each(model, batches, [without], **options):
        yield batch, outputs


@torch.no_grad()
def embeddings_of(model, batches: Iterable[dict[str, Any]], without: Iterable[str] = ()):
    """(batch, {"text" | "image": features [B, F]}, {"text" | "image": present [B]}) of every batch that has products,
    from the towers alone; `without` as of `outputs_of`."""
    model.eval()
    for batch in batches:
        batch = _hide(batch, without)
        if batch["ids"]:
            found = model.encoder.run_towers(**tower_inputs(batch, model.device))
            width, rows = model.encoder.feature_widths, len(batch["ids"])
            features = {name: np.zeros((rows, width[name]), np.float32) if getattr(found, name) is None
                        else getattr(found, name).float().cpu().numpy() for name in ("text", "image") if width[name]}
            present = found.present.cpu().numpy()
            yield batch, features, {"text": present[:, 0], "image": present[:, 1]}


def _hide(batch: dict[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """The batch without some modalities, and without the products of which then nothing is left."""
    hidden = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values", "pixel_mask")}
    left_out = {key for modality in without for key in hidden[modality]}
    batch = {key: value for key, value in batch.items() if key not in left_out}
    there = _with_content(batch)
    return batch if there.all() else _rows_of(batch, there)


def _rows_of(batch: dict[str, Any], there: torch.Tensor) -> dict[str, Any]:
    """The batch with these of its products, bool [B]."""
    rows = there.nonzero().flatten()
    kept = {key: [value[row] for row in rows] for key, value in batch.items() if key in PER_PRODUCT}
    kept |= {key: value[rows] for key, value in batch.items()
             if isinstance(value, torch.Tensor) and key != "pixel_values"}
    if "pixel_mask" in batch:  # photos of all products lie one after the other
        kept["pixel_values"] = batch["pixel_values"][there[batch["pixel_mask"].nonzero()[:, 0]]]
    return batch | kept


def _with_content(batch: dict[str, Any]) -> torch.Tensor:
    """bool [B]: which products have text or a photo."""
    masks = [batch[name].bool().any(1) for name in ("attention_mask", "pixel_mask") if name in batch]
    return torch.stack([torch.zeros(len(batch["ids"]), dtype=torch.bool), *masks]).any(0)


def predict(model, batches: Iterable[dict[str, Any]], without: Sequence[str] = ()) -> Predictions:
    """Tags a split with a `TaggerModel`: the products of all processes' batches, in every process."""
    return predict_each(model, batches, [without])[0]


def predict_each(model, batches: Iterable[dict[str, Any]], without: Sequence[Sequence[str]]) -> list[Predictions]:
    """`predict` for several sets of hidden modalities, from one reading of the batches."""
    config = model.config
    width = config.num_tags + len(config.attributes)
    sample = Sample(max(1, ENTRIES // width // PartialState().num_processes))
    found = [_Found(Predictions(config.attributes), [np.zeros((0, width), np.float32)], []) for _ in without]
    for index, batch, outputs in outputs_of_each(model, sample.drawn(batches), without):
        part = found[index]
        part.logits.append(torch.cat([outputs.tag_logits, outputs.none_logits], dim=1).float().cpu().numpy())
        if outputs.logits is not None:
            part.written.append(_log_likelihoods(outputs.logits, batch["labels"], config.decoder))
        part.predictions.ids += batch["ids"]
        part.predictions.tags += batch["tags"]
        part.predictions.about += batch.get("about", ())
        while len(part.predictions.ids) > sample.most:
            sample.share /= 2
            for each in found:
                each.keep(sample.share)
    return [_gathered(part, sample) for part in found]


class Sample:
    """Products by a hash of their ids: all, a half of them, a quarter … Every run and every process takes the same."""

    def __init__(self, most: int):
        self.most, self.share, self.seen = most, 1.0, 0

    def drawn(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The batches with the products that `share` takes by then."""
        for batch in batches:
            self.seen += len(batch["ids"])
            yield batch if self.share == 1 else _rows_of(batch, torch.from_numpy(in_share(batch["ids"], self.share)))


def hash_draw(name: str) -> float:
    """A number in [0, 1), from a hash of the name."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()) / 2**64


def in_share(ids: Sequence[str], share: float) -> np.ndarray:
    """bool [N]"""
    return np.array([hash_draw(name) < share for name in ids], bool)


@dataclass
class _Found:
    predictions: Predictions
    logits: list[np.ndarray]
    written: list[np.ndarray]

    def keep(self, share: float) -> None:
        kept, old = in_share(self.predictions.ids, share), self.predictions
        for name in ("ids", "tags", "about"):
            setattr(old, name, [item for item, there in zip(getattr(old, name), kept, strict=False) if there])
        self.logits = [np.concatenate(self.logits)[kept]]
        self.written = [np.concatenate(self.written)[kept]] if self.written else []


def _gathered(found: _Found, sample: Sample) -> Predictions:
    """The products of all processes."""
    # Ranks may hold different numbers of rows: plain objects travel where padded tensors would count rows twice.
    shares, seen = zip(*gather_object([(sample.share, sample.seen)]), strict=True)
    if min(shares) < 1:  # some batches came before the share fell, here or in another process
        found.keep(min(shares))
    own = found.predictions
    parts = gather_object([(own.ids, own.tags, own.about, found.logits, found.written)])
    ids, tags, about, logits, written = ([item for part in column for item in part]
                                         for column in zip(*parts, strict=True))
    found.logits = None
    return Predictions(own.attributes, ids, tags, logits=np.concatenate(logits), about=about,
                       written=np.concatenate(written) if written else None,
                       drawn_from=sum(seen) if min(shares) < 1 else None).decided(own.attributes)


def blocks(rows: int, width: int) -> Iterator[slice]:
    """All rows, so many at a time that what is made of them stays small."""
    size = max(1, ENTRIES_AT_ONCE // max(1, width))
    return (slice(start, start + size) for start in range(0, rows, size))


def few(rows: int, width: int, most: int) -> slice:
    """Evenly spaced rows with `most` entries at most."""
    return slice(None, None, max(1, -(-rows * width // most)))


@torch.no_grad()
def outputs_of_each(
    model, batches: Iterable[dict[str, Any]], without: Sequence[Sequence[str]], **options
) -> Iterator[tuple[int, dict, Any]]:
    """(index into `without`, batch, `TaggerOutput`) as of `outputs_of`, for each set of hidden modalities. The towers
    run once per product, except where their token states are needed (attention fusion, a decoder's targets)."""
    was_training = model.training
    model.eval()
    for batch in batches:
        features = None
        if batch["ids"] and len(without) > 1 and model.config.fusion != "attention" and "labels" not in batch:
            features = model.encoder.run_towers(**tower_inputs(batch, model.device))
        numbered = batch | {"rows": torch.arange(len(batch["ids"]))}
        for index, hidden in enumerate(without):
            shown = _hide(numbered, hidden)
            if shown["ids"]:
                given = model_inputs(shown, model.device, ["labels"])
                if features is not None:
                    given["features"] = _seen(features, shown["rows"], hidden)
                yield index, shown, model(**given, **options)
    model.train(was_training)


def _seen(features: TowerFeatures, rows: torch.Tensor, without: Sequence[str]) -> TowerFeatures:
    """The features of these products without those of the hidden modalities."""
    rows = rows.to(features.present.device)
    present = features.present[rows]
    kept = {}
    for column, name in enumerate(("text", "image")):
        if name in without:
            present[:, column] = False
        elif getattr(features, name) is not None:
            kept[name] = getattr(features, name)[rows]
    return TowerFeatures(present=present, **kept)


def _log_likelihoods(logits: torch.Tensor, labels: torch.Tensor, decoder: dict[str, Any]) -> np.ndarray:
    """Per product the sum over its counted tokens, and their number [B, 2]."""
    labels = labels.to(logits.device)
    counted = (labels >= 0) & (labels < first_control_id(decoder))
    values = logits.float().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return torch.stack([(values * counted).sum(1), counted.sum(1).float()], dim=1).cpu().numpy()
