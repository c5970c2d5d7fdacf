"""Frozen tower features, computed once and kept on disk, so that heads settle in minutes instead of hours."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from hf_tagger.encoder_tagger import TowerFeatures

INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_mask")


@dataclass
class FeatureLoader:
    """Batches of stored tower features: the `epoch` of a `CatalogLoader` without the towers' work.

    Args:
        text, image: one float16 array [N, F] per view, memory-mapped; empty where the model has no such tower.
        present: bool [N, 2] per view.
        input_ids, attention_mask: int32 [N, L], the tokens of view 0 (None where nobody has text).
        tag_labels: float [N, T]; ids: N product ids; tags: as in their records.
        repeats: how often each product is drawn per epoch, on average [N].
    """

    batch_size: int
    seed: int
    text: list[np.ndarray] = field(default_factory=list)
    image: list[np.ndarray] = field(default_factory=list)
    present: list[np.ndarray] = field(default_factory=list)
    input_ids: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    tag_labels: np.ndarray | None = None
    ids: list[str] = field(default_factory=list)
    tags: list[dict] = field(default_factory=list)
    repeats: list[float] = field(default_factory=list)

    def epoch(self, epoch: int = 0, skip_batches: int = 0) -> Iterator[dict[str, Any]]:
        """Shuffled batches, each product in a view drawn afresh."""
        draw = random.Random(f"features {self.seed} {epoch}")
        rows = [row for row, factor in enumerate(self.repeats)
                for _ in range(int(factor) + (draw.random() < factor % 1))]
        draw.shuffle(rows)
        views = [draw.randrange(len(self.present)) for _ in rows]
        for start in range(skip_batches * self.batch_size, len(rows), self.batch_size):
            yield self.batch(rows[start:start + self.batch_size], views[start:start + self.batch_size])

    def batch(self, rows: list[int], views: list[int]) -> dict[str, Any]:
        """These products, each in the view given."""

        def gather(arrays: list[np.ndarray]) -> torch.Tensor | None:
            if not arrays:
                return None
            return torch.from_numpy(np.stack([arrays[view][row] for row, view in zip(rows, views, strict=True)]))

        text, image = gather(self.text), gather(self.image)
        features = TowerFeatures(present=gather(self.present), text=None if text is None else text.float(),
                                 image=None if image is None else image.float())
        return {"ids": [self.ids[row] for row in rows], "features": features, "refusals": [],
                "tag_labels": torch.from_numpy(self.tag_labels[rows])}

    def all_views(self, batch_size: int = 256) -> Iterator[dict[str, Any]]:
        """Batches of every product in every view, in the catalogue's order."""
        for view in range(len(self.present)):
            for start in range(0, len(self.ids), batch_size):
                rows = list(range(start, min(start + batch_size, len(self.ids))))
                yield self.batch(rows, [view] * len(rows))


@torch.no_grad()
def store_features(
    model, views: Iterable[Iterator[dict[str, Any]]], folder: Path, batch_size: int, seed: int,
    repeat_factor: Callable[[dict], float] = lambda tags: 1.0, towers: tuple[str, ...] = ("text", "image"),
) -> FeatureLoader:
    """Runs the towers of a `TaggerModel` over the batches of every view (which must hold the same products in the same
    order) and keeps the features of `towers` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    loader = FeatureLoader(batch_size, seed)
    model.eval()
    labels: list[np.ndarray] = []
    tokens: list[dict[str, Any]] = []
    for view, batches in enumerate(views):
        ids: list[str] = []
        present: list[np.ndarray] = []
        widths: dict[str, int] = {}
        paths = {name: folder / f"{name}.{view}.f16" for name in ("text", "image")}
        with open(paths["text"], "wb") as text_file, open(paths["image"], "wb") as image_file:
            for batch in tqdm(batches, desc=f"features, view {view + 1}", unit="batch", dynamic_ncols=True):
                if not batch["ids"]:
                    continue
                inputs = {key: batch[key].to(model.device) for key in INPUTS if key in batch}
                features = model.encoder.run_towers(**inputs)
                for name, file in (("text", text_file), ("image", image_file)):
                    vectors = getattr(features, name)
                    width = model.encoder.feature_widths[name]
                    if width and name in towers:
                        widths[name] = width
                        vectors = torch.zeros(len(batch["ids"]), width) if vectors is None else vectors
                        file.write(vectors.to("cpu", torch.float16).numpy().tobytes())
                present.append(features.present.cpu().numpy())
                ids += batch["ids"]
                if view == 0:
                    labels.append(batch["tag_labels"].numpy())
                    tokens.append({key: batch[key] for key in ("ids", "input_ids", "attention_mask") if key in batch})
                    loader.tags += batch["tags"]
                    loader.repeats += [repeat_factor(tags) for tags in batch["tags"]]
        if view and ids != loader.ids:
            raise RuntimeError("the catalogue gave other products on its second reading: is it being written to?")
        loader.ids = ids
        loader.present.append(np.concatenate(present))
        for name, width in widths.items():
            array = np.memmap(paths[name], np.float16, "r", shape=(len(ids), width))
            getattr(loader, name).append(array)
    loader.tag_labels = np.concatenate(labels)
    loader.input_ids, loader.attention_mask = (_stacked(tokens, name) for name in ("input_ids", "attention_mask"))
    return loader


def _stacked(batches: list[dict[str, Any]], name: str) -> torch.Tensor | None:
    """[N, L] from the token tensors of batches of any lengths; zeros for a batch in which nobody has text."""
    width = max((batch[name].shape[1] for batch in batches if name in batch), default=0)
    if not width:
        return None
    rows = torch.zeros(sum(len(batch["ids"]) for batch in batches), width, dtype=torch.int32)
    start = 0
    for batch in batches:
        if name in batch:
            rows[start:start + len(batch["ids"]), :batch[name].shape[1]] = batch[name]
        start += len(batch["ids"])
    return rows
