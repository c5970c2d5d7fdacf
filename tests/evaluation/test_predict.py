import pytest
import torch

from hf_tagger.catalog.batching.collate import INPUTS
from hf_tagger.evaluation import predict as module
from hf_tagger.evaluation.predict import in_share, outputs_of, predict, predict_each
from tests.random_tagger import PHOTOS, TEXTS, tagger
from tests.tiny_tagger import tiny_model, tiny_processor

# Rows with both, a photo, a text, and both; see tests.random_tagger.
TAGS = [
    {"colour": ["Red"], "category": ["Mug"], "features": []},
    {"colour": ["Blue"], "category": None, "features": None},
    {"colour": ["Teal"], "category": ["Dress"], "features": ["Waterproof", "Foldable"]},
    {"colour": [], "category": ["Dress"], "features": ["Handmade"]},
]


def batches(*groups):
    for rows in groups:
        batch = {"ids": [f"p{row}" for row in rows], "tags": [TAGS[row] for row in rows], "refusals": []}
        if rows:
            batch |= tiny_processor()(text=[TEXTS[row] for row in rows], images=[PHOTOS[row] for row in rows])
            batch["tag_labels"] = torch.arange(len(rows) * 6.0).view(-1, 6)
        yield batch


@pytest.fixture(scope="module")
def model():
    return tagger()


def test_every_product_is_scored_once_in_any_batches(model):
    together = predict(model, batches([0, 1, 2, 3]))
    assert together.ids == ["p0", "p1", "p2", "p3"] and together.tags == TAGS
    assert together.scores.shape == together.chosen.shape == (4, 6)
    apart = predict(model, batches([0], [], [1, 2], [3]))
    assert apart.ids == together.ids
    assert apart.scores == pytest.approx(together.scores, abs=1e-4) and (apart.chosen == together.chosen).all()


def test_the_model_is_left_in_the_mode_it_was_in(model):
    model.train()
    predict(model, batches([0]))
    assert model.training
    model.eval()


@pytest.mark.parametrize(("without", "left"), [("text", ["p0", "p1", "p3"]), ("image", ["p0", "p2", "p3"])])
def test_without_a_modality_products_that_have_no_other_are_left_out_of_any_batch(model, without, left):
    together = predict(model, batches([0, 1, 2, 3]), [without])
    apart = predict(model, batches([0], [1], [2], [3]), [without])
    assert together.ids == apart.ids == left and len(together.tags) == len(together.scores) == 3
    assert apart.scores == pytest.approx(together.scores, abs=1e-4)
    hidden = batches([0, 1, 2, 3])
    for batch, outputs in outputs_of(model, hidden, [without]):
        assert len(batch["tag_labels"]) == len(outputs.tag_logits) == 3
        assert batch["tag_labels"][-1, 0] == 18
        assert not [key for key in INPUTS if key in batch and key != "pixel_values" and len(batch[key]) != 3]
        assert without == "image" or len(batch["pixel_values"]) == batch["pixel_mask"].sum() > 0


@pytest.mark.parametrize("options", [{}, {"fusion": "late"}, {"fusion": "attention", "fusion_heads": 2}])
def test_looking_once_for_several_protocols_changes_nothing(options):
    model = tiny_model(**options).eval()
    ways = [[], ["text"], ["image"]]
    towers = 0

    def count(*_):
        nonlocal towers
        towers += 1

    model.encoder.vision_tower.register_forward_hook(count)
    groups = [0, 1], [], [2], [3]
    once = predict_each(model, batches(*groups), ways)
    # Two of the three batches with products have photos, and two of the ways show them.
    assert towers == (4 if options.get("fusion") == "attention" else 2)
    for together, without in zip(once, ways, strict=True):
        alone = predict(model, batches(*groups), without)
        assert together.ids == alone.ids and together.tags == alone.tags
        assert together.logits == pytest.approx(alone.logits, abs=1e-5)
        assert (together.chosen == alone.chosen).all()


def test_a_hidden_modality_is_never_seen(model):
    with_photos = predict(model, batches([0, 3]), ["image"]).scores
    no_photos = [{**batch, **tiny_processor()(text=[TEXTS[0], TEXTS[3]])} for batch in batches([0, 3])]
    for key in ("pixel_values", "pixel_mask"):
        no_photos[0].pop(key)
    assert predict(model, no_photos).scores == pytest.approx(with_photos, abs=1e-6)


def test_metrics_count_tags_outside_the_vocabulary_as_misses_and_unknown_ones_nowhere(model):
    found = predict(model, batches([0, 1, 2, 3]))
    found.chosen[:] = False
    found.chosen[0, [0, 2]] = found.chosen[1, [1, 3]] = found.chosen[2, 3] = found.chosen[2, 4] = True
    scores = found.metrics()
    assert scores["colour/accuracy"] == 3 / 4  # teal cannot be said; row 3 has no colour and gets none
    assert scores["category/accuracy"] == 2 / 3  # row 1 is unknown, whatever is predicted
    assert scores["colour/macro_f1"] == pytest.approx(2 / 3)  # red, blue; teal
    assert scores["features/micro_recall"] == 1 / 3  # waterproof of waterproof, foldable, handmade


def test_nothing_to_score_gives_no_rows(model):
    found = predict(model, batches([]))
    assert found.ids == [] and found.scores.shape == (0, 6) and "macro_f1" in found.metrics()


def test_where_scores_of_all_do_not_fit_a_sample_is_looked_at_the_same_in_any_batches(model, monkeypatch):
    whole = predict(model, batches([0, 1, 2, 3]))
    monkeypatch.setattr(module, "ENTRIES", 2 * 9)  # scores of six tags and three nones
    found = [predict(model, batches(*groups)) for groups in ([[0, 1, 2, 3]], [[3], [2, 1], [], [0]])]
    assert 1 <= len(found[0].ids) <= 2 and sorted(found[0].ids) == sorted(found[1].ids)
    assert whole.drawn_from is None and [each.drawn_from for each in found] == [4, 4]
    rows = [whole.ids.index(name) for name in found[0].ids]
    assert found[0].tags == [whole.tags[row] for row in rows]
    assert found[0].scores == pytest.approx(whole.scores[rows], abs=1e-4)
    assert (whole.products, found[0].products.partition(",")[2]) == (
        "4 products", " a sample of 4, by a hash of their ids")
    assert whole.and_of(found[0]).drawn_from == 8 and whole.and_of(whole).drawn_from is None
    for each in predict_each(model, batches([0, 1], [2, 3]), [[], ["text"]]):
        assert set(each.ids) <= set(found[0].ids)


def test_a_share_of_the_products_holds_every_smaller_one():
    ids = [str(number) for number in range(4000)]
    half, eighth = in_share(ids, 1 / 2), in_share(ids, 1 / 8)
    assert in_share(ids, 1).all() and half.mean() == pytest.approx(1 / 2, abs=0.03)
    assert eighth.mean() == pytest.approx(1 / 8, abs=0.02) and not (eighth & ~half).any()


def test_scores_made_in_blocks_are_those_made_at_once(model, monkeypatch):
    whole = predict(model, batches([0, 1, 2, 3]))
    monkeypatch.setattr(module, "ENTRIES_AT_ONCE", 9)
    assert (whole.decided(whole.attributes).scores == whole.scores).all()
    assert list(module.blocks(5, 4)) == [slice(0, 2), slice(2, 4), slice(4, 6)] and module.few(10, 4, 20) == slice(
        None, None, 2)
