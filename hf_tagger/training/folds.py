"""Folds for cross-validation: products of one group stay together, and every tag is spread evenly over the folds."""

from collections.abc import Iterable

import numpy as np

from hf_tagger.catalog.collate import TagEncoder
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError


def assign_folds(records: Iterable[Record | Refusal], attributes: list[dict], folds: int, seed: int) -> dict[str, int]:
    """{product id: fold}, by iterative stratification (Sechidis et al. 2011, On the Stratification of Multi-Label Data)
    of the tags that the groups hold.

    Args:
        records: of the split to be cut; a group is what the schema's `group` column says, else each product.
        attributes: a vocabulary's.

    Memory grows by a byte per group and tag. Raises ConfigError where there are fewer than 2 folds or fewer groups than
    folds.
    """
    try:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    except ModuleNotFoundError as error:
        raise ConfigError("folds need iterative-stratification: pip install 'hf_tagger[search]'") from error
    encode, group_of, rows = TagEncoder(attributes), {}, {}
    for item in records:
        if isinstance(item, Refusal):
            continue
        group_of[item["id"]] = item["group"]
        labels = (encode(item["tags"]) > 0).astype(np.int8)
        rows[item["group"]] = np.maximum(rows.get(item["group"], 0), labels)
    if not 2 <= folds <= len(rows):
        raise ConfigError(f"folds: {folds} folds of {len(rows)} groups of products; at least 2, at most one per group.")
    cut = MultilabelStratifiedKFold(folds, shuffle=True, random_state=seed)
    matrix, fold_of = np.stack(list(rows.values())), {}
    names = list(rows)
    for number, (_, held_out) in enumerate(cut.split(np.zeros((len(names), 1)), matrix)):
        fold_of.update({names[row]: number for row in held_out})
    return {product: fold_of[group] for product, group in group_of.items()}
