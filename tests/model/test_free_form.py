"""Free-form tags from end to end: a decoder on the tiny tagger, in every mode of generation, and in the pipeline."""

import copy

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, pipeline

from hf_tagger.evaluation.writing import write
from hf_tagger.model.decoder import FreeFormTagger
from hf_tagger.model.generation import WrittenTag
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.saving import BOS, EOS
from hf_tagger.training.lora import apply_lora, save_adapter
from hf_tagger.training.settings import LoraSettings
from tests.tiny_tagger import ATTRIBUTES, photo, tiny_model, tiny_processor
from tests.tiny_writer import add_tiny_decoder, writing_tagger

PRODUCTS = [{"title": "red mug", "image": photo("Red", "Mug")}, "blue dress", {"image": photo("Blue", "Mug", seed=13)}]

KNOWN = {tag: attribute["name"] for attribute in ATTRIBUTES for tag in attribute["tags"]}


@pytest.fixture(scope="module")
def writer():
    return writing_tagger()


@pytest.fixture(scope="module")
def folder(writer, tmp_path_factory):
    path = tmp_path_factory.mktemp("writer")
    ProductTaggingPipeline(writer[0], processor=writer[1]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tagger(folder):
    return pipeline("product-tagging", model=str(folder))


@pytest.fixture(scope="module")
def batch(writer):
    _, processor = writer
    return processor(text=["red mug", "blue dress", None],
                     images=[[photo("Red", "Mug")], [], [photo("Blue", "Mug", seed=14)]])


def generated(results):
    return [{tag["label"] for tag in tags if tag["source"] == "generated"} for tags in results]


def test_greedy_is_the_same_with_without_and_with_a_static_cache(writer, batch):
    model, _ = writer
    expected = model.generate(**batch)
    assert expected[:, 0].eq(BOS).all() and len(expected.unique(dim=0)) == 3
    for options in ({"use_cache": False}, {"cache_implementation": "static"}):
        assert torch.equal(model.generate(**batch, **options), expected), options


def test_beams_and_samples_are_the_same_with_and_without_cache(writer, batch):
    model, _ = writer
    assert torch.equal(model.generate(**batch, num_beams=3), model.generate(**batch, num_beams=3, use_cache=False))
    sampled = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        sampled.append(model.generate(**batch, do_sample=True, num_return_sequences=2, use_cache=use_cache))
    assert len(sampled[0]) == 6 and torch.equal(*sampled)


def test_what_the_words_say_of_closed_tags_reaches_the_decoder_in_every_way_of_asking():
    model, processor = tiny_model(lexical_buckets=64, name_match=True), tiny_processor()
    model.name_tags(processor)
    add_tiny_decoder(model, processor)
    model.eval()
    inputs = processor(text=["red mug", "blue dress"])

    def first_logits(**given):
        found = model.generate(**given, max_new_tokens=2, return_dict_in_generate=True, output_logits=True)
        return found.logits[0]

    with torch.no_grad():
        memory = model(**inputs, output_memory=True).memory
    torch.testing.assert_close(first_logits(**inputs), first_logits(encoder_outputs=memory))
    silent = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert (first_logits(**silent) - first_logits(**inputs)).abs().max() > 1e-4


def test_a_missing_modality_changes_nothing_for_the_others(writer, batch):
    model, processor = writer
    expected = model.generate(**batch, max_new_tokens=12)
    for row, inputs in enumerate([dict(text=["red mug"], images=[[photo("Red", "Mug")]]), dict(text=["blue dress"]),
                                  dict(images=[[photo("Blue", "Mug", seed=14)]])]):  # fmt: skip
        alone = model.generate(**processor(**inputs), max_new_tokens=12)[0]
        assert torch.equal(alone, expected[row][:len(alone)])


def test_bfloat16(writer, folder, batch):
    half = TaggerModel.from_pretrained(folder, dtype=torch.bfloat16)
    inputs = {**batch, "pixel_values": batch["pixel_values"].bfloat16()}
    assert torch.equal(half.generate(**inputs), writer[0].generate(**batch))


def test_logits_of_a_padded_row_do_not_depend_on_the_padding(writer, batch):
    model, _ = writer
    rows = model.generate(**batch)[:, 1:]
    short = rows[1][:rows[1].tolist().index(EOS) + 1]
    alone = {key: value[1:2] for key, value in batch.items()}
    with torch.no_grad():
        together, single = model(**batch, labels=rows).logits[1], model(**alone, labels=short[None]).logits[0]
    assert torch.allclose(together[:len(short)], single, atol=1e-4)


def test_free_form_and_closed_tags_come_from_one_pass_of_each_tower(tagger):
    calls = []
    towers = {"text": tagger.model.encoder.text_tower, "vision": tagger.model.encoder.vision_tower}
    hooks = [tower.register_forward_pre_hook(lambda module, inputs, name=name: calls.append(name))
             for name, tower in towers.items()]
    result = tagger(PRODUCTS[0], free_form=True, attributes=["colour", "category"], language="de", num_beams=2)
    for hook in hooks:
        hook.remove()
    assert sorted(calls) == ["text", "vision"]
    assert {tag["source"] for tag in result} == {"vocabulary", "generated"}


def test_the_pipeline_writes_tags_beside_the_closed_ones_and_none_twice(tagger):
    results = tagger(PRODUCTS, free_form=True, language="en")
    assert all(keyword in tags for keyword, tags in zip(["coffee mug", "party dress", "coffee mug"], generated(results),
                                                        strict=True))
    assert all(len({tag["label"].lower() for tag in tags}) == len(tags) for tags in results)
    for tag in (tag for tags in results for tag in tags if tag["source"] == "generated"):
        assert tag["attribute"] == KNOWN.get(tag["label"]) and 0 < tag["score"] <= 1
    assert all(tags == sorted(tags, key=lambda tag: -tag["score"]) for tags in results)


def test_language_and_attributes_are_asked_for_by_control_tokens(tagger):
    german = tagger(PRODUCTS[:2], free_form=True, language="de")
    assert generated(german) == [{"rot", "Becher"}, {"blau", "Kleid"}]
    assert generated(tagger([{**PRODUCTS[0], "language": "de"}], free_form=True)) == [{"rot", "Becher"}]
    keywords = tagger(PRODUCTS, free_form=True, attributes=["keywords"], language="en")
    assert [{tag["label"] for tag in tags} for tags in keywords] == [{"coffee mug"}, {"party dress"}, {"coffee mug"}]
    assert {tag["attribute"] for tags in keywords for tag in tags} == {"keywords"}


def test_constrained_writes_closed_tags_only_with_their_attribute(tagger):
    for options in ({}, {"num_beams": 3}, {"do_sample": True, "temperature": 20.0}, {"max_new_tokens": 3}):
        torch.manual_seed(0)
        results = tagger(PRODUCTS, free_form=True, constrained=True, threshold=1.0, min_score=0.0, **options)
        for tags in results:
            assert all(KNOWN[tag["label"]] == tag["attribute"] for tag in tags)
            assert len({tag["label"] for tag in tags}) == len(tags)
    one = tagger(PRODUCTS[:1], free_form=True, constrained=True, attributes=["category"], threshold=1.0,
                 min_score=0.0, max_tags=1)
    assert [tag["label"] for tag in one[0]] == ["Mug"]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_the_heads_have_a_say_in_what_is_written(writer, batch, options):
    model, processor = writer
    with torch.no_grad():
        output = model(**batch, output_memory=True)
    # Scores that are sure of the opposite of what the photos and titles show.
    labels = [tag for attribute in ATTRIBUTES for tag in attribute["tags"]]
    scores = np.full((3, len(labels)), 1e-4, np.float32)
    scores[:, [labels.index("Blue"), labels.index("Dress")]] = 0.9998

    def written(scores, asked="category", constrained=True, language=None):
        rows = FreeFormTagger(model, processor)(output.memory, [language] * 3, scores, [asked], max_tags=1,
                                                constrained=constrained, min_score=0.0, **options)
        return [[tag["label"] for tag in tags] for tags in rows]

    assert written(None) == [["Mug"], ["Dress"], ["Mug"]]
    assert written(scores) == [["Dress"]] * 3 and written(scores, asked="colour") == [["Blue"]] * 3
    assert written(scores, constrained=False) == [["Dress"]] * 3 != written(None, constrained=False)


def test_in_another_language_the_heads_have_no_say_on_tags_of_one_alone(writer):
    model, processor = copy.deepcopy(writer[0]), writer[1]
    model.decoder.stack.embed_tokens.weight.data.zero_()  # all that it writes is the heads'
    model.config.decoder |= {"tag_languages": {"Red": "en"}}

    def written(**options):
        tagger = ProductTaggingPipeline(model, processor=processor)
        tags = tagger(PRODUCTS[0], free_form=True, threshold=1.0, min_score=0.0, **options)
        return {tag["label"] for tag in tags} & {"Red", "Mug"}

    assert written() == written(language="en") == {"Red", "Mug"} and written(language="de") == {"Mug"}


def test_max_tags_and_min_score(tagger):
    written = tagger(PRODUCTS, free_form=True, language="en", max_tags=1, threshold=1.0, min_score=0.0)
    assert all(len(tags) == 1 for tags in written)
    assert generated(tagger(PRODUCTS, free_form=True, min_score=1.0)) == [set()] * 3


def test_asked_for_one_attribute_an_answer_counts_whatever_its_score(writer, batch, monkeypatch):
    model, processor = writer
    monkeypatch.setitem(model.config.decoder, "min_score", 1.0)
    known = [{"category": ["Mug"]}, {"category": ["Dress"]}, {"category": ["Mug"]}]
    read = {**batch, "ids": ["1", "2", "3"], "tags": known, "free_form": known, "languages": ["en"] * 3,
            "texts": ["red mug", "blue dress", ""]}
    all_tags, answers = (write(FreeFormTagger(model, processor), [read], one_attribute=asked, gather=False).tags
                         for asked in (False, True))
    assert all_tags == [[], [], []] and all(len(tags) == 1 for tags in answers)


def test_a_saved_folder_keeps_decoder_and_tag_tokenizer(writer, folder, batch):
    model, report = TaggerModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    processor = AutoProcessor.from_pretrained(folder)
    assert torch.equal(model.generate(**batch), writer[0].generate(**batch))
    assert processor.tag_tokenizer.get_vocab() == writer[1].tag_tokenizer.get_vocab()
    assert (folder / "tag_tokenizer" / "tokenizer.json").exists()


def test_an_adapter_folder_writes_what_its_model_writes(folder, tmp_path, batch):
    base = TaggerModel.from_pretrained(folder)
    adapted = apply_lora(base, LoraSettings(rank=2), ["decoder", "decoder_memory"])
    torch.manual_seed(3)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    expected = adapted.eval().generate(**batch)
    assert torch.equal(adapted.generate(**batch, use_cache=False), expected)
    save_adapter(adapted, tmp_path, folder)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).eval().generate(**batch), expected)
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    tagger = pipeline("product-tagging", model=str(tmp_path))
    assert torch.equal(tagger.model.generate(**batch), expected), "merged"
    assert tagger(PRODUCTS[0], free_form=True, min_score=0.0)


