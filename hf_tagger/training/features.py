"""Frozen tower features, computed once and kept on disk, so that heads settle in minutes instead of hours."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_tagger.catalog.batching.collate import padded, tower_inputs
from hf_tagger.catalog.batching.tag_labels import TagLabels
from hf_tagger.catalog.batching.targets import FreeForm, TargetEncoder
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.model.towers import TEXT, TowerFeatures


@dataclass
class FeatureLoader:
    """Batches of stored tower features: the `epoch` of a `CatalogLoader` without the towers' work."""

    batch_size: int
    seed: int
    # One float16 array [N, F] per view, memory-mapped; empty where the model has no such tower.
    text: list[np.ndarray] = field(default_factory=list)
    image: list[np.ndarray] = field(default_factory=list)
    present: list[np.ndarray] = field(default_factory=list)  # bool [N, 2] per view
    texts: list[str | None] = field(default_factory=list)  # as read in view 0, None for a product without text
    tag_labels: TagLabels | None = None  # [N, T]
    ids: list[str] = field(default_factory=list)
    tags: list[dict] = field(default_factory=list)  # as in the records
    repeats: list[float] = field(default_factory=list)  # how often each product is drawn per epoch, on average [N]
    # For a decoder, token states of text and photos and the text's token ids, per view; and what its targets are, drawn
    # anew each epoch.
    sequences: list[dict[str, "Ragged"]] = field(default_factory=list)
    free_form: list[tuple[FreeForm, str | None]] = field(default_factory=list)
    encode_targets: TargetEncoder | None = None
    # Probabilities of the closed tags [N, T] by heads that have not learned from the product (NaN: not known), for the
    # decoder to learn with.
    closed_scores: np.ndarray | None = None

    def epoch(self, epoch: int = 0, skip_batches: int = 0) -> Iterator[dict[str, Any]]:
        """Shuffled batches, each product in a view drawn afresh."""
        draw = random.Random(f"features {self.seed} {epoch}")
        rows = [row for row, factor in enumerate(self.repeats)
                for _ in range(int(factor) + (draw.random() < factor % 1))]
        draw.shuffle(rows)
        views = [draw.randrange(len(self.present)) for _ in rows]
        for start in range(skip_batches * self.batch_size, len(rows), self.batch_size):
            batch = self.batch(rows[start:start + self.batch_size], views[start:start + self.batch_size])
            if self.encode_targets is not None:
                targets = [self.encode_targets(*self.free_form[row], random.Random(f"{self.seed} {epoch} {place}"))
                           for place, row in enumerate(rows[start:start + self.batch_size], start)]
                batch["labels"] = padded(targets)
            yield batch

    def batch(self, rows: list[int], views: list[int]) -> dict[str, Any]:
        """These products, each in the view given."""

        def gather(arrays: list[np.ndarray]) -> torch.Tensor | None:
            if not arrays:
                return None
            return torch.from_numpy(np.stack([arrays[view][row] for row, view in zip(rows, views, strict=True)]))

        text, image = gather(self.text), gather(self.image)
        features = TowerFeatures(present=gather(self.present), text=None if text is None else text.float(),
                                 image=None if image is None else image.float())
        batch = {"ids": [self.ids[row] for row in rows], "views": views, "features": features, "refusals": [],
                 "tag_labels": torch.from_numpy(self.tag_labels[rows])}
        if self.closed_scores is not None:
            # Of products as they are, in view 0.
            known = np.array(views)[:, None] == 0
            batch["closed_scores"] = torch.from_numpy(np.where(known, self.closed_scores[rows], np.nan))
        if self.sequences:
            for name in ("text", "image"):
                found = [self.sequences[view][name][row] for row, view in zip(rows, views, strict=True)]
                states, mask = pad_rows(found)
                if states.shape[1]:
                    setattr(features, f"{name}_states", states.float())
                    setattr(features, f"{name}_mask", mask)
            ids, mask = pad_rows([self.sequences[view]["ids"][row] for row, view in zip(rows, views, strict=True)])
            if ids.shape[1]:
                batch |= {"input_ids": ids[..., 0].long(), "attention_mask": mask.long()}
        return batch

    def sample(self, rows: int = 1000) -> dict[str, np.ndarray]:
        """{"text" | "image": features [n, F]} of the first products that have each, as they are."""
        return {name: stored[0][np.flatnonzero(self.present[0][:, column])[:rows]]
                for column, (name, stored) in enumerate((("text", self.text), ("image", self.image))) if stored}

    def all_views(self, batch_size: int = 256) -> Iterator[dict[str, Any]]:
        """Batches of every product in every view, in the catalogue's order."""
        for view in range(len(self.present)):
            for start in range(0, len(self.ids), batch_size):
                rows = list(range(start, min(start + batch_size, len(self.ids))))
                yield self.batch(rows, [view] * len(rows))


class Ragged:
    """Rows of different lengths [N, L_i, F] in one file, read on demand."""

    def __init__(self, path: Path, width: int, dtype: type):
        self.path, self.width, self.dtype = path, width, dtype
        self.ends, self.file = [0], open(path, "wb")
        self.values: np.ndarray | None = None

    @classmethod
    def open(cls, path: Path, width: int, dtype: type, ends: list[int]) -> "Ragged":
        """What an earlier `finish` left."""
        ragged = cls.__new__(cls)
        ragged.path, ragged.width, ragged.dtype, ragged.ends = path, width, dtype, ends
        return ragged._mapped()

    def append(self, rows: torch.Tensor | None, mask: torch.Tensor | None, count: int) -> None:
        """rows [B, L, F] where mask [B, L]; None for `count` rows of nothing."""
        if rows is None:
            self.ends += [self.ends[-1]] * count
            return
        self.ends += (self.ends[-1] + mask.sum(1).cumsum(0)).tolist()
        rows = rows[mask.bool()].cpu()
        # NumPy has no bfloat16.
        rows = rows.float() if rows.is_floating_point() else rows
        self.file.write(rows.numpy().astype(self.dtype).tobytes())

    def finish(self) -> "Ragged":
        self.file.close()
        return self._mapped()

    def _mapped(self) -> "Ragged":
        shape = (self.ends[-1], self.width)
        self.values = np.memmap(self.path, self.dtype, "r", shape=shape) if shape[0] else np.zeros(shape, self.dtype)
        return self

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.ends[row]:self.ends[row + 1]]


