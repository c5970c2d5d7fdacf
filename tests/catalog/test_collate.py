import io

import numpy as np
import pytest
import torch
from PIL import Image

from hf_tagger.catalog.batching.collate import UNKNOWN, Collator, TagEncoder
from hf_tagger.model.processing_tagger import TaggerProcessor
from tests.catalog.files import photo
from tests.tiny_tagger import ATTRIBUTES, SIZE, tiny_processor

NOTHING_KNOWN = {"colour": None, "category": None, "features": None}


def record(name="p1", text=None, images=(), **tags):
    return {"id": name, "number": 7, "file": "a.csv", "text": text, "texts": [text] if text else [],
            "images": list(images), "tags": NOTHING_KNOWN | tags}  # fmt: skip


def collate(*records, **options):
    return Collator(tiny_processor(), ATTRIBUTES, **options)(records)


@pytest.mark.parametrize(("tags", "row"), [
    ({"colour": ["Blue"], "category": ["Mug"], "features": ["Handmade"]}, [0, 1, 1, 0, 0, 1]),
    ({"colour": [], "category": ["Dress"], "features": []}, [0, 0, 0, 1, 0, 0]),
    ({"colour": None, "category": None, "features": None}, [-100] * 6),
    ({"category": ["Mug"]}, [-100, -100, 1, 0, -100, -100]),
    # A tag outside the vocabulary: of a single attribute any answer would be wrong, of a multi one it is only missing.
    ({"colour": ["Teal"], "features": ["Teal"]}, [-100, -100, -100, -100, 0, 0]),
    ({"features": ["Teal", "Waterproof", "Handmade"]}, [-100, -100, -100, -100, 1, 1]),
])  # fmt: skip
def test_labels_are_given_not_given_or_unknown(tags, row):
    encoded = TagEncoder(ATTRIBUTES)(tags)
    assert encoded.tolist() == row and encoded.dtype == np.float32
    assert UNKNOWN == -100


def test_a_batch_holds_what_the_model_reads_and_what_the_metrics_need():
    batch = collate(record("a", "red mug", [photo("red")], colour=["Red"]), record("b", "blue", category=["Teapot"]))
    assert batch["ids"] == ["a", "b"] and batch["refusals"] == []
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2)
    assert batch["pixel_values"].shape == (1, 3, SIZE, SIZE)
    assert batch["pixel_mask"].tolist() == [[True], [False]]
    assert batch["tag_labels"].shape == (2, 6) and batch["tag_labels"].dtype == torch.float32
    assert [tags["category"] for tags in batch["tags"]] == [None, ["Teapot"]]


def test_what_no_product_of_the_batch_has_is_left_out():
    assert "pixel_values" not in collate(record(text="red mug"))
    assert "input_ids" not in collate(record(images=[photo()]))


def test_an_unreadable_photo_is_a_missing_modality_and_a_refusal():
    batch = collate(record("a", "red mug", [b"no photo", photo("red")]), record("b", "blue mug", [photo()[:50]]))
    assert batch["ids"] == ["a", "b"]
    assert batch["pixel_mask"].tolist() == [[True], [False]]
    first, second = batch["refusals"]
    assert (first.id, first.column, first.reason, first.fatal) == ("a", "images", "unreadable", False)
    assert (first.number, first.file) == (7, "a.csv")
    assert (second.id, second.reason, second.fatal) == ("b", "truncated", False)


def test_a_product_with_nothing_left_is_refused_and_the_rest_goes_on():
    batch = collate(record("a", images=[b"no photo"]), record("b", "blue mug"))
    assert batch["ids"] == ["b"] and batch["tag_labels"].shape == (1, 6)
    assert [(refusal.id, refusal.fatal) for refusal in batch["refusals"]] == [("a", True)]
    empty = collate(record("a", images=[b"no photo"]))
    assert empty["ids"] == [] and "input_ids" not in empty and len(empty["refusals"]) == 1


def test_a_model_without_a_tower_refuses_what_only_that_tower_would_read():
    both = tiny_processor()
    text_only = Collator(TaggerProcessor(None, both.tokenizer), ATTRIBUTES)
    batch = text_only([record("a", "red mug", [b"not even looked at"]), record("b", images=[photo()])])
    assert batch["ids"] == ["a"] and "pixel_values" not in batch
    assert [(refusal.id, refusal.reason, refusal.fatal) for refusal in batch["refusals"]] == [("b", "empty", True)]
    photo_only = Collator(TaggerProcessor(both.image_processor, None), ATTRIBUTES)
    batch = photo_only([record("a", "red mug"), record("b", images=[photo()])])
    assert batch["ids"] == ["b"] and "input_ids" not in batch


def test_urls_are_fetched_only_where_the_schema_says_so():
    source = record("a", "red mug", ["http://127.0.0.1:9/mug.jpg"])
    (refusal,) = collate(source)["refusals"]
    assert refusal.reason == "url_refused" and "allow_urls" in refusal.detail
    (refusal,) = collate(source, allow_urls=True)["refusals"]
    assert refusal.reason == "url_refused" and "not a public internet address" in refusal.detail


def test_augmentation_sees_the_record_and_the_resized_photo():
    seen = []

    def darken(pixels):
        seen.append(pixels.shape)
        return pixels // 2

    source = record("a", "red mug", [photo("white")])
    batch = collate(source, augment_text=lambda record: record["id"] + " blue", augment_image=darken)
    assert seen == [(SIZE, SIZE, 3)]
    torch.testing.assert_close(batch["pixel_values"].unique(), torch.tensor([2 * 127 / 255 - 1]), atol=1e-5, rtol=0)
    assert batch["input_ids"][0, -1] == tiny_processor().tokenizer.convert_tokens_to_ids("blue")


def test_a_batch_whose_texts_augmentation_emptied_falls_back_on_the_texts():
    batch = collate(record("a", "red mug"), augment_text=lambda record: None)
    assert batch["attention_mask"].tolist() == [[1, 1]]
    beside_a_photo = collate(record("a", "red mug"), record("b", images=[photo()]), augment_text=lambda record: None)
    assert "input_ids" not in beside_a_photo


def test_photos_decode_to_the_right_colours():
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 48), (0, 0, 255, 255)).save(buffer, "PNG")
    values = collate(record(images=[buffer.getvalue()]))["pixel_values"][0]
    torch.testing.assert_close(values.mean((1, 2)), torch.tensor([-1.0, -1.0, 1.0]))
