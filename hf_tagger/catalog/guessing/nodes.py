"""Columns whose cells name nodes of a standard taxonomy: by ids, or by what is found in its file."""

import re
from collections import Counter

from hf_tagger.catalog.guessing.column_stats import ColumnStats
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.taxonomy import Taxonomy

FILES = {"Shopify": "dist/LANGUAGE/categories.txt of https://github.com/Shopify/product-taxonomy",
         "Google": "https://www.google.com/basepages/producttype/taxonomy-with-ids.en-US.txt"}  # fmt: skip
_CATEGORY = re.compile(r"cat[eé]gor|kategor|taxonom|カテゴリ", re.IGNORECASE)
_IDS = [  # (whose ids, what a cell is, what the column is called)
    ("Shopify", re.compile(r"gid://shopify/TaxonomyCategory/\S+"), re.compile("")),
    ("Shopify", re.compile(r"[a-z]{2}(-\d+)+"), _CATEGORY),
    ("Google", re.compile(r"\d{1,7}"), re.compile(r"google.*categor", re.IGNORECASE)),
]
_ENOUGH = 0.9  # of the cells


def whose_ids(column: ColumnStats) -> str | None:
    """The taxonomy (a key of `FILES`) whose ids most cells are."""
    cells = _cells(column)
    return next((system for system, cell, name in _IDS if name.search(column.name) and 2 * sum(
        count for text, count in cells.items() if cell.fullmatch(text)) > cells.total()), None)


def nodes(column: ColumnStats, taxonomy: Taxonomy) -> tuple[Counter[str], Counter[str]] | None:
    """({tag: rows}, those above it included, {cell that names no node: rows}) of a column of ids or paths, or with a
    category's name, that is nearly all in the taxonomy; None of another one."""
    tags, unknown, cells = Counter(), Counter(), _cells(column)
    if not _CATEGORY.search(column.name) and not whose_ids(column) and not column.pieces.get(">"):
        return None
    for cell, count in cells.items():
        try:
            line = taxonomy.line(taxonomy.find(cell))
        except RowError:
            unknown[cell] += count
            continue
        tags.update(dict.fromkeys(line, count))
    return (tags, unknown) if tags and unknown.total() <= (1 - _ENOUGH) * cells.total() else None


def _cells(column: ColumnStats) -> Counter[str]:
    return column.pieces["list"] if column.lists > column.filled / 2 else column.values
