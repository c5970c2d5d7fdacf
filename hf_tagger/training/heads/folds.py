"""Folds for cross-validation: products of one group stay together, and every tag is spread evenly over the folds."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError


def assign_folds(records: Iterable[Record | Refusal], attributes: list[dict], folds: int, seed: int) -> dict[str, int]:
    """{product id: fold} of a split's records; a group is what the schema's `group` column says, else each product.
    Raises ConfigError as `stratified_folds`."""
    encode, ids, groups, tags = TagEncoder(attributes), [], [], []
    for item in records:
        if not isinstance(item, Refusal):
            ids.append(item["id"])
            groups.append(item["group"])
            tags.append(np.flatnonzero(encode(item["tags"]) > 0))
    return dict(zip(ids, stratified_folds(groups, tags, folds, seed).tolist(), strict=True))


def stratified_folds(
    groups: Sequence[Hashable], tags: Iterable[Iterable[int]], folds: int, seed: int
) -> np.ndarray:
    """The fold of each product, int [N], by stratification of the tags (numbers) that its group holds.

    Groups with the rarest tags choose first, each the fold that has fewest of its rarest tag, then of the next rarest,
    then fewest groups. This is iterative stratification (Sechidis et al. 2011, On the Stratification of Multi-Label
    Data), except that the rarity of tags is counted only once: its time grows with the number of products' tags alone.

    Raises ConfigError where there are fewer than 2 folds or fewer groups than folds.
    """
    held: dict[Hashable, set[int]] = {}
    for group, own in zip(groups, tags, strict=True):
        held.setdefault(group, set()).update(map(int, own))
    if not 2 <= folds <= len(held):
        raise ConfigError(f"folds: {folds} folds of {len(held)} groups of products; at least 2, at most one per group.")
    total = np.bincount([tag for own in held.values() for tag in own], minlength=1)
    draw = np.random.default_rng(seed)
    names = list(held)
    rarest_first = [sorted(held[name], key=lambda tag: (total[tag], tag)) for name in names]
    order = draw.permutation(len(names)).tolist()
    order.sort(key=lambda place: total[rarest_first[place][0]] if rarest_first[place] else len(names) + 1)
    have, size, fold_of = np.zeros((len(total), folds), np.int64), np.zeros(folds, np.int64), {}
    for place in order:
        own = rarest_first[place]
        best = np.lexsort([draw.random(folds), size, *have[own[::-1]]])[0]
        have[own, best] += 1
        size[best] += 1
        fold_of[names[place]] = best
    return np.array([fold_of[group] for group in groups])
