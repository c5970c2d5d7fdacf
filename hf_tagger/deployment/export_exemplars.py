"""`ExemplarEvidence` as the graph computes it: what several exemplars have in common is compared once.

A product is remembered twice, with its title and without its tags' words, but it is the same photo; where no word was
taken out it is the same product. Of one product the answer takes as long as reading all keys and coefficients does.
"""

import torch
from torch import nn

from hf_tagger.exemplars_tagger import LOGIT_SCALE, MODES, ExemplarEvidence


class DistinctExemplars(nn.Module):
    """The logits of an `ExemplarEvidence`, but for rounding.

    Its exemplars stand in another order: those that share a photo with one of the last `pairs` come first.
    """

    def __init__(self, exemplars: ExemplarEvidence):
        super().__init__()
        self.exemplars = exemplars
        blocks = exemplars.blocks
        keys = {name: getattr(exemplars, f"keys_{name}") for name in blocks}
        answers = exemplars.coefficients
        used = answers.ne(0).any(-1).flatten(0, 1).any(0)
        place = _numbered(torch.cat(list(keys.values()), dim=1)[used])
        first = _first_of_each(place)
        answers = answers.new_zeros(*answers.shape[:2], len(first), answers.shape[-1], dtype=torch.float64).index_add(
            2, place, answers[:, :, used].double())
        keys = {name: key[used][first] for name, key in keys.items()}
        photos = [name for name, (modality, _) in blocks.items() if modality == "image"]
        order, self.pairs = _pairs_last(_numbered(torch.cat([keys[name] for name in photos], dim=1)))
        distinct = len(order) - self.pairs
        answers = answers[:, :, order]
        with_text, by_photo = answers[:, 0], answers[:, 1, :distinct].clone()
        by_photo[:, : self.pairs] += answers[:, 1, distinct:]
        for name, key in keys.items():
            self.register_buffer(f"keys_{name}", key[order[:distinct] if name in photos else order].T.contiguous())
        for index in range(len(exemplars.kernels)):
            for mode, table in enumerate((with_text, by_photo)):
                self.register_buffer(f"answers_{index}_{mode}", table[index].to(exemplars.coefficients.dtype))

    def forward(self, text: torch.Tensor | None, image: torch.Tensor, both_rows: torch.Tensor,
                photo_only_rows: torch.Tensor) -> torch.Tensor:
        """text, image [B, F] and the products that have both, or only a photo, int64 -> logits [B, kernels, C]."""
        exemplars = self.exemplars
        logits = image.new_zeros(image.shape[0], len(exemplars.kernels), exemplars.coefficients.shape[-1])
        for mode, rows in zip(range(MODES), (both_rows, photo_only_rows), strict=True):
            if text is None and mode == 0:
                continue
            similarities = self._similarities(text[rows] if mode == 0 else None, image[rows])
            answers = [exemplars.kernel(weights, similarities) @ getattr(self, f"answers_{index}_{mode}")
                       for index, weights in enumerate(exemplars.kernels)]
            logits = logits.index_copy(0, rows, LOGIT_SCALE * (torch.stack(answers, dim=1) + exemplars.offset))
        return logits

    def _similarities(self, text: torch.Tensor | None, image: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {}
        for name, (modality, _) in self.exemplars.blocks.items():
            features = text if modality == "text" else image
            if features is None:
                continue
            query = self.exemplars.block(name, features) @ getattr(self.exemplars, f"axes_{name}")
            found[name] = query @ getattr(self, f"keys_{name}")
            if modality == "image" and text is not None and self.pairs:
                found[name] = torch.cat([found[name], found[name][:, : self.pairs]], dim=1)
        return found


def _numbered(rows: torch.Tensor) -> torch.Tensor:
    """[N, D] -> int64 [N], the same number for the same rows."""
    return torch.unique(rows, dim=0, return_inverse=True)[1]


def _first_of_each(numbers: torch.Tensor) -> torch.Tensor:
    """Where each of the numbers 0, 1, ... stands first."""
    order = numbers.argsort(stable=True)
    return order[torch.searchsorted(numbers[order], torch.arange(int(numbers.max()) + 1))]


def _pairs_last(photo: torch.Tensor) -> tuple[torch.Tensor, int]:
    """An order of N exemplars by the numbers of their photos [N] in which the last P have the photos of the first P."""
    order = photo.argsort(stable=True)
    occurrence = torch.arange(len(photo)) - torch.searchsorted(photo[order], photo[order])
    second = (occurrence % 2 == 1).nonzero()[:, 0]
    single = torch.ones(len(photo), dtype=torch.bool)
    single[second] = single[second - 1] = False
    return torch.cat([order[second - 1], order[single], order[second]]), len(second)
