from collections import Counter

import numpy as np
import pytest
import torch

from hf_tagger.catalog.batching.targets import TargetEncoder
from hf_tagger.catalog.free_form import TargetSettings
from hf_tagger.model.towers import TowerFeatures
from hf_tagger.training.features import store_features
from tests.random_tagger import PHOTOS, TEXTS, outputs, tagger
from tests.tiny_tagger import photo, tiny_processor
from tests.tiny_writer import add_tiny_decoder


def view(order=(0, 1, 2, 3), texts=TEXTS, photos=PHOTOS):
    """Two batches of products with text, photos or both, and one whose every row was refused."""
    for rows in (order[:2], [], order[2:]):
        batch = {"ids": [f"p{row}" for row in rows], "tags": [{"n": [str(row)]} for row in rows], "refusals": []}
        if rows:
            batch |= tiny_processor()(text=[texts[row] for row in rows], images=[photos[row] for row in rows])
            batch["tag_labels"] = torch.tensor([[row, -100.0, 0, 0, 0, 1] for row in rows])
            batch["texts"] = [texts[row] for row in rows]
        yield batch


def stored(folder, model=None, views=None, batch_size=3, seed=0, **options):
    views = [view(), view(texts=["new mug"] * 4, photos=[[photo(seed=9)]] * 4)] if views is None else views
    return store_features(model or tagger(), views, folder, batch_size, seed, **options)


def test_an_epoch_has_every_product_once_with_its_labels(tmp_path):
    batches = list(stored(tmp_path).epoch())
    assert [len(batch["ids"]) for batch in batches] == [3, 1]
    assert sorted(item for batch in batches for item in batch["ids"]) == ["p0", "p1", "p2", "p3"]
    for batch in batches:
        assert batch["tag_labels"].tolist() == [[float(item[1:]), -100.0, 0, 0, 0, 1] for item in batch["ids"]]
        assert isinstance(batch["features"], TowerFeatures) and batch["features"].text.dtype == torch.float32
        assert batch["refusals"] == []


def test_stored_features_are_the_towers_own(tmp_path):
    model = tagger()
    (batch,) = stored(tmp_path, model, [view()], batch_size=8).epoch()
    rows = [int(item[1:]) for item in batch["ids"]]
    inputs = tiny_processor()(text=[TEXTS[row] for row in rows], images=[PHOTOS[row] for row in rows])
    assert batch["features"].present.tolist() == [[bool(TEXTS[row]), bool(PHOTOS[row])] for row in rows]
    found = outputs(model, {"features": batch["features"]})["encoder_logits"]
    torch.testing.assert_close(found, outputs(model, inputs)["encoder_logits"], rtol=0.02, atol=0.02)  # float16


def test_what_other_heads_said_of_a_product_goes_with_its_first_view_alone(tmp_path):
    loader = stored(tmp_path)
    loader.closed_scores = np.arange(8, dtype=np.float32).reshape(4, 2)
    scores = loader.batch([2, 2, 0], [0, 1, 0])["closed_scores"]
    assert scores[[0, 2]].tolist() == [[4.0, 5.0], [0.0, 1.0]] and scores[1].isnan().all()


def test_what_could_not_be_read_is_told(tmp_path):
    refused = []
    batches = [batch | {"refusals": [place]} for place, batch in enumerate(view())]
    stored(tmp_path, views=[batches], refuse=refused.extend)
    assert refused == [0, 1, 2]


def test_texts_are_kept_as_the_first_view_shows_them(tmp_path):
    assert stored(tmp_path).texts == TEXTS[:4]


def test_texts_that_are_alike_in_all_views_are_read_once(tmp_path):
    model, others = tagger(), [[photo(seed=9)] if shown else [] for shown in PHOTOS[:4]]
    twice, once = (stored(tmp_path / str(same), model, [view(), view(photos=others)], same_text=same)
                   for same in (False, True))
    for loader in (twice, once):
        assert [list(view) for view in loader.text[1]] == [list(view) for view in loader.text[0]]
    assert all((a == b).all() for a, b in zip(twice.present + twice.image, once.present + once.image, strict=True))


def test_each_product_is_drawn_in_every_view(tmp_path):
    loader = stored(tmp_path, batch_size=8)
    first, seen = stored(tmp_path / "first", views=[view()], batch_size=8), set()
    expected = {item: text for batch in first.epoch() for item, text in
                zip(batch["ids"], batch["features"].text, strict=True)}  # fmt: skip
    for epoch in range(12):
        (batch,) = loader.epoch(epoch)
        place = batch["ids"].index("p0")
        seen.add(torch.equal(batch["features"].text[place], expected["p0"]))
        present = batch["features"].present[batch["ids"].index("p1")].tolist()
        assert present in ([False, True], [True, True])
    assert seen == {True, False}


