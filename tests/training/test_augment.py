import pickle
import random

import numpy as np
import pytest
import torch

from hf_tagger.training.augment import OwnNames, image_augmenter, mask_labels, masked_text, text_augmenter
from hf_tagger.training.settings import ImageAugmentation, TextAugmentation

OFF = {"crop": 0.0, "flip": 0.0}


def record(*texts, **tags):
    return {"text": ". ".join(texts) or None, "texts": list(texts), "tags": tags}


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    torch.manual_seed(0)


@pytest.mark.parametrize(("text", "tags", "left"), [
    ("Red cotton dress", ["Red"], "cotton dress"),
    ("RED dresses for women's parties", ["Dress", "Women", "Party"], "RED for"),
    ("Navy-blue shirt in navy", ["Navy Blue"], "- shirt in"),
    ("Reddish tattered hat", ["Red", "Hat"], "Reddish tattered"),
    ("Roses and rose water", ["Rose"], "and water"),
    ("红色连衣裙 女士", ["红色"], "连衣裙 女士"),
    ("Größe: groß", ["GROSS"], "Größe:"),
    ("nothing of the kind", ["Red"], "nothing of the kind"),
    ("Red", ["Red"], ""),
])  # fmt: skip
def test_all_words_of_the_tags_go_whatever_their_form(text, tags, left):
    assert mask_labels(text, tags) == left


def test_masked_text_leaves_out_the_products_own_tags_alone():
    product = record("Red dress", "Not blue", colour=["Red"], category=["Dress"], size=None, extras=[])
    assert masked_text(OwnNames(), product) == ". Not blue"
    assert masked_text(OwnNames(), record("Red", colour=["Red"])) is None
    assert masked_text(OwnNames(), record(colour=["Red"])) is None


def test_other_spellings_of_a_products_tags_are_masked_with_them():
    names = OwnNames([{"name": "type", "aliases": {"Hemd": "Shirts", "Bluse": "Blouses"}}, {"name": "colour"}])
    product = record("Rotes Hemd, shirt zur Bluse", type=["Shirts"], colour=["Red"])
    assert masked_text(names, product) == "Rotes , zur Bluse"
    assert text_augmenter(TextAugmentation(label_masking=0.999999), names)(product) == "Rotes , zur Bluse"
    assert masked_text(OwnNames(), product) == "Rotes Hemd, zur Bluse"


def test_without_rates_a_text_stays_as_it_is():
    assert text_augmenter(TextAugmentation())(record("Red dress", "With dots")) == "Red dress. With dots"


def test_words_are_dropped_at_their_rate_and_never_all():
    words = [f"word{number}" for number in range(1000)]
    left = text_augmenter(TextAugmentation(word_dropout=0.3))(record(" ".join(words))).split()
    assert 640 < len(left) < 760 and [word for word in words if word in set(left)] == left
    assert text_augmenter(TextAugmentation(word_dropout=0.999999))(record("first second")) == "first"


def test_typos_swap_lose_or_double_a_letter_of_longer_words():
    typed = text_augmenter(TextAugmentation(typos=1.0))(record(" ".join(["abcd", "xy"] * 200))).split()
    assert len(typed) == 400 and set(typed[1::2]) == {"xy"}
    assert {len(word) for word in typed[::2]} == {3, 4, 5} and "abcd" not in typed
    assert all(set(word) <= set("abcd") for word in typed[::2])


def test_field_dropout_keeps_one_column():
    augment = text_augmenter(TextAugmentation(field_dropout=1.0))
    assert {augment(record("title", "description")) for _ in range(50)} == {"title", "description"}
    assert augment(record("title")) == "title"


def test_labels_are_masked_at_their_rate_and_nothing_left_is_none():
    augment = text_augmenter(TextAugmentation(label_masking=0.5))
    kept = [augment(record("Red", colour=["Red"])) for _ in range(400)]
    assert 150 < kept.count(None) < 250 and kept.count("Red") == 400 - kept.count(None)


def gradient(height=40, width=30):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    columns = np.linspace(0, 200, width, dtype=np.uint8)[None, :, None]
    return np.concatenate(np.broadcast_arrays(rows, columns, np.full((1, 1, 1), 90, np.uint8)), axis=2)


@pytest.mark.parametrize("changes", [
    {"crop": 1.0}, {"flip": 1.0}, {"rotation": 30.0}, {"noise": 1.0}, {"erasing": 1.0}, {"colour_jitter": 1.0},
    {"crop": 1.0, "flip": 1.0, "rotation": 10.0, "noise": 1.0, "erasing": 1.0, "colour_jitter": 1.0},
])  # fmt: skip
def test_each_augmentation_changes_the_photo_and_neither_its_size_nor_its_type(changes):
    augment, source = image_augmenter(ImageAugmentation(**OFF | changes)), gradient()
    before = source.copy()
    results = [augment(source) for _ in range(20)]
    assert all(photo.shape == (40, 30, 3) and photo.dtype == np.uint8 for photo in results)
    assert any((photo != before).any() for photo in results)
    assert np.array_equal(source, before)


def test_without_rates_a_photo_stays_as_it_is():
    assert np.array_equal(image_augmenter(ImageAugmentation(**OFF))(gradient()), gradient())


def test_flips_mirror_left_and_right():
    assert np.array_equal(image_augmenter(ImageAugmentation(crop=0.0, flip=1.0))(gradient()), gradient()[:, ::-1])


def test_colours_stay_unless_jitter_is_asked_for():
    teal = np.full((32, 32, 3), (0, 128, 128), np.uint8)
    augment = image_augmenter(ImageAugmentation(crop=1.0, flip=0.5))
    assert all(np.array_equal(augment(teal), teal) for _ in range(10))
    jitter = image_augmenter(ImageAugmentation(**OFF, colour_jitter=1.0))
    assert any(not np.array_equal(jitter(teal), teal) for _ in range(10))


def test_the_same_seed_gives_the_same_photo():
    augment = image_augmenter(ImageAugmentation(crop=1.0, noise=1.0, erasing=0.5))
    torch.manual_seed(3)
    first = augment(gradient())
    torch.manual_seed(3)
    assert np.array_equal(augment(gradient()), first)


def test_augmenters_travel_to_worker_processes():
    text, image = (pickle.loads(pickle.dumps(each)) for each in (
        text_augmenter(TextAugmentation()), image_augmenter(ImageAugmentation(**OFF))))
    assert text(record("red")) == "red" and np.array_equal(image(gradient()), gradient())
