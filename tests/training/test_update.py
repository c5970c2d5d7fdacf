import numpy as np
import pytest

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.training.update import CorrectedCatalog, corrected, read_feedback, replay_share, verdict_agreement
from tests.tiny_tagger import ATTRIBUTES

KINDS = {"colour": "single", "features": "multi"}


@pytest.mark.parametrize("holds, colour, features", [
    ({("colour", "Blue"): True, ("colour", "Red"): False}, ["Blue"], ["Waterproof"]),
    ({("colour", "Red"): False}, None, ["Waterproof"]),
    ({("colour", "Blue"): False}, ["Red"], ["Waterproof"]),
    ({("colour", "Blue"): True, ("colour", "Red"): True}, None, ["Waterproof"]),
    ({("features", "Handmade"): True}, ["Red"], ["Waterproof", "Handmade"]),
    ({("features", "Waterproof"): False}, ["Red"], []),
    ({("size", "M"): True}, ["Red"], ["Waterproof"]),
])
def test_tags_are_corrected(holds, colour, features):
    tags = {"colour": ["Red"], "features": ["Waterproof"]}
    assert corrected(tags, holds, KINDS) == {"colour": colour, "features": features}
    assert tags == {"colour": ["Red"], "features": ["Waterproof"]}


def test_one_verdict_does_not_make_a_multi_attribute_known():
    holds = {("features", "Waterproof"): True, ("colour", "Blue"): True}
    assert corrected({"colour": None, "features": None}, holds, KINDS) == {"colour": ["Blue"], "features": None}


def test_corrected_products_are_all_there_and_others_by_their_share(tmp_path):
    for split in ("train", "test"):
        lines = ["id,title,colour", *(f"{split}{number},thing,Red" for number in range(400))]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    schema = build(CatalogSchema, {"id": "id", "text": ["title"], "attributes": {"colour": {"min_count": 9}}})
    source = build(SourceConfig, {"files": {split: str(tmp_path / f"{split}.csv") for split in ("train", "test")}})
    holds = {f"train{number}": {("colour", "Blue"): True} for number in range(50)}
    catalog = CorrectedCatalog(Catalog(source, schema), holds, 0.3)
    records = [item for item in catalog.records("train") if not isinstance(item, Refusal)]
    tags = {item["id"]: item["tags"]["colour"] for item in records}
    assert {product for product, given in tags.items() if given == ["Blue"]} == set(holds)
    assert 70 < len(tags) - 50 < 140
    assert [item["id"] for item in catalog.with_text(["title"]).records("train")] == list(tags)
    assert all(item["tags"]["colour"] == ["Red"] for item in catalog.records("test"))
    assert len(list(catalog.records("test"))) == 400


def test_nothing_is_learned_of_an_id_that_several_products_have(tmp_path):
    pytest.importorskip("sqlalchemy")
    from hf_tagger.feedback.store import FeedbackStore
    from hf_tagger.feedback.verdicts import Verdict, fingerprint

    titles = {"1": ["Mug"], "2": ["Bag", "Another bag"], "3": ["Hat", "Hat"]}
    lines = [f"{id},{title},Red" for id, found in titles.items() for title in found]
    (tmp_path / "shop.csv").write_text("\n".join(["id,title,colour", *lines]))
    schema = build(CatalogSchema, {"id": "id", "text": ["title"], "attributes": {"colour": {}}})
    catalog = Catalog(build(SourceConfig, {"path": str(tmp_path / "shop.csv")}), schema)
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add([Verdict(id, fingerprint({"text": title, "images": []}), "colour", "Blue", "add", "ana", "1")
                   for id, (title, *_) in titles.items()])
        feedback = read_feedback(store, catalog, ATTRIBUTES)
    assert {*feedback.learned, *feedback.held_out} == {"1", "3"} and feedback.products == 3
    assert feedback.summary.endswith("; 1 ids are of several products, from which nothing is learned (2)")


def test_the_share_of_replayed_products():
    assert replay_share(100, 10100, 10.0) == pytest.approx(0.1)
    assert replay_share(1, 10001, 10.0) == pytest.approx(0.02)
    assert replay_share(100, 200, 10.0) == 1.0


def test_agreement_with_verdicts_as_counted_by_hand():
    chosen = np.zeros((3, 6), bool)
    chosen[0, 0] = chosen[1, 1] = True
    predictions = Predictions(ATTRIBUTES, ids=["A", "B", "C"], chosen=chosen)
    holds = {"A": {("colour", "Red"): True, ("colour", "Blue"): True}, "B": {("colour", "Blue"): False},
             "C": {("colour", "Teal"): True, ("features", "Handmade"): False}, "gone": {("colour", "Red"): True}}
    assert verdict_agreement(predictions, holds) == pytest.approx(2 / 5)
    assert np.isnan(verdict_agreement(predictions, {}))
