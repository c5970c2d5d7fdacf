from collections import Counter

import pytest

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.heads.folds import assign_folds, stratified_folds

ATTRIBUTES = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
              {"name": "features", "kind": "multi", "tags": ["New", "Rare"]}]  # fmt: skip


def product(number, group=None, colour="Red", features=()):
    return {"id": str(number), "group": group or str(number), "tags": {"colour": [colour], "features": list(features)}}


def test_every_tag_is_spread_evenly():
    records = [product(n, colour="Blue" if n % 3 == 0 else "Red", features=["Rare"] if n < 8 else ["New"])
               for n in range(60)]  # fmt: skip
    fold_of = assign_folds(records, ATTRIBUTES, folds=4, seed=0)
    assert Counter(fold_of.values()) == dict.fromkeys(range(4), 15)
    assert Counter(fold_of[str(n)] for n in range(8)) == dict.fromkeys(range(4), 2)
    assert Counter(fold_of[str(n)] for n in range(0, 60, 3)) == dict.fromkeys(range(4), 5)


def test_groups_stay_together():
    records = [product(n, group=f"g{n // 3}", colour="Blue" if n % 2 else "Red") for n in range(60)]
    fold_of = assign_folds(records, ATTRIBUTES, folds=5, seed=0)
    assert len(fold_of) == 60
    assert all(len({fold_of[str(n)] for n in range(start, start + 3)}) == 1 for start in range(0, 60, 3))


def test_the_seed_decides_and_refused_rows_are_passed_over():
    records = [product(n) for n in range(40)]
    with_refusal = [*records, Refusal(41, "x", None, "no_content", "")]
    assert assign_folds(records, ATTRIBUTES, 4, seed=1) == assign_folds(with_refusal, ATTRIBUTES, 4, seed=1)
    assert assign_folds(records, ATTRIBUTES, 4, seed=1) != assign_folds(records, ATTRIBUTES, 4, seed=2)


def test_more_folds_than_groups_are_refused():
    records = [product(n, group=f"g{n % 3}") for n in range(30)]
    with pytest.raises(ConfigError, match="4 folds of 3 groups"):
        assign_folds(records, ATTRIBUTES, folds=4, seed=0)
    with pytest.raises(ConfigError, match="at least 2"):
        assign_folds(records, ATTRIBUTES, folds=1, seed=0)


def test_products_without_tags_fill_the_smallest_folds():
    fold = stratified_folds(range(9), [[0], [0], [0], *[[]] * 6], folds=3, seed=0)
    assert Counter(fold.tolist()) == dict.fromkeys(range(3), 3) and set(fold[:3]) == {0, 1, 2}