def test_without_a_decoder_it_says_how_to_add_one():
    tagger = ProductTaggingPipeline(tiny_model().eval(), processor=tiny_processor())
    with pytest.raises(ValueError, match="no decoder .* add one with recipes/finetune.py"):
        tagger("red mug", free_form=True)
    with pytest.raises(ValueError, match="no decoder"):
        tagger.model.generate(**tagger.processor(text=["red mug"]))
    with pytest.raises(TypeError, match="language is about free-form tags: it needs free_form=True"):
        tagger("red mug", language="de")


def test_a_language_or_attribute_never_seen_is_an_error_that_lists_those_known(tagger):
    with pytest.raises(ValueError, match="not trained on the language 'fr'; it knows: de, en"):
        tagger("red mug", free_form=True, language="fr")
    with pytest.raises(ValueError, match="the attribute 'features'; it knows: colour, category, keywords"):
        tagger("red mug", free_form=True, attributes=["features"])


def test_spellings_aliases_and_near_duplicates_become_one_tag(writer):
    model, processor = writer
    free_form = FreeFormTagger(model, processor)

    def listed(*labels, min_score=0.0):
        tags = [WrittenTag(processor.tag_tokenizer(label, add_special_tokens=False)["input_ids"], -0.1 * number)
                for number, label in enumerate(labels, 1)]
        return [(tag["label"], tag["attribute"]) for tag in
                free_form._listed([free_form._entry(tag, None, None) for tag in tags], min_score)]

    assert listed("RED", "red", "Ｒｅｄ", "Crimson") == [("Red", "colour")]
    assert listed("new mug", "mug new", "Dress") == [("new mug", None), ("Dress", "category")]
    assert listed("Red", "Blue") == [("Red", "colour"), ("Blue", "colour")]
    assert listed("Red", "Blue", min_score=0.85) == [("Red", "colour")]


def test_model_without_decoder_has_none_of_its_parts():
    model = tiny_model()
    assert not [name for name in model.state_dict() if "decoder" in name] and model.config.decoder is None
    assert not model.config.is_encoder_decoder
