"""Product records -> batches for the model: decoded photos, token ids and three-valued tag labels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_tagger.catalog.batching.targets import TargetFunction
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.images import ImageError
from hf_tagger.model.processing_tagger import TaggerProcessor

UNKNOWN = -100
TOWER_INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_mask")
INPUTS = (*TOWER_INPUTS, "lexical_ids", "lexical_weights", "name_ids", "name_weights")


class TagEncoder:
    """Tags of a record -> one row of `tag_labels`: 1 given, 0 not given, -100 where the attribute is unknown.
    `attributes`: the `attributes` of a `TaggerConfig`."""

    def __init__(self, attributes: Sequence[dict]):
        self.columns: dict[str, tuple[str, slice, dict[str, int]]] = {}
        for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
            index = {tag: where.start + place for place, tag in enumerate(attribute["tags"])}
            self.columns[attribute["name"]] = attribute["kind"], where, index
        self.width = sum(len(attribute["tags"]) for attribute in attributes)

    def __call__(self, tags: dict[str, list[str] | None]) -> np.ndarray:
        """float32 [T]. A `single` attribute whose tag is not in the vocabulary counts as unknown, because every answer
        of the model would be wrong."""
        row = np.full(self.width, UNKNOWN, dtype=np.float32)
        for name, (kind, where, index) in self.columns.items():
            given = tags.get(name)
            if given is None:
                continue
            known = [index[tag] for tag in given if tag in index]
            if kind == "single" and given and not known:
                continue
            row[where] = 0.0
            row[known] = 1.0
        return row


def model_inputs(batch: dict[str, Any], device: torch.device | str, further: Sequence[str] = ()) -> dict[str, Any]:
    """The tensors of a batch that a model's `forward` takes, on its device: the processor's, and `further` ones."""
    return {name: batch[name].to(device) for name in (*INPUTS, *further) if name in batch}


def tower_inputs(batch: dict[str, Any], device: torch.device | str) -> dict[str, torch.Tensor]:
    """The tensors of a batch that the towers take, on their device."""
    return {name: batch[name].to(device) for name in TOWER_INPUTS if name in batch}


def padded(rows: Sequence[list[int] | None]) -> torch.Tensor:
    """Rows of token ids (None: nothing known) -> `labels` int64 [B, S], padded with -100."""
    labels = torch.full((len(rows), max(1, *(len(row or ()) for row in rows), 0)), UNKNOWN, dtype=torch.long)
    for target, row in zip(labels, rows, strict=True):
        if row is not None:
            target[:len(row)] = torch.tensor(row)
    return labels


@dataclass
class Collator:
    """Turns records into one batch.

    Returns a dict: the processor's tensors, `tag_labels` float [B, T], with `encode_targets` `labels` int64 [B, S]
    (-100 padded), `ids` (list of str), `tags` and `free_form` (the records' own tags, for metrics that count tags
    outside the vocabulary), `texts` as they were read, `languages`, `about` (for reports: the records without photos
    and tags, and in "photos" how many could be read) and `refusals` (of photos that could not be read, and of rows
    without anything else). A batch whose rows were all refused has empty `ids` and no tensors.
    """

    processor: TaggerProcessor
    attributes: Sequence[dict]  # the `attributes` of the model's config
    augment_text: Callable[[dict], str | None] | None = None  # record -> text, another one each time (training only)
    augment_image: Callable[[np.ndarray], np.ndarray] | None = None  # uint8 [H, W, 3] -> the same (training only)
    allow_urls: bool = False  # photos may be http(s) URLs
    # Free-form tags and language -> token ids for the decoder, None where nothing is known.
    encode_targets: TargetFunction | None = None

    def __post_init__(self):
        self.encode_tags = TagEncoder(self.attributes)

    def __call__(self, records: Sequence[dict]) -> dict[str, Any]:
        kept, photos, refusals = [], [], []
        for record in records:
            pixels, faults = self._decode(record)
            readable = bool(pixels) or (record["text"] and self.processor.reads_text)
            reasons = [(error.reason, str(error)) for error in faults]
            if not readable and not faults:
                reasons = [("empty", "nothing that this model reads")]
            refusals += [Refusal(record.get("number"), record["id"], "images", reason, detail, fatal=not readable,
                                 file=record.get("file", ""), photos_lost=bool(faults) and not pixels)
                         for reason, detail in reasons]
            if readable:
                kept.append(record)
                photos.append(pixels)
        batch: dict[str, Any] = {
            "ids": [record["id"] for record in kept],
            "tags": [record["tags"] for record in kept],
            "free_form": [record.get("free_form", {}) for record in kept],
            "languages": [record.get("language") for record in kept],
            "about": [_about(record, pixels) for record, pixels in zip(kept, photos, strict=True)],
            "refusals": refusals,
        }
        if not kept:
            return batch
        texts = [record["text"] if self.augment_text is None else self.augment_text(record) for record in kept]
        batch["texts"] = texts
        # If augmentation emptied all texts of a batch without photos, the model still needs an input.
        batch |= (self.processor.collate(texts, photos)
                  or self.processor.collate([record["text"] for record in kept], photos))
        batch["tag_labels"] = torch.from_numpy(np.stack([self.encode_tags(record["tags"]) for record in kept]))
        if self.encode_targets is not None:
            batch["labels"] = padded([self.encode_targets(record["free_form"], record["language"]) for record in kept])
        return batch

    def _decode(self, record: dict) -> tuple[list[np.ndarray], list[ImageError]]:
        pixels, faults = [], []
        for source in record["images"] if self.processor.reads_images else ():
            try:
                photo = self._pixels(source)
            except ImageError as error:
                faults.append(error)
                continue
            pixels.append(photo if self.augment_image is None else self.augment_image(photo))
        return pixels, faults

    def _pixels(self, source) -> np.ndarray:
        return self.processor.pixels(source, allow_urls=self.allow_urls)


def _about(record: dict, pixels: list) -> dict[str, Any]:
    return {key: record.get(key) for key in ("number", "file", "text", "language", "kept")} | {"photos": len(pixels)}
