"""`ExemplarEvidence` as the graph computes it: what several exemplars have in common is compared once.

A product is remembered twice, with its title and without its tags' words, but it is the same photo; where no word was
taken out it is the same product. Of one product the answer takes as long as reading all keys and coefficients does.
"""

import math

import torch
from torch import nn

from hf_tagger.model.kernel_head import LOGIT_SCALE, MODES, ExemplarEvidence


class DistinctExemplars(nn.Module):
    """The logits of an `ExemplarEvidence`, but for rounding.

    Its exemplars stand in another order: those that share a photo with one of the last `pairs` come first. All kernels
    compare at once, and what no product changes is multiplied into the tables: for one product it is the starting of
    many small operators that takes time.
    """

    def __init__(self, exemplars: ExemplarEvidence):
        super().__init__()
        blocks, dtype = exemplars.blocks, exemplars.coefficients.dtype
        keys = {name: getattr(exemplars, f"keys_{name}") for name in blocks}
        answers = exemplars.coefficients
        used = answers.ne(0).any(-1).flatten(0, 1).any(0)
        place = _numbered(torch.cat(list(keys.values()), dim=1)[used])
        first = _first_of_each(place)
        answers = answers.new_zeros(*answers.shape[:2], len(first), answers.shape[-1], dtype=torch.float64).index_add(
            2, place, answers[:, :, used].double())
        keys = {name: key[used][first] for name, key in keys.items()}
        photos = [name for name, (modality, _) in blocks.items() if modality == "image"]
        texts = [name for name in blocks if name not in photos]
        order, self.pairs = _pairs_last(_numbered(torch.cat([keys[name] for name in photos], dim=1)))
        distinct = len(order) - self.pairs
        self.photos = _WeighedSimilarities(exemplars, {name: keys[name][order[:distinct]] for name in photos})
        self.texts = _WeighedSimilarities(exemplars, {name: keys[name][order] for name in texts}) if texts else None
        answers = answers[:, :, order] * (LOGIT_SCALE * math.exp(-1 / exemplars.width))
        with_text, by_photo = answers[:, 0], answers[:, 1, :distinct].clone()
        by_photo[:, : self.pairs] += answers[:, 1, distinct:]
        for mode, (tables, seen) in enumerate(((with_text, blocks), (by_photo, photos))):
            total = [sum(kernel[name] ** 2 for name in kernel if name in seen) for kernel in exemplars.kernels]
            self.register_buffer(f"total_{mode}", torch.tensor(total, dtype=dtype)[:, None, None])
            for index, table in enumerate(tables):
                self.register_buffer(f"answers_{index}_{mode}", table.to(dtype))
        self.register_buffer("offset", LOGIT_SCALE * exemplars.offset)

    def forward(self, text: torch.Tensor | None, image: torch.Tensor, both_rows: torch.Tensor,
                photo_only_rows: torch.Tensor) -> torch.Tensor:
        """text, image [B, F] and the products that have both, or only a photo, int64 -> logits [B, kernels, C]."""
        photos = self.photos(image)
        logits = image.new_zeros(len(image), len(photos), self.offset.shape[-1])
        for mode, rows in zip(range(MODES), (both_rows, photo_only_rows), strict=True):
            if text is None and mode == 0:
                continue
            similarities = photos[:, rows]
            if mode == 0:
                shared = similarities[..., : self.pairs]
                similarities = torch.cat([similarities, shared], dim=2) if self.pairs else similarities
                similarities = similarities + self.texts(text[rows])
            kernels = (similarities / getattr(self, f"total_{mode}")).expm1()
            answers = [kernel @ getattr(self, f"answers_{index}_{mode}") for index, kernel in enumerate(kernels)]
            logits = logits.index_copy(0, rows, torch.stack(answers, dim=1) + self.offset)
        return logits


class _WeighedSimilarities(nn.Module):
    """Features [B, F] -> sums over the blocks of one modality of weight x similarity / width [kernels, B, N].

    Args:
        keys: of all its blocks, which lie side by side in the features, in this order (`feature_blocks`).
    """

    def __init__(self, exemplars: ExemplarEvidence, keys: dict[str, torch.Tensor]):
        super().__init__()
        self.names = list(keys)
        self.widths = [len(getattr(exemplars, f"mean_{name}")) for name in keys]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.cat([getattr(exemplars, f"{name}_{block}") for block in keys]))
        for name in keys:
            self.register_buffer(f"axes_{name}", getattr(exemplars, f"axes_{name}"))
        self.register_buffer("keys", torch.cat(list(keys.values()), dim=1).T.contiguous())
        weights = [[kernel.get(name, 0.0) ** 2 / exemplars.width for name in keys] for kernel in exemplars.kernels]
        sizes = torch.tensor([key.shape[1] for key in keys.values()])
        self.register_buffer("weights", torch.tensor(weights, dtype=self.keys.dtype).repeat_interleave(sizes, dim=1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = ((features - self.mean) / self.std).clamp(-4, 4)
        queries = [part @ getattr(self, f"axes_{name}") / part.norm(dim=1, keepdim=True).clamp(min=1e-12)
                   for name, part in zip(self.names, features.split(self.widths, dim=1), strict=True)]
        weighed = torch.cat(queries, dim=1) * self.weights[:, None]
        return (weighed.flatten(0, 1) @ self.keys).unflatten(0, (len(self.weights), -1))


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
