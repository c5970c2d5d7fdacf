import json

import pytest

from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build
from recipes.lab.benchmark_partial_lists import thinned

SCHEMA = {"id": "id", "text": "title", "attributes": {"kinds": {"kind": "multi"}, "brand": {"kind": "single"}}}


def test_each_tag_stays_with_the_same_probability_and_the_test_split_is_left_alone(tmp_path):
    for split in ("train", "test"):
        rows = [{"id": f"{split}{number}", "title": "Jam", "kinds": ["a", "b", "c", "d"] if number % 2 else ["a"],
                 "brand": "x"} for number in range(400)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
    catalog = Catalog(build(SourceConfig, {"files": files}, "source"), build(CatalogSchema, SCHEMA, "schema"))
    rows = list(thinned(catalog, ["kinds"], 0.6, seed=0))
    assert len(rows) == 400 and all(row["id"].startswith("train") for row in rows)
    assert {row["attribute"] for row in rows} == {"kinds"}
    assert sum(len(row["tags"] or ()) for row in rows) / 1000 == pytest.approx(0.6, abs=0.05)
    assert sum(row["tags"] is None for row in rows) / 200 == pytest.approx(0.4 + 0.4**4, abs=0.08)
    assert list(thinned(catalog, ["kinds"], 0.6, seed=0)) == rows != list(thinned(catalog, ["kinds"], 0.6, seed=1))
