"""One call for every method: retrains a tag head on real vectors and on extra ones for rare tags."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_tagger.augmentation.gan import SemiSupervisedGan
from hf_tagger.augmentation.perturbations import PseudoLabels, ResidualTransfer
from hf_tagger.augmentation.retrain import Log, Loss, VectorSource, retrain_head
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.model.decisions import attribute_slices, tag_scores


@dataclass
class Problem:
    """What all methods start from."""

    data: TaggedVectors
    attributes: list[dict]  # name, kind, tags and counts (training products), in the order of the labels
    tag_embeddings: Tensor  # [T, E], of the tags' names
    settled: Callable[[Tensor], Tensor]  # vectors [B, H] -> logits [B, T + A] of a head trained on the real vectors
    # (tag counts [T], none counts [A]) -> the loss of (logits [B, T + A], tag_labels [B, T]) for vectors that come in
    # these frequencies.
    loss: Callable[[Tensor, Tensor], Loss]

    @property
    def slices(self) -> list[slice]:
        return attribute_slices(self.attributes)

    def candidates(self) -> list[Tensor]:
        """Columns of the logits of each `single` attribute, its "none" last."""
        return [torch.tensor([*range(where.start, where.stop), self.slices[-1].stop + index])
                for index, (attribute, where) in enumerate(zip(self.attributes, self.slices, strict=True))
                if attribute["kind"] == "single"]

    def frequent(self, rare: int) -> list[int]:
        """Columns of the tags with more than `rare` training products."""
        counts = [count for attribute in self.attributes for count in attribute["counts"]]
        return [column for column, count in enumerate(counts) if count > rare]

    def loss_of(self, tag_labels: Tensor) -> Loss:
        """The loss for vectors whose tags occur as often as in these labels [N, T]."""
        nones = [(tag_labels[:, where] == 0).all(1).sum() for where in self.slices]
        return self.loss((tag_labels == 1).sum(0).float(), torch.stack(nones).float())

    @torch.no_grad()
    def scores(self, vectors: Tensor) -> Tensor:
        """Probabilities [B, T] of the settled head."""
        return torch.from_numpy(tag_scores(self.attributes, self.settled(vectors).numpy()))


def augment(problem: Problem, head: nn.Module, settings: AugmentationSettings, seed: int, log: Log | None = None,
            source: VectorSource | None = None) -> VectorSource | None:
    """Retrains `head` (its parameters that require a gradient) by `settings.method`, in place. Returns the source of
    the extra vectors, such as the trained GAN, if the method has one; a `source` given takes its place.

    Raises AugmentationStopped if a GAN fails before any good state, or if no product gets a pseudo-label.
    """
    generator = torch.Generator().manual_seed(seed)
    data = problem.data
    columns = [column for attribute, where in zip(problem.attributes, problem.slices, strict=True)
               if not settings.attributes or attribute["name"] in settings.attributes
               for column in range(where.start, where.stop)]
    sampler = TagSetSampler(data, columns, problem.slices, settings.power,
                            settings.recombine if "gan" in settings.method else 0.0)
    source_loss = extra = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.method == "semi_supervised_gan":
            extra = SemiSupervisedGan(data, sampler, problem.tag_embeddings, settings.gan, log,
                                      groups=problem.candidates(), random=generator, batch_size=settings.batch_size)
        elif source is not None or settings.method != "none":
            source = source or _source(problem, sampler, settings)
            source_loss = problem.loss_of(torch.cat([source.draw(1024, generator)[1] for _ in range(4)]))
        every = problem.loss_of(torch.from_numpy(data.tag_labels[data.labelled()]))
        retrain_head(head, data, every, settings, generator, source, source_loss, extra)
        if extra is not None:
            extra.finish()
    return source if extra is None else extra


def _source(problem: Problem, sampler: TagSetSampler, settings: AugmentationSettings) -> VectorSource:
    data, slices = problem.data, problem.slices
    if settings.method == "pseudo_labels":
        return PseudoLabels(data, problem.attributes, slices, problem.scores, settings.confidence)
    return ResidualTransfer(data, sampler, slices, problem.frequent(settings.rare))
