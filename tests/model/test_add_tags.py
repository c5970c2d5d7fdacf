"""Tags added by name to a trained model."""

import copy

import pytest
import torch
from transformers import AutoConfig

from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.kernel_head import LOGIT_SCALE
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.frozen_heads import fit_lexical_on
from hf_tagger.training.heads.kernel import KernelRows, fit_kernel_head
from hf_tagger.training.heads.logit_fusion import SourceRows, fit_logit_fusion
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.settings import KernelSettings, LexicalSettings, LogitFusionSettings
from hf_tagger.training.tag_tokenizer import train_tag_tokenizer
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

COLOURS, USES = ["Red", "Blue", "Green", "Black"], ["Sports", "Party", "Office"]
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": COLOURS, "counts": [16] * 4, "none_count": 16},
    {"name": "usage", "kind": "multi", "tags": USES, "thresholds": [0.3, 0.5, 0.4]},
]
TEXTS = ["red shirt for party", "plain shoe", "sage shirt", "rain jacket in blue for rain", "green shoe for office"]


def product(number):
    colour = [*COLOURS, None][number % 5]
    uses = [use for place, use in enumerate(USES) if number // 5 >> place & 1]
    text = " ".join([colour or "plain", ["shirt", "shoe", "jacket"][number % 3], *(f"for {use}" for use in uses)])
    return {"text": text.lower(), "tags": {"colour": [colour] if colour else [], "usage": uses}}


@pytest.fixture(scope="module")
def trained():
    """(model, processor) trained on eighty short texts: what the towers and what the words say of four colours."""
    return train()


@pytest.mark.parametrize(("tags", "message"), [
    ({"colour": "Olive"}, r"a list of names: write \['Olive'\]"), ({"colour": ["Olive", 42]}, "42 is no name"),
    ({"usage": ["Travel"], "colour": ["Olive", None]}, "None is no name"), ({"colour": [" \u200b"]}, "is no name"),
    ({"colour": ["Navy ", "Navy"]}, "has the tag 'Navy' already"),
    ({"colour": ["Ｒｅｄ"]}, "has the tag 'Red' already"),
    ({"colour": ["Olive"], "shade": ["x"]}, "unknown attribute 'shade'"),
])  # fmt: skip
def test_what_is_no_list_of_new_names_changes_nothing(trained, tags, message):
    model, processor = copy.deepcopy(trained)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_json_string()
    with pytest.raises(ValueError, match=message):
        model.add_tags(tags, processor)
    assert model.config.to_json_string() == config
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    model(**processor(text=TEXTS))


def test_a_new_tag_is_cleaned_as_the_catalogue_cleans_it(trained):
    model, processor = copy.deepcopy(trained)
    model.add_tags({"colour": [" Olive ", "Navy’s"]}, processor)
    assert model.config.attributes[0]["tags"][-2:] == ["Olive", "Navy's"]


@pytest.fixture(scope="module")
def compared():
    """The same with a kernel head."""
    return train(kernel_landmarks=80, kernel_weights={"text": 1.0})


def train(**options):
    torch.manual_seed(0)
    products = [product(number) for number in range(80)]
    tokenizer = train_unigram_tokenizer([*(item["text"] for item in products), *TEXTS] * 2, 120)
    processor = TaggerProcessor(None, tokenizer, max_length=16)
    bert = AutoConfig.for_model("bert", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
                                num_attention_heads=2, intermediate_size=32)  # fmt: skip
    model = TaggerModel(TaggerConfig(attributes=copy.deepcopy(ATTRIBUTES), text_config=bert, vision_config=None,
                                     hidden_size=32, lexical_buckets=1024, name_match=True, **options))  # fmt: skip
    model.name_tags(processor)
    encode, texts = TagEncoder(ATTRIBUTES), [item["text"] for item in products]
    labels = torch.stack([torch.from_numpy(encode(item["tags"])) for item in products])
    fit_lexical_on(model, zip(texts, labels.numpy(), strict=True), LexicalSettings(buckets=1024))
    inputs = processor(text=texts)
    loss, optimizer = TaggingLoss(ATTRIBUTES), torch.optim.AdamW(model.parameters(), lr=3e-3)
    # Many more, and the tag head knows the eighty texts by heart: it is then sure of words that it has never seen.
    for _ in range(20):
        logits = model.train()(**inputs).encoder_logits
        loss(logits[:, :7], logits[:, 7:], labels).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        text = model.eval().encoder.run_towers(inputs["input_ids"], inputs["attention_mask"]).text
        if model.kernel_head is not None:
            rows = KernelRows(text, text, torch.ones(80, dtype=torch.bool), None, labels)
            fit_kernel_head(model.kernel_head, ATTRIBUTES, rows, KernelSettings(weights={"text": 1.0}))
        found = model(**inputs)
    rows = [SourceRows(found.source_logits, found.fusion_features, labels)]
    fit_logit_fusion(model.logit_fusion, ATTRIBUTES, model.candidate_attribute, rows, LogitFusionSettings())
    return model, processor


@torch.no_grad()
def outputs(model, processor, texts=TEXTS):
    return model(**processor(text=texts))


def scores(model, processor, texts=TEXTS):
    """{attribute: {tag: scores [B]}}."""
    found = outputs(model, processor, texts)
    columns = model.tag_scores(found.tag_logits, found.none_logits).T
    attributes = model.config.attributes
    return {attribute["name"]: dict(zip(attribute["tags"], columns[where], strict=True))
            for attribute, where in zip(attributes, attribute_slices(attributes), strict=True)}


def grown(trained, **tags):
    model, processor = copy.deepcopy(trained)
    model.add_tags(tags, processor)
    return model, processor


def test_the_trained_model_reads_its_own_tags(trained):
    found = scores(*trained)
    assert found["colour"]["Red"][0] > 0.9 and found["colour"]["Green"][4] > 0.9
    assert found["usage"]["Party"][0] > 0.9 > 0.1 > found["usage"]["Party"][1]


def test_a_new_tag_scores_high_where_its_name_stands_and_low_elsewhere(trained):
    found = scores(*grown(trained, colour=["Sage"], usage=["Rain"]))
    sage, rain = found["colour"]["Sage"], found["usage"]["Rain"]
    assert sage[2] == max(colour[2] for colour in found["colour"].values()) and sage[2] > 0.2
    assert sage[[0, 3, 4]].max() < 0.02
    assert rain[3] > 0.5 > 2 * rain[[0, 2, 4]].max()


def test_a_grown_models_processor_reads_the_new_names_also_after_saving(trained, tmp_path):
    model, processor = grown(trained, colour=["Sage"], usage=["Rain"])
    assert processor.lexical == model.config.lexical_features
    assert trained[1].lexical["attributes"][0]["tags"] == COLOURS
    processor.save_pretrained(tmp_path)
    again = TaggerProcessor.from_pretrained(tmp_path)
    for name, tensor in processor(text=TEXTS).items():
        assert torch.equal(again(text=TEXTS)[name], tensor), name


def test_every_source_keeps_what_it_says_of_the_other_tags(compared):
    before, after = outputs(*compared), outputs(*grown(compared, colour=["Zircon"], usage=["Rain", "Shirt"]))
    assert before.source_logits.shape[1] == 3
    old = [0, 1, 2, 3, 5, 6, 7, 10, 11]
    # Sums over more columns at once may round otherwise in the last bit.
    torch.testing.assert_close(after.source_logits[..., old], before.source_logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(after.fusion_features, before.fusion_features)
    of_landmarks = after.source_logits[:, 2]
    assert torch.equal(of_landmarks[:, [4, 8, 9]], of_landmarks[:1, [4, 8, 9]].expand(5, -1)), "none has the new tags"
    offset = compared[0].kernel_head.offset
    typical = torch.stack([offset[:4].mean(), offset[4:7].mean()])
    torch.testing.assert_close(of_landmarks[0, [4, 8]], LOGIT_SCALE * typical)


@pytest.mark.parametrize("kind", ["trained", "compared"])
def test_a_tag_added_to_a_multi_attribute_moves_no_other_score(kind, request):
    model = request.getfixturevalue(kind)
    before, after = scores(*model), scores(*grown(model, usage=["Rain", "Red", "Party Wear"]))
    assert list(after["usage"]) == [*USES, "Rain", "Red", "Party Wear"]
    for name, tags in before.items():
        for tag, expected in tags.items():
            torch.testing.assert_close(after[name][tag], expected, rtol=0, atol=1e-6)


def test_a_tag_added_to_a_single_attribute_takes_its_share_from_the_others_alike(trained):
    found = outputs(*trained)
    old = trained[0].tag_scores(found.tag_logits, found.none_logits)
    model, processor = grown(trained, colour=["Zircon"])
    after = scores(model, processor)
    left = 1 - after["colour"]["Zircon"]
    for place, colour in enumerate(COLOURS):
        torch.testing.assert_close(after["colour"][colour], old[:, place] * left, rtol=1e-3, atol=1e-5)
    for place, use in enumerate(USES):
        torch.testing.assert_close(after["usage"][use], old[:, 4 + place], rtol=0, atol=1e-6)


def test_the_configuration_grows_along(trained):
    model, _ = grown(trained, colour=["Sage"], usage=["Rain"])
    colour, usage = model.config.attributes
    assert colour["tags"] == [*COLOURS, "Sage"] and colour["counts"] == [16] * 4 + [0]
    assert usage["thresholds"] == pytest.approx([0.3, 0.5, 0.4, 0.4])
    assert trained[0].config.attributes[0]["tags"] == COLOURS
    assert model.config.num_tags == 9 and model.candidate_attribute.tolist() == [0] * 5 + [1] * 4 + [0, 1]


def test_tags_can_be_added_again_and_the_grown_model_saved(trained, tmp_path):
    model, processor = grown(trained, colour=["Sage"])
    model.add_tags({"usage": ["Rain"], "colour": ["Teal"]}, processor)
    at_once = scores(*grown(trained, colour=["Sage", "Teal"], usage=["Rain"]))
    one_by_one = scores(model, processor)
    for name, tags in at_once.items():
        assert list(one_by_one[name]) == list(tags)
        for tag, expected in tags.items():
            torch.testing.assert_close(one_by_one[name][tag], expected, rtol=1e-3, atol=1e-5)
    model.save_pretrained(tmp_path)
    again = TaggerModel.from_pretrained(tmp_path)
    torch.testing.assert_close(outputs(again, processor).tag_logits, outputs(model, processor).tag_logits)


def test_a_grown_model_trains_on(trained):
    model, processor = grown(trained, colour=["Sage"])
    model.train()(**processor(text=TEXTS)).encoder_logits.square().mean().backward()
    assert model.tag_head.embeddings.weight.grad[4].any() and model.tag_head.bias.weight.grad.shape == (10, 1)
    assert not model.lexical_head.table.weight.requires_grad and model.logit_fusion.weights.weight.grad is None


@pytest.mark.parametrize(("tags", "message"), [
    ({"color": ["Sage"]}, "unknown attribute 'color'; this model knows: colour, usage"),
    ({"colour": ["Red"]}, "'colour' has the tag 'Red' already"),
    ({"colour": ["Sage", "Sage"]}, "'colour' has the tag 'Sage' already"),
])  # fmt: skip
def test_tags_that_cannot_be_added_are_refused_and_nothing_changes(trained, tags, message):
    model, processor = trained
    with pytest.raises(ValueError, match=message):
        model.add_tags({"usage": ["Rain"]} | tags, processor)
    assert [entry["tags"] for entry in model.config.attributes] == [COLOURS, USES]
    model.add_tags({}, processor)
    assert model.config.num_tags == 7


def test_a_model_that_knows_tags_by_index_only_says_so(trained):
    photos = AutoConfig.for_model("timm_wrapper", architecture="test_resnet", do_pooling=True)
    config = TaggerConfig(attributes=ATTRIBUTES, text_config=None, vision_config=photos, hidden_size=8)
    with pytest.raises(ValueError, match="needs a text tower"):
        TaggerModel(config).add_tags({"colour": ["Sage"]}, trained[1])


def test_a_tag_added_by_name_is_told_to_the_decoder_and_can_be_written(trained):
    model, processor = copy.deepcopy(trained)
    names = [*COLOURS, *USES, "Sage"] * 5
    processor.set_tag_tokenizer(train_tag_tokenizer(names, attributes=["colour"], vocab_size=400))
    torch.manual_seed(0)
    model.add_decoder({"vocab_size": len(processor.tag_tokenizer), "d_model": 32, "layers": 2, "heads": 2,
                       "ffn_dim": 64, "attributes": ["colour"]}, processor.tag_tokenizer)  # fmt: skip
    model.eval().add_tags({"colour": ["Sage"]}, processor)
    tags = [tag for attribute in model.config.attributes for tag in attribute["tags"]]
    pieces = processor.tag_tokenizer("Sage", add_special_tokens=False)["input_ids"]
    told = model.decoder_memory.tag_pieces[tags.index("Sage")].tolist()
    assert len(model.decoder_memory.tag_pieces) == len(tags) and told[:len(pieces)] == pieces
    torch.manual_seed(0)
    results = ProductTaggingPipeline(model, processor=processor)(
        ["sage shirt"] * 32, free_form=True, constrained=True, attributes=["colour"], threshold=1.0, min_score=0.0,
        do_sample=True)
    written = {(tag["label"], tag["attribute"]) for tags in results for tag in tags}
    assert ("Sage", "colour") in written and written <= {(tag, "colour") for tag in [*COLOURS, "Sage"]}
