"""A long-tail contest on frozen features: every method trains the same small head on the same few vectors."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hf_tagger.augmentation.methods import Problem, augment
from hf_tagger.augmentation.retrain import Loss
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.augmentation.wgan import ConditionalGan
from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.evaluation.metrics import count_tags
from hf_tagger.model.kernel_head import Blocks

GROUPS = ("all", "head", "medium", "tail")
HIDDEN, DROPOUT = 256, 0.1


@dataclass
class LongTail:
    """
    Args:
        classes: {tag: {"train", "test" (numbers of products), "group"}}, in the order of the columns.
        train, test: ids of the labelled training products and of the test products.
    """

    classes: dict[str, dict]
    train: set[str]
    test: set[str]

    @classmethod
    def load(cls, path: Path) -> "LongTail":
        data = json.loads(path.read_text(encoding="utf-8"))
        return cls(data["classes"], set(data["train"]), set(data["test"]))

    def group_f1(self, references: np.ndarray, chosen: np.ndarray) -> dict[str, float]:
        """Macro-F1 of each group of classes, from tags [N, T] that are and that were chosen, in {0, 1}."""
        counts = count_tags(references, chosen)
        positives = 2 * counts.true_positives
        f1 = positives / np.maximum(positives + counts.false_positives + counts.false_negatives, 1)
        groups = np.array([entry["group"] for entry in self.classes.values()])
        return {name: float(f1[(groups == name) | (name == "all")].mean()) for name in GROUPS}


class Compressor:
    """Standardises blocks of tower features, brings each to unit length times its weight, and keeps the first principal
    axes of them all, on a common scale of 1.

    Args:
        blocks: where the blocks stand (`kernel_head.feature_blocks`); weights: of those wanted.
        text, image: features [N, F] of the products that it is fitted to.
    """

    def __init__(self, blocks: Blocks, weights: dict[str, float], text: Tensor, image: Tensor, width: int):
        self.blocks = {name: blocks[name] for name in weights if name in blocks}
        self.weights, self.scales = weights, {}
        for name, (modality, columns) in self.blocks.items():
            part = (text if modality == "text" else image)[:, columns].float()
            self.scales[name] = part.mean(0), part.std(0).clamp(min=1e-4)
        joined = self._join(text, image)
        self.mean = joined.mean(0)
        _, axes = torch.linalg.eigh((joined - self.mean).T @ (joined - self.mean))
        self.axes = axes[:, -width:]
        self.scale = ((joined - self.mean) @ self.axes).std()

    def _join(self, text: Tensor, image: Tensor) -> Tensor:
        parts = []
        for name, (modality, columns) in self.blocks.items():
            mean, std = self.scales[name]
            part = ((text if modality == "text" else image)[:, columns].float() - mean) / std
            parts.append(self.weights[name] * nn.functional.normalize(part.clamp(-4, 4), dim=1))
        return torch.cat(parts, dim=1)

    def __call__(self, text: Tensor, image: Tensor) -> Tensor:
        return (self._join(text, image) - self.mean) @ self.axes / self.scale


@dataclass
class Contest:
    """
    Args:
        train: vectors of the training split, labels known for the labelled ones only.
        scored: {"test", "validation"}: vectors [N, H] and labels int [N, T].
        attribute: the tags with their training counts, as in a model's config; tag_embeddings: [T, E].
        losses: logit_adjustment_tau -> (tag counts, none counts) -> loss.
    """

    long_tail: LongTail
    train: TaggedVectors
    scored: dict[str, tuple[Tensor, np.ndarray]]
    attribute: dict
    tag_embeddings: Tensor
    losses: Callable[[float], Callable[[Tensor, Tensor], Loss]]
    teachers: dict[int, nn.Module] = field(default_factory=dict)
    gans: dict[int, ConditionalGan] = field(default_factory=dict)

    def run(self, settings: AugmentationSettings, seed: int) -> dict[str, dict[str, float]]:
        """Trains one head; macro-F1 by group on "test" and "validation"."""
        if settings.method in ("gan", "pseudo_labels") and seed not in self.teachers:
            plain = AugmentationSettings(method="none", epochs=settings.epochs)
            self.teachers[seed] = self._train(plain, seed, None).requires_grad_(False)
        head = self._train(settings, seed, self.teachers.get(seed))
        return {split: self.score(head, *products) for split, products in self.scored.items()}

    def _train(self, settings: AugmentationSettings, seed: int, teacher: nn.Module | None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = small_head(self.train.width, len(self.attribute["tags"]) + 1)
        losses = self.losses(settings.logit_adjustment_tau)
        problem = Problem(self.train, [self.attribute], self.tag_embeddings, teacher, losses)
        result = augment(problem, head, settings, seed, progress=False, gan=self.gans.get(seed))
        if settings.method == "gan":
            self.gans[seed] = result.gan
        return head

    @torch.no_grad()
    def score(self, head: nn.Module, vectors: Tensor, labels: np.ndarray) -> dict[str, float]:
        best = head(vectors)[:, :-1].argmax(1, keepdim=True)
        chosen = torch.zeros(labels.shape, dtype=torch.long).scatter(1, best, 1)
        return self.long_tail.group_f1(labels, chosen.numpy())


def small_head(width: int, candidates: int) -> nn.Module:
    """One hidden layer, as `concat` fusion and a linear tag head have."""
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.LayerNorm(HIDDEN), nn.Dropout(DROPOUT),
                         nn.Linear(HIDDEN, candidates))


def hide_labels(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """labels [N, T] with the rows that are not known bool [N] all unknown."""
    return np.where(known[:, None], labels, UNKNOWN).astype(np.int8)
