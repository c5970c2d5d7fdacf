"""Parts of a split whose products share a language, the same modalities, or the value of a column."""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from hf_tagger.evaluation.predict import Predictions

MOST_VALUES = 50


def product_slices(predictions: Predictions, columns: Iterable[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """{"language": {"de": bool [N], ...}, "modalities": {...}, column: {...}}, the largest parts first; of columns,
    which the schema keeps, the 50 commonest values, lists by each of their items. A family with a single part is left
    out, unless its column was asked for."""
    families = {"language": [[str(about["language"] or "unknown")] for about in predictions.about],
                "modalities": [[_modalities(about)] for about in predictions.about]}
    families |= {column: [_values(about["kept"].get(column)) for about in predictions.about] for column in columns}
    found = {}
    for family, values in families.items():
        counts = Counter(value for row in values for value in set(row))
        if len(counts) > 1 or family in columns:
            found[family] = {value: np.array([value in row for row in values], dtype=bool)
                             for value, _ in counts.most_common(MOST_VALUES)}
    return found


def _modalities(about: dict) -> str:
    if about["text"] and about["photos"]:
        return "text and photo"
    return "text only" if about["text"] else "photo only"


def _values(value) -> list[str]:
    if isinstance(value, list):
        return [str(item) for item in value] or ["(empty)"]
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return ["(empty)"] if missing else [str(value)]