def test_epochs_differ_are_repeatable_and_can_start_at_any_batch(tmp_path):
    loader = stored(tmp_path, batch_size=1)
    orders = [[batch["ids"][0] for batch in loader.epoch(epoch)] for epoch in range(6)]
    assert len(set(map(tuple, orders))) > 1
    again = list(stored(tmp_path / "again", batch_size=1).epoch(3))
    assert [batch["ids"][0] for batch in again] == orders[3]
    rest = list(loader.epoch(3, skip_batches=2))
    for batch, expected in zip(rest, again[2:], strict=True):
        assert batch["ids"] == expected["ids"]
        assert torch.equal(batch["features"].text, expected["features"].text)


def test_rare_products_are_drawn_as_often_as_their_factor_says(tmp_path):
    loader = stored(tmp_path, repeat_factor=lambda tags: {"0": 2.5, "1": 3.0}.get(tags["n"][0], 1.0))
    counts = Counter(item for epoch in range(40) for batch in loader.epoch(epoch) for item in batch["ids"])
    assert counts["p1"] == 120 and counts["p2"] == counts["p3"] == 40 and 90 <= counts["p0"] <= 110


@pytest.mark.parametrize(("text", "architecture", "kept"), [("gru", None, "text"), (None, "test_resnet", "image")])
def test_a_model_with_one_tower_stores_that_towers_features(tmp_path, text, architecture, kept):
    model = tagger(text, architecture)
    (batch,) = stored(tmp_path, model, [view()], batch_size=8).epoch()
    assert getattr(batch["features"], kept) is not None
    assert getattr(batch["features"], "image" if kept == "text" else "text") is None
    assert outputs(model, {"features": batch["features"]})["encoder_logits"].isfinite().all()


def test_a_catalogue_that_changes_between_two_views_is_noticed(tmp_path):
    with pytest.raises(RuntimeError, match="other products on its second reading"):
        stored(tmp_path, views=[view(), view(order=(0, 2, 1, 3))])


def test_training_on_features_still_drops_modalities(tmp_path):
    model = tagger(modality_dropout={"text": 0.999})
    (batch,) = stored(tmp_path, model, [view()], batch_size=8).epoch()
    row = batch["ids"].index("p0")
    model.train()
    dropped = model.encoder(features=batch["features"]).present
    assert dropped[row].tolist() == [False, True] and dropped.any(1).all()


def decoding(folder, model, processor, **options):
    def views():
        for batch in view():
            names = [f"t{item}" for item in batch["ids"]]
            yield batch | {"free_form": [{"colour": [name, "Red"]} for name in names], "languages": [None] * len(names)}

    encode = TargetEncoder(processor.tag_tokenizer, model.config, TargetSettings(attribute_prompt=0.0))
    return stored(folder, model, [views(), views()], encode_targets=encode, **options)


def test_for_a_decoder_token_states_are_kept_and_it_says_the_same_as_with_live_towers(tmp_path):
    model, processor = tagger(), tiny_processor()
    add_tiny_decoder(model, processor)
    model.eval()
    (batch,) = decoding(tmp_path, model, processor, batch_size=8).epoch()
    rows = [int(item[1:]) for item in batch["ids"]]
    live = tiny_processor()(text=[TEXTS[row] for row in rows], images=[PHOTOS[row] for row in rows])
    labels, words = batch["labels"], {key: batch[key] for key in ("input_ids", "attention_mask")}
    found = outputs(model, {"features": batch["features"], **words, "labels": labels})["logits"]
    torch.testing.assert_close(found, outputs(model, {**live, "labels": labels})["logits"], rtol=0.02, atol=0.02)


def test_targets_are_drawn_anew_each_epoch_and_are_the_same_when_resumed(tmp_path):
    model, processor = tagger(), tiny_processor()
    add_tiny_decoder(model, processor)
    loader = decoding(tmp_path, model, processor, batch_size=2)

    def targets(epoch, skip=0):
        return [(batch["ids"], batch["labels"].tolist()) for batch in loader.epoch(epoch, skip)]

    assert targets(1) == targets(1) and targets(1)[1:] == targets(1, skip=1)
    orders = {(item, tuple(row)) for epoch in range(8) for ids, labels in targets(epoch)
              for item, row in zip(ids, labels, strict=True)}  # fmt: skip
    assert len(orders) == 8, "both orders of every product's two tags"
