import random

import pytest
import torch

from hf_tagger.catalog.batching.collate import UNKNOWN, Collator, padded
from hf_tagger.catalog.batching.targets import TargetEncoder
from hf_tagger.catalog.free_form import TargetSettings
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.model.generation import split_tags
from hf_tagger.model.saving import EOS, control_id
from tests.tiny_tagger import ATTRIBUTES, tiny_model, tiny_processor
from tests.tiny_writer import add_tiny_decoder

SHOP = {"text": "title", "attributes": {"colour": {"kind": "single"}, "features": {"kind": "multi", "format": "list"}}}
ROW = {"title": "red mug", "colour": "Red", "features": None, "keywords": "coffee mug| party", "language": "en"}


def schema(free_form, **options):
    return build(CatalogSchema, SHOP | {"free_form": free_form, "language_column": "language"} | options)


@pytest.fixture(scope="module")
def decoder():
    model, processor = tiny_model(), tiny_processor()
    add_tiny_decoder(model, processor)
    return model.config, processor


def encoder(decoder, **settings):
    config, processor = decoder
    return TargetEncoder(processor.tag_tokenizer, config, TargetSettings(**settings))


def written(decoder, ids, prompt=0):
    return [decoder[1].tag_tokenizer.decode(tag) for tag in split_tags(ids[prompt:])]


def test_free_form_tags_are_read_from_columns_and_derived_from_attributes():
    columns = {"keywords": {"format": "delimited", "delimiter": "|", "aliases": {"party": "Party"}}}
    both = schema({"columns": columns, "attributes": "all"}).record(ROW, 0)
    assert both["free_form"] == {"keywords": ["coffee mug", "Party"], "colour": ["Red"], "features": None}
    assert schema({"attributes": ["colour"]}).record(ROW, 0)["free_form"] == {"colour": ["Red"]}
    assert "keywords" in schema({"columns": columns}).columns()
    assert "free_form" not in build(CatalogSchema, SHOP).record(ROW, 0)


def test_an_empty_cell_says_unknown_or_none_as_its_column_declares():
    columns = {"a": {"when_missing": "none"}, "b": {}}
    assert schema({"columns": columns}).record(ROW, 0)["free_form"] == {"a": [], "b": None}


@pytest.mark.parametrize("wrong, message", [
    ({}, "free_form needs columns"),
    ({"attributes": "some"}, '"all" or a list of names'),
    ({"attributes": ["color"]}, 'attribute "color" is not declared. Did you mean "colour"'),
    ({"columns": {"colour": {}}}, '"colour" is an attribute; list it under free_form.attributes'),
])  # fmt: skip
def test_a_wrong_declaration_says_what_to_write(wrong, message):
    with pytest.raises(ConfigError, match=message):
        schema(wrong)


def test_a_target_is_its_prompt_its_tags_and_the_end(decoder):
    encode = encoder(decoder, order="sorted", attribute_prompt=0.0, language_dropout=0.0)
    ids = encode({"colour": ["Red"], "features": ["Waterproof", "Handmade"], "keywords": None}, "de")
    assert ids[0] == control_id(decoder[0].decoder, language="de") and ids[-1] == EOS
    assert written(decoder, ids, 1) == ["Handmade", "Red", "Waterproof"]
    assert encode({"colour": []}, None) == [EOS], "an empty set is a target"
    assert encode({"colour": None}, "de") is None, "nothing known is none"
    assert encode({"colour": []}, "fr") == [EOS], "a language of no control is not told"


def test_one_attribute_is_asked_for_by_its_control_and_alone(decoder):
    encode = encoder(decoder, attribute_prompt=1.0)
    found = set()
    for seed in range(20):
        tags = {"colour": ["Red"], "keywords": ["party dress"], "category": None}
        prompt, *rest = encode(tags, None, random.Random(seed))
        found.add((prompt, *written(decoder, rest)))
    assert found == {(control_id(decoder[0].decoder, attribute="colour"), "Red"),
                     (control_id(decoder[0].decoder, attribute="keywords"), "party dress")}


def test_random_order_changes_from_draw_to_draw_and_depends_on_the_seed_alone(decoder):
    tags = {"features": ["Waterproof", "Handmade", "Red", "Blue"]}
    draws = [encoder(decoder, attribute_prompt=0.0)(tags, None, random.Random(seed)) for seed in (0, 1, 2, 0)]
    assert draws[0] == draws[3] and len({tuple(draw) for draw in draws}) > 1
    assert len({frozenset(written(decoder, draw)) for draw in draws}) == 1
    fixed = encoder(decoder, attribute_prompt=0.0, order="sorted")
    assert len({tuple(fixed(tags, None, random.Random(seed))) for seed in range(9)}) == 1


def test_what_does_not_fit_is_left_out_by_whole_tags(decoder):
    encode = encoder(decoder, attribute_prompt=0.0)
    ids = encode({"features": [f"tag number {number}" for number in range(50)]}, None)
    assert len(ids) <= decoder[0].decoder["max_length"] and ids[-1] == EOS
    assert all(tag.startswith("tag number ") for tag in written(decoder, ids))


def test_the_collator_pads_labels_and_marks_rows_without_targets(decoder):
    collate = Collator(decoder[1], ATTRIBUTES, encode_targets=encoder(decoder, attribute_prompt=0.0))
    known = schema({"attributes": "all"}).record(ROW, 0)
    unknown = schema({"attributes": "all"}).record(ROW | {"colour": None}, 1)
    batch = collate([known, unknown])
    assert batch["labels"].dtype == torch.int64 and batch["labels"].shape[0] == 2
    assert (batch["labels"][1] == UNKNOWN).all() and batch["labels"][0, -1] == EOS
    assert torch.equal(padded([None, [5]]), torch.tensor([[UNKNOWN], [5]]))