def pad_rows(rows: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Arrays [L_i, F] -> [B, L, F] and which of it is real, bool [B, L]."""
    padded_rows = np.zeros((len(rows), max(map(len, rows)), rows[0].shape[1]), rows[0].dtype)
    mask = torch.zeros(padded_rows.shape[:2], dtype=torch.bool)
    for place, row in enumerate(rows):
        padded_rows[place, :len(row)], mask[place, :len(row)] = row, True
    return torch.from_numpy(padded_rows), mask


@torch.no_grad()
def store_features(
    model, views: Iterable[Iterator[dict[str, Any]]], folder: Path, batch_size: int, seed: int,
    repeat_factor: Callable[[dict], float] = lambda tags: 1.0, towers: tuple[str, ...] = ("text", "image"),
    encode_targets: TargetEncoder | None = None, refuse: Callable[[list[Refusal]], None] = lambda refusals: None,
    same_text: bool = False,
) -> FeatureLoader:
    """Runs the towers of a `TaggerModel` over the batches of every view (which must hold the same products in the same
    order) and keeps the features of `towers` in `folder`; with `encode_targets` the token states too. `refuse` gets
    what could not be read of each batch. With `same_text` the text tower reads the first view alone: texts are alike
    in all."""
    folder.mkdir(parents=True, exist_ok=True)
    loader = FeatureLoader(batch_size, seed, encode_targets=encode_targets)
    model.eval()
    attributes, labels = model.config.attributes, []
    for view, batches in enumerate(views):
        ids: list[str] = []
        present: list[np.ndarray] = []
        widths: dict[str, int] = {}
        again = bool(view and same_text and loader.text and encode_targets is None)
        paths = {name: folder / f"{name}.{view}.f16" for name in ("text", "image")}
        sequences = {} if encode_targets is None else _open_sequences(model, folder, view)
        with open(paths["text"], "wb") as text_file, open(paths["image"], "wb") as image_file:
            for batch in progress_bar(batches, desc=f"features, view {view + 1}", unit="batch", leave=False):
                refuse(batch.get("refusals", []))
                if not batch["ids"]:
                    continue
                inputs = tower_inputs(batch, model.device)
                if again:
                    inputs = {name: inputs[name] for name in ("pixel_values", "pixel_mask") if name in inputs}
                features = TowerFeatures(torch.zeros(len(batch["ids"]), 2, dtype=torch.bool))
                if inputs:
                    features = model.encoder.run_towers(**inputs, output_states=bool(sequences))
                _append_sequences(sequences, features, inputs, len(batch["ids"]))
                for name, file in (("text", text_file), ("image", image_file)):
                    vectors = getattr(features, name)
                    width = model.encoder.feature_widths[name]
                    if width and name in towers and not (again and name == "text"):
                        widths[name] = width
                        vectors = torch.zeros(len(batch["ids"]), width) if vectors is None else vectors
                        file.write(vectors.to("cpu", torch.float16).numpy().tobytes())
                present.append(features.present.cpu().numpy())
                ids += batch["ids"]
                if view == 0:
                    labels.append(TagLabels(attributes, [batch["tag_labels"].numpy()]))
                    loader.texts += batch["texts"]
                    loader.tags += batch["tags"]
                    loader.repeats += [repeat_factor(tags) for tags in batch["tags"]]
                    if encode_targets is not None:
                        loader.free_form += list(zip(batch["free_form"], batch["languages"], strict=True))
        if view and ids != loader.ids:
            raise RuntimeError("the catalogue gave other products on its second reading: is it being written to?")
        loader.ids = ids
        if sequences:
            loader.sequences.append({name: ragged.finish() for name, ragged in sequences.items()})
        loader.present.append(np.concatenate(present))
        if again:
            loader.text.append(loader.text[0])
            loader.present[view][:, TEXT] = loader.present[0][:, TEXT]
        for name, width in widths.items():
            array = np.memmap(paths[name], np.float16, "r", shape=(len(ids), width))
            getattr(loader, name).append(array)
    loader.tag_labels = TagLabels.joined(attributes, labels)
    return loader


def _open_sequences(model, folder: Path, view: int) -> dict[str, Ragged]:
    encoder, widths = model.encoder, {"text": 1, "image": 1}
    for name in widths:
        projection = getattr(encoder, f"{name}_token_projection", None)
        widths[name] = projection.in_features if projection is not None else 1
    sequences = {name: Ragged(folder / f"{name}_states.{view}.f16", width, np.float16)
                 for name, width in widths.items()}
    return sequences | {"ids": Ragged(folder / f"ids.{view}.i32", 1, np.int32)}


def _append_sequences(sequences: dict[str, Ragged], features: TowerFeatures, inputs: dict, count: int) -> None:
    if sequences:
        sequences["text"].append(features.text_states, features.text_mask, count)
        sequences["image"].append(features.image_states, features.image_mask, count)
        ids = inputs.get("input_ids")
        sequences["ids"].append(None if ids is None else ids[..., None], inputs.get("attention_mask"), count)
