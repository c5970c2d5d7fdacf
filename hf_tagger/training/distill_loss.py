"""The distillation loss: how far a student's outputs are from its teacher's."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.model.decisions import attribute_slices
from hf_tagger.training.losses import LossSum
from hf_tagger.training.settings import DistillationSettings

# Which modalities are shown, (text, photo). Where modality dropout hides one from the student, it is compared with the
# teacher's outputs without that one.
SIGHTS = ((True, True), (True, False), (False, True))


@dataclass
class TeacherOutputs:
    """A teacher's outputs for B products."""

    logits: Tensor  # [B, 3, T + A], under each of SIGHTS
    pooled: Tensor  # [B, 3, H], fused vectors under each of SIGHTS
    modality_pooled: Tensor  # [B, 2, H], projected text and photo
    states: Tensor | None = None  # [B, L, F] of the text's tokens, None where they are not kept
    mask: Tensor | None = None  # bool [B, L]: which tokens are real


class DistillationLoss(nn.Module):
    """
    Args:
        attributes: as in `TaggerConfig`.
        pooled_axes, state_axes: [H, H'], [F, F'], orthonormal axes that bring the teacher's vectors to the student's
            width (`principal_axes`); None: the widths are the same.
    """

    def __init__(self, attributes: list[dict], settings: DistillationSettings, pooled_axes: Tensor | None = None,
                 state_axes: Tensor | None = None):
        super().__init__()
        self.attributes, self.settings = attributes, settings
        self.register_buffer("pooled_axes", pooled_axes, persistent=False)
        self.register_buffer("state_axes", state_axes, persistent=False)

    def forward(self, outputs, teacher: TeacherOutputs) -> LossSum:
        """The student's `TaggerOutput` in training mode -> loss summed over products, and their number. The catalogue's
        labels are compared apart, by `TaggingLoss`."""
        settings, encoded = self.settings, outputs.encoded
        rows = torch.arange(len(encoded.present), device=encoded.present.device)
        sight = torch.where(encoded.present.all(1), 0, torch.where(encoded.present[:, 0], 1, 2))
        with torch.autocast(rows.device.type, enabled=False):
            losses = torch.zeros(len(rows), device=rows.device)
            if settings.logits:
                wanted = teacher.logits[rows, sight]
                losses = losses + settings.logits * self.logits_loss(outputs.encoder_logits.float(), wanted.float())
            if settings.pooled:
                losses = losses + settings.pooled * self._pooled_loss(encoded, teacher, rows, sight)
            if settings.hidden and encoded.features.text_states is not None:
                losses = losses + settings.hidden * self._states_loss(encoded.features, teacher)
            return LossSum(losses.sum(), torch.tensor(len(rows), device=rows.device))

    def logits_loss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Both [B, T + A] -> [B]: temperature^2 x the Kullback-Leibler divergence from the teacher's probabilities, the
        mean over attributes; over tags and none of a `single` attribute, summed over the tags of a `multi` one."""
        temperature, tags = self.settings.temperature, logits.shape[1] - len(self.attributes)
        logits, wanted = logits / temperature, wanted / temperature
        total, slices = torch.zeros(len(logits), device=logits.device), attribute_slices(self.attributes)
        for index, (attribute, columns) in enumerate(zip(self.attributes, slices, strict=True)):
            if attribute["kind"] == "single":
                candidates = [*range(columns.start, columns.stop), tags + index]
                student, teacher = logits[:, candidates].log_softmax(1), wanted[:, candidates].log_softmax(1)
                total = total + (teacher.exp() * (teacher - student)).sum(1)
            else:
                student, teacher = logits[:, columns], wanted[:, columns]
                divergence = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none")
                entropy = F.binary_cross_entropy_with_logits(teacher, teacher.sigmoid(), reduction="none")
                total = total + (divergence - entropy).sum(1)
        return temperature**2 * total / len(self.attributes)

    def _pooled_loss(self, encoded, teacher: TeacherOutputs, rows: Tensor, sight: Tensor) -> Tensor:
        fused = _distance(encoded.pooled, _to_width(teacher.pooled[rows, sight], self.pooled_axes))
        each = _distance(encoded.modality_pooled, _to_width(teacher.modality_pooled, self.pooled_axes))
        there = encoded.present.float()
        return fused + (each * there).sum(1) / there.sum(1).clamp(min=1)

    def _states_loss(self, features, teacher: TeacherOutputs) -> Tensor:
        length = min(features.text_states.shape[1], teacher.states.shape[1])
        mask = features.text_mask[:, :length] & teacher.mask[:, :length]
        wanted = _to_width(teacher.states[:, :length], self.state_axes)
        error = (features.text_states[:, :length].float() - wanted).square().sum(-1)
        error = error / wanted.square().sum(-1).clamp(min=1e-6) * mask
        return error.sum(1) / mask.sum(1).clamp(min=1)


def _distance(vectors: Tensor, wanted: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(vectors.float(), wanted, dim=-1)


def _to_width(vectors: Tensor, axes: Tensor | None) -> Tensor:
    vectors = vectors.float()
    return vectors if axes is None else vectors @ axes


def principal_axes(vectors: Tensor, width: int) -> Tensor | None:
    """Orthonormal axes [F, width] that keep most of vectors [N, F], so that their cosines change least; None where they
    have that width already. A learned projection could drift to where agreeing is easy.

    Raises ValueError where `width` is larger than F.
    """
    features = vectors.shape[1]
    if features == width:
        return None
    if width > features:
        raise ValueError(f"the student's vectors ({width}) are wider than the teacher's ({features})")
    vectors = vectors.double()
    _, axes = torch.linalg.eigh(vectors.T @ vectors)
    return axes[:, -width:].float()
