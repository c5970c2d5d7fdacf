"""Runs a tagger over a split and collects what the metrics need: every row once, whatever the number of processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.evaluation.metrics import score_attributes

INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_mask")
PER_PRODUCT = ("ids", "tags", "free_form", "texts", "languages")
LOG_LIKELIHOOD = "decoder/log_likelihood"


@dataclass
class Predictions:
    """Of N products: ids, tag scores and decisions [N, T], per product the tags given {attribute: [...]}, and, of
    batches with `labels`, the sum of the log-probabilities of a decoder's tokens and their number [N, 2]."""

    attributes: list[dict]
    ids: list[str] = field(default_factory=list)
    tags: list[dict[str, list[str] | None]] = field(default_factory=list)
    scores: np.ndarray | None = None
    chosen: np.ndarray | None = None
    written: np.ndarray | None = None

    def metrics(self) -> dict[str, float]:
        """Scores of `score_attributes`; tags outside the vocabulary are columns that are never predicted."""
        parts, start = {}, 0
        for attribute in self.attributes:
            where = slice(start, start + len(attribute["tags"]))
            start = where.stop
            references, unseen = self._references(attribute)
            missing = np.zeros((len(self.ids), unseen))
            parts[attribute["name"]] = (
                attribute["kind"],
                references,
                np.concatenate([self.chosen[:, where], missing.astype(bool)], axis=1),
                np.concatenate([self.scores[:, where], missing], axis=1),
            )
        scores = score_attributes(parts)
        if self.written is not None:
            total, tokens = self.written.sum(0)
            scores[LOG_LIKELIHOOD] = float(total / tokens) if tokens else float("nan")
        return scores

    def _references(self, attribute: dict) -> tuple[np.ndarray, int]:
        """int [N, tags of the vocabulary + unseen tags] in {0, 1, -100}, and how many were unseen."""
        column = {tag: index for index, tag in enumerate(attribute["tags"])}
        known = len(column)
        for tags in self.tags:
            for tag in tags.get(attribute["name"]) or ():
                column.setdefault(tag, len(column))
        references = np.zeros((len(self.tags), len(column)), dtype=np.int64)
        for row, tags in enumerate(self.tags):
            given = tags.get(attribute["name"])
            if given is None:
                references[row] = UNKNOWN
            else:
                references[row, [column[tag] for tag in given]] = 1
        return references, len(column) - known


@torch.no_grad()
def outputs_of(
    model, batches: Iterable[dict[str, Any]], without: Iterable[str] = (), **options
) -> Iterator[tuple[dict, Any]]:
    """(batch, `TaggerOutput`) for every batch that has products, one modality hidden from the model if so wished.
    Products that have no other are left out of their batch."""
    hidden = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values", "pixel_mask")}
    left_out = {key for modality in without for key in hidden[modality]}
    was_training = model.training
    model.eval()
    for batch in batches:
        batch = _with_content({key: value for key, value in batch.items() if key not in left_out})
        if batch["ids"]:
            yield batch, model(**{key: batch[key].to(model.device) for key in (*INPUTS, "labels") if key in batch},
                               **options)
    model.train(was_training)


def _with_content(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without products of which neither text nor a photo is there: what they would get depends on nothing."""
    there = torch.zeros(len(batch["ids"]), dtype=torch.bool)
    for mask in ("attention_mask", "pixel_mask"):
        if mask in batch:
            there |= batch[mask].bool().any(1)
    if there.all():
        return batch
    rows = there.nonzero().flatten()
    kept = {key: [value[row] for row in rows] for key, value in batch.items() if key in PER_PRODUCT}
    return batch | kept | {key: value[rows] for key, value in batch.items() if isinstance(value, torch.Tensor)}


def predict(model, batches: Iterable[dict[str, Any]], without: Iterable[str] = (), gather: bool = True) -> Predictions:
    """Tags a split with a `TaggerModel`, on the product of all processes' batches if `gather`."""
    found = Predictions(model.config.attributes)
    scores, chosen, written = [], [], []
    for batch, outputs in outputs_of(model, batches, without):
        probabilities = model.tag_scores(outputs.tag_logits, outputs.none_logits)
        scores.append(probabilities.cpu().numpy())
        chosen.append(model.predicted_tags(probabilities).cpu().numpy())
        if outputs.logits is not None:
            written.append(_log_likelihoods(outputs.logits, batch["labels"], model.config.first_control_id))
        found.ids += batch["ids"]
        found.tags += batch["tags"]
    width = model.config.num_tags
    found.scores = np.concatenate(scores) if scores else np.zeros((0, width), np.float32)
    found.chosen = np.concatenate(chosen) if chosen else np.zeros((0, width), bool)
    found.written = np.concatenate(written) if written else None
    if gather:
        # Ranks may hold different numbers of rows: plain objects travel where padded tensors would count rows twice.
        parts = gather_object([(found.ids, found.tags, found.scores, found.chosen, found.written)])
        ids, tags, scores, chosen, written = zip(*parts, strict=True)
        found.ids, found.tags = [item for part in ids for item in part], [item for part in tags for item in part]
        found.scores, found.chosen = np.concatenate(scores), np.concatenate(chosen)
        written = [part for part in written if part is not None]
        found.written = np.concatenate(written) if written else None
    return found


def _log_likelihoods(logits: torch.Tensor, labels: torch.Tensor, first_control_id: int) -> np.ndarray:
    """Per product the sum over its counted tokens, and their number [B, 2]."""
    labels = labels.to(logits.device)
    counted = (labels >= 0) & (labels < first_control_id)
    values = logits.float().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return torch.stack([(values * counted).sum(1), counted.sum(1).float()], dim=1).cpu().numpy()
