"""A teacher's outputs for every product of a catalogue: it runs once, and they are kept on disk."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_tagger.catalog.batching.collate import Collator, model_inputs, tower_inputs
from hf_tagger.catalog.batching.loader import seeded
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.model.images import read_pixels
from hf_tagger.training.distill_loss import SIGHTS, TeacherOutputs
from hf_tagger.training.features import Ragged, pad_rows

INDEX = "index.json"


class ViewCollator(Collator):
    """Collates products as they look in one view. Augmentation is seeded by the product and the view alone: teacher and
    student see the same words and the same part of each photo, whatever the batches.

    Args:
        view: 0 is the product as it is.
        size: the teacher's (height, width), at which photos are read and augmented before they are shrunk for
            `processor`; None: the processor's own.
    """

    def __init__(self, processor, attributes, view: int, seed: int, size: tuple[int, int] | None, augment_text,
                 augment_image, **options):
        self.key, self.size = f"{seed} {view}", size if view else None
        if not view:
            augment_text = augment_image = None
        else:
            augment_text = partial(_drawn, augment_text, self.key)
            if size is not None and size != processor.image_size:
                augment_image = partial(_augmented_and_shrunk, augment_image, processor.image_size)
        super().__init__(processor, attributes, augment_text, augment_image, **options)

    def _decode(self, record: dict):
        with seeded(f"photos {self.key} {record['id']}"):
            return super()._decode(record)

    def _pixels(self, source) -> np.ndarray:
        if self.size is None:
            return super()._pixels(source)
        return read_pixels(source, self.size, allow_urls=self.allow_urls)


def _drawn(augment, key: str, record: dict) -> str | None:
    with seeded(f"text {key} {record['id']}"):
        return augment(record)


def _augmented_and_shrunk(augment, size: tuple[int, int], photo: np.ndarray) -> np.ndarray:
    return read_pixels(augment(photo), size)


class TeacherStore:
    """A folder of `TeacherOutputs`, read on demand."""

    def __init__(self, folder: Path):
        described = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.views, self.row = described["views"], {product: row for row, product in enumerate(described["ids"])}
        if len(self.row) < len(described["ids"]):
            twice = next(product for product in self.row if described["ids"].count(product) > 1)
            raise ConfigError(f"the product {twice!r} is in the catalogue twice: distillation needs ids of their own")
        self.arrays: list[dict[str, np.ndarray]] = []
        self.states: list[Ragged] = []
        for view in range(self.views):
            self.arrays.append({name: np.memmap(folder / f"{name}.{view}.f16", np.float16, "r",
                                                shape=(len(self.row), *shape))
                                for name, shape in described["shapes"].items()})
            if described["states"]:
                self.states.append(Ragged.open(folder / f"states.{view}.f16", described["states"]["width"], np.float16,
                                               described["states"]["ends"][view]))

    def batch(self, ids: list[str], views: list[int]) -> TeacherOutputs:
        """Of these products, each in the view given."""
        places = [(view, self.row[product]) for product, view in zip(ids, views, strict=True)]
        found = {name: torch.from_numpy(np.stack([self.arrays[view][name][row] for view, row in places]))
                 for name in self.arrays[0]}
        if self.states:
            found["states"], found["mask"] = pad_rows([self.states[view][row] for view, row in places])
        return TeacherOutputs(**found)

    def sample(self, rows: int = 2000) -> TeacherOutputs:
        """Of products spread over the catalogue, as they are."""
        ids = list(self.row)[:: max(1, len(self.row) // rows)]
        return self.batch(ids, [0] * len(ids))


@torch.no_grad()
def store_outputs(model, views: Iterable[Iterator[dict[str, Any]]], folder: Path, key: str, states: bool,
                  autocast: Callable) -> None:
    """Runs a teacher over the batches of every view (the same products in the same order) and keeps its outputs, with
    `states` also the text tower's token states. `key`: of what they depend on, see `is_stored`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    model.eval()
    described: dict[str, Any] = {"key": key, "ids": [], "shapes": {}, "states": None}
    width = model.encoder.text_token_projection.in_features if states else 0
    ends = []
    for view, batches in enumerate(views):
        names = ("logits", "pooled", "modality_pooled")
        files = {name: open(folder / f"{name}.{view}.f16", "wb") for name in names}
        ragged, ids = Ragged(folder / f"states.{view}.f16", width, np.float16) if states else None, []
        for batch in progress_bar(batches, desc=f"teacher, view {view + 1}", unit="batch", leave=False):
            if not batch["ids"]:
                continue
            with autocast():
                found = outputs_of_sights(model, batch, states)
            ids += batch["ids"]
            for name in names:
                values = getattr(found, name)
                described["shapes"][name] = list(values.shape[1:])
                files[name].write(values.to("cpu", torch.float16).numpy().tobytes())
            if ragged is not None:
                ragged.append(found.states, found.mask, len(batch["ids"]))
        for file in files.values():
            file.close()
        if ragged is not None:
            ends.append(ragged.finish().ends)
        if view and ids != described["ids"]:
            raise RuntimeError("the catalogue gave other products on its second reading: is it being written to?")
        described["ids"] = ids
    described["views"] = view + 1
    if states:
        described["states"] = {"width": width, "ends": ends}
    (folder / INDEX).write_text(json.dumps(described), encoding="utf-8")


def is_stored(folder: Path, key: str) -> bool:
    """Whether `store_outputs` has finished with this key in the folder."""
    path = folder / INDEX
    return path.is_file() and json.loads(path.read_text(encoding="utf-8"))["key"] == key


def outputs_of_sights(model, batch: dict[str, Any], states: bool = False) -> TeacherOutputs:
    """A model's outputs for a batch under each of `SIGHTS`, in evaluation mode; its towers run once."""
    features = model.encoder.run_towers(**tower_inputs(batch, model.device),
                                        output_states=states or model.config.fusion == "attention")
    inputs = model_inputs(batch, model.device)
    found = []
    for sight in SIGHTS:
        shown = features.present & torch.tensor(sight, device=features.present.device)
        outputs = model(features=replace(features, present=shown), **inputs)
        found.append((torch.cat([outputs.tag_logits, outputs.none_logits], dim=1), outputs.pooled))
    logits, pooled = (torch.stack(parts, dim=1).float() for parts in zip(*found, strict=True))
    return TeacherOutputs(logits, pooled, model.encoder(features=features).modality_pooled.float(),
                          features.text_states, features.text_mask)
