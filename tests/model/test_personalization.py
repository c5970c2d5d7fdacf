"""A tagger that knows red and blue, mugs and dresses, and shoppers who prefer one or the other."""

import json
from datetime import UTC, datetime

import pytest
import torch
from transformers import pipeline

import hf_tagger  # noqa: F401
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.reranking import DAY, ShopperProfile, affinities, met_tags, read_events, tag_vectors
from tests.tiny_tagger import ATTRIBUTES, tiny_model, tiny_processor, trained_tagger

GATES = {"half_life_days": 30.0, "prior": 1.0, "gates": {"colour": 4.0, "category": 4.0, "features": 4.0}}
PRODUCT = "red mug waterproof handmade"


@pytest.fixture(scope="module")
def tagger():
    model, processor = trained_tagger()
    model.config.personalization = GATES
    return ProductTaggingPipeline(model, processor=processor)


def tag(label, attribute, **more):
    return {"label": label, "attribute": attribute, **more}


def as_set(tags):
    return {(found["label"], found["attribute"], round(found["score"], 5), found["source"]) for found in tags}


def test_tags_that_a_shopper_met_come_first_and_nothing_else_changes(tagger):
    plain = tagger(PRODUCT)
    assert len(plain) == 4
    last = plain[-1]
    personal = tagger(PRODUCT, user_history=[tag(last["label"], last["attribute"])] * 20)
    assert personal[0] == last
    assert as_set(personal) == as_set(plain), "tags are reordered, never invented, dropped or scored anew"
    assert tagger(PRODUCT, user_history=[tag(last["label"], last["attribute"])] * 20, top_k=1) == [last]


def test_no_history_is_exactly_the_plain_output(tagger):
    plain = tagger([PRODUCT, "blue dress"])
    for nothing in ([], (), None):
        assert tagger([PRODUCT, "blue dress"], user_history=nothing) == plain
    # A shopper of whom nothing is known that the model knows is like everybody.
    assert tagger([PRODUCT, "blue dress"], user_history=[tag("Teal", "colour"), tag("M", "size")]) == plain


def test_a_history_of_products_is_tagged_first(tagger):
    products = ["blue mug waterproof", {"title": "new mug"}, {"product": {"title": "blue mug"}, "weight": 2.0}]
    profile = tagger.user_profile(products)
    assert profile.preferences["category"]["Mug"] > 0 > profile.preferences["category"]["Dress"]
    assert profile.preferences["colour"]["Blue"] > 0 > profile.preferences["colour"]["Red"]
    assert tagger(PRODUCT, user_history=products) == tagger(PRODUCT, user_history=profile)


def test_recent_and_weighty_events_count_more(tagger):
    old, new = {"time": "2026-01-01"}, {"time": datetime(2026, 7, 1, tzinfo=UTC)}
    colour = tagger.user_profile([tag("Red", "colour", **old), tag("Blue", "colour", **new)]).preferences["colour"]
    assert colour["Blue"] > 0 > colour["Red"]
    colour = tagger.user_profile([tag("Red", "colour", **new, weight=3), tag("Blue", "colour", **new)])
    assert colour.preferences["colour"]["Red"] > 0


def test_an_event_counts_half_after_a_half_life_and_strangers_for_nothing():
    events = read_events([tag("Red", "colour", time=0.0), tag("Blue", "colour", time=30 * DAY, weight=3.0),
                          tag("Mug", "category"), tag("Teal", "colour")])
    assert met_tags(events, ATTRIBUTES, 30.0).tolist() == [0.5, 3.0, 1.0, 0.0, 0.0, 0.0]
    assert met_tags(events, ATTRIBUTES, None).tolist() == [1.0, 3.0, 1.0, 0.0, 0.0, 0.0]


def test_what_everybody_meets_says_nothing():
    attributes = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue", "Green"], "counts": [59, 29, 9]}]
    vectors = tag_vectors(torch.nn.ModuleDict({"embeddings": torch.nn.Embedding(4, 4)}), attributes)
    usual = affinities(vectors, attributes, torch.tensor([[6.0, 3.0, 1.0]]), 2.0)
    assert torch.allclose(usual, torch.zeros(1, 3), atol=1e-6)
    few, many = (affinities(vectors, attributes, torch.tensor([[0.0, 0.0, n]]), 2.0)[0] for n in (1.0, 20.0))
    assert few.argmax() == many.argmax() == 2 and 0 < few[2] < many[2], "one visit is weaker evidence than twenty"


def test_a_profile_is_kept_only_on_request(tagger, tmp_path):
    before = {name: repr(value) for name, value in vars(tagger).items()}
    tagger(PRODUCT, user_history=[tag("Mug", "category")])
    assert {name: repr(value) for name, value in vars(tagger).items()} == before
    profile = tagger.user_profile([tag("Mug", "category")])
    profile.save(tmp_path / "profile.json")
    assert ShopperProfile.load(tmp_path / "profile.json") == profile
    assert set(json.loads((tmp_path / "profile.json").read_text())) == {"colour", "category", "features"}


def test_the_gate_is_saved_with_the_model_and_a_history_may_be_set_for_all_calls(tagger, tmp_path):
    tagger.save_pretrained(tmp_path)
    history = [tag("Waterproof", "features")] * 20
    again = pipeline("product-tagging", model=str(tmp_path), user_history=history)
    assert again.model.config.personalization == GATES
    assert [found["label"] for found in again(PRODUCT)] == [
        found["label"] for found in tagger(PRODUCT, user_history=history)]
    assert again(PRODUCT)[0]["label"] == "Waterproof"


@pytest.mark.parametrize("history, message", [
    ("red mug", "put the single one into a list"),
    ([tag("Red", "colour", tme=1)], r"user_history\[0\] has unknown key 'tme'"),
    (["red mug", {"label": "Red"}], r"user_history\[1\] has no attribute"),
    ([tag("Red", "colour", weight=-1)], "weight is a number from 0"),
    ([tag("Red", "colour", time="yesterday")], "time is ISO 8601"),
    ([tag("Red", "colour", time=[])], "time is ISO 8601"),
    ([{"product": {}}], "neither text nor a photo"),
])
def test_a_history_that_is_not_understood_is_an_error(tagger, history, message):
    with pytest.raises(ValueError, match=message):
        tagger(PRODUCT, user_history=history)


def test_without_a_fitted_gate_the_error_says_how_to_fit_one():
    tagger = ProductTaggingPipeline(tiny_model(), processor=tiny_processor())
    assert tagger("red mug", user_history=[]) == tagger("red mug")
    with pytest.raises(ValueError, match="recipes/fit_personalization.py"):
        tagger("red mug", user_history=[tag("Red", "colour")])
