import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import hf_tagger  # noqa: F401  registers the Auto classes
from hf_tagger.model.images import ImageError
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.model.processing_tagger import TaggerProcessor
from tests.tiny_tagger import SIZE, photo, tiny_processor


@pytest.fixture
def processor():
    return tiny_processor()


def test_texts_and_photos_become_the_models_tensors(processor):
    batch = processor(text=["red mug", None, ""], images=[[photo(), photo("Blue")], [], [photo()]])
    assert set(batch) == set(processor.model_input_names)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (3, 2)
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert batch["pixel_values"].shape == (3, 3, SIZE, SIZE) and batch["pixel_values"].dtype == torch.float32
    assert batch["pixel_mask"].tolist() == [[True, True], [False, False], [True, False]]
    each = [processor(images=[[image]])["pixel_values"][0] for image in (photo(), photo("Blue"), photo())]
    assert torch.equal(batch["pixel_values"], torch.stack(each))


def test_a_product_of_many_photos_makes_no_other_larger(processor):
    pixels = processor.pixels(photo())
    batch = processor.collate([None] * 32, [[pixels] * 400] + [[pixels]] * 31)
    assert batch["pixel_values"].shape == (431, 3, SIZE, SIZE)
    assert batch["pixel_mask"].sum(1).tolist() == [400] + [1] * 31


def test_pixels_are_normalised_as_the_image_processor_says(processor):
    processor.image_processor.image_mean, processor.image_processor.image_std = [0.5, 0.25, 0.0], [0.5, 0.25, 0.1]
    values = processor(images=[[Image.new("RGB", (7, 90), (255, 0, 51))]])["pixel_values"][0]
    torch.testing.assert_close(values.mean((1, 2)), torch.tensor([1.0, -1.0, 2.0]))


def test_photos_are_resized_to_the_very_size_asked_for():
    tall = tiny_processor()
    tall.image_processor.size = {"height": 40, "width": 24}
    assert tall.image_size == (40, 24)
    halves = np.zeros((90, 70, 3), np.uint8)
    halves[:, 35:] = 255
    pixels = tall.pixels(halves)
    assert pixels.shape == (40, 24, 3) and pixels[:, :11].max() < 10 and pixels[:, 13:].min() > 245


def test_a_prefix_is_put_before_texts_and_long_ones_are_cut():
    plain = tiny_processor()
    processor = TaggerProcessor(plain.image_processor, plain.tokenizer, text_prefix="new ", max_length=3)
    batch = processor(text=["red mug", "red mug and blue dress", None])
    words = [processor.tokenizer.convert_ids_to_tokens(row) for row in batch["input_ids"]]
    assert words[:2] == [["new", "red", "mug"]] * 2
    assert not batch["attention_mask"][2].any()


LEXICAL = {"buckets": 64, "char_ngrams": [3], "word_ngrams": 2,
           "attributes": [{"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}]}


def test_the_words_of_the_whole_text_are_read_beside_the_tokens_of_its_beginning(processor, tmp_path):
    plain = tiny_processor()
    processor = TaggerProcessor(plain.image_processor, plain.tokenizer, text_prefix="red ", max_length=3,
                                lexical=LEXICAL)
    texts = ["new mug and more of what no tower reads, in blue", None]
    batch = processor(text=texts)
    assert batch["input_ids"].shape == (2, 3)
    for name, expected in LexicalFeatures(**LEXICAL)(texts).items():
        assert batch[name].dtype == (torch.int64 if name.endswith("ids") else torch.float32)
        np.testing.assert_array_equal(batch[name].numpy(), expected)
    assert batch["name_ids"][0].tolist() == [6, 7, 8], "blue, not the red of the prefix"
    assert not batch["name_weights"][1].any()
    processor.save_pretrained(tmp_path)
    again = TaggerProcessor.from_pretrained(tmp_path)
    assert again.lexical == LEXICAL
    for name, tensor in again(text=texts).items():
        assert torch.equal(tensor, batch[name]), name


def test_words_go_where_nobody_has_text_and_where_the_model_does_not_read_them(processor):
    assert not [name for name in processor(text=["red mug"]) if name.startswith(("lexical", "name"))]
    processor.set_lexical(LEXICAL)
    assert set(processor(text=[None], images=[[photo()]])) == {"pixel_values", "pixel_mask"}
    assert set(processor(text=["red"])) == {"input_ids", "attention_mask", "lexical_ids", "lexical_weights", "name_ids",
                                            "name_weights"}
    assert set(processor.lexical_features(["red", None])) == {"lexical_ids", "lexical_weights", "name_ids",
                                                              "name_weights"}
    processor.set_lexical(None)
    assert processor.lexical_features(["red"]) == {}


def test_a_single_string_is_one_product_and_what_nobody_has_is_left_out(processor):
    assert processor(text="red mug")["input_ids"].shape == (1, 2)
    assert set(processor(text=["red"], images=[[]])) == {"input_ids", "attention_mask"}
    assert set(processor(text=[None], images=[[photo()]])) == {"pixel_values", "pixel_mask"}


def test_a_processor_for_one_modality_passes_over_the_other_also_after_saving(processor, tmp_path):
    for name, part, keys in (
        ("text", TaggerProcessor(None, processor.tokenizer), {"input_ids", "attention_mask"}),
        ("image", TaggerProcessor(processor.image_processor, None), {"pixel_values", "pixel_mask"}),
    ):
        part.save_pretrained(tmp_path / name)
        for reader in (part, AutoProcessor.from_pretrained(tmp_path / name)):
            assert set(reader(text=["red"], images=[[photo()]])) == keys == set(reader.model_input_names)
            assert (reader.reads_text, reader.reads_images) == (name == "text", name == "image")


def test_a_saved_processor_gives_the_very_same_tensors(tmp_path):
    plain = tiny_processor()
    processor = TaggerProcessor(plain.image_processor, plain.tokenizer, text_prefix="query: ", max_length=5)
    processor.save_pretrained(tmp_path)
    again = TaggerProcessor.from_pretrained(tmp_path)
    assert (again.text_prefix, again.max_length) == ("query: ", 5)
    given = {"text": ["red mug and blue dress"], "images": [[photo()]]}
    expected = processor(**given)
    for name, tensor in again(**given).items():
        assert torch.equal(tensor, expected[name])


def test_what_is_no_product_is_refused(processor):
    with pytest.raises(ValueError, match="a product needs text or a photo"):
        processor()
    with pytest.raises(ValueError, match="2 texts for 1 products' images"):
        processor(text=["red", "blue"], images=[[photo()]])
    with pytest.raises(ImageError, match="http"):
        processor(images=[["https://example.org/mug.jpg"]])
