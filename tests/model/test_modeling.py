"""What `TaggerModel` promises of its outputs, towers and saved folders. Tags added later: see test_add_tags."""


import pytest
import torch
from transformers import AutoModel, AutoProcessor

import hf_tagger  # noqa: F401  registers the Auto classes
from hf_tagger.catalog.batching.collate import tower_inputs
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from tests.random_tagger import PHOTOS, TEXTS, TOWERS, batch, lexical_processor, outputs, tagger
from tests.tiny_tagger import ATTRIBUTES, photo

FUSIONS = ["concat", "attention", "late"]
LEXICAL_INPUTS = ("lexical_ids", "lexical_weights", "name_ids", "name_weights")


def one(row):
    return batch([TEXTS[row]], [PHOTOS[row]])


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def reopened(folder, cls=TaggerModel, **options):
    """The saved model, its weights in memory of their own: kernels round otherwise on a mapped file's alignment."""
    model, report = cls.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values()), report
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone(memory_format=torch.preserve_format)
    return model


@pytest.mark.parametrize("architecture", TOWERS)
def test_a_saved_model_gives_the_very_same_outputs(architecture, tmp_path):
    options = {} if architecture in ("test_vit", "swin_tiny_patch4_window7_224") else {"vision_stages": [0, 1]}
    model = tagger(architecture=architecture, colour_histogram=True, fusion="attention", fusion_heads=4, **options)
    expected = outputs(model, batch())
    assert expected["tag_logits"].shape == (5, 6) and expected["none_logits"].shape == (5, 3)
    assert expected["last_hidden_state"].shape[:2] == expected["attention_mask"].shape
    model.save_pretrained(tmp_path)
    again = reopened(tmp_path)
    assert_same(outputs(again, batch()), expected)
    assert again.config.attributes == model.config.attributes


def test_sharded_and_bfloat16_folders_give_the_very_same_outputs(tmp_path):
    model = tagger()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="500KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    assert_same(outputs(reopened(tmp_path / "sharded"), batch()), outputs(model, batch()))

    half, inputs = model.to(torch.bfloat16), batch()
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    half.save_pretrained(tmp_path / "half")
    again = reopened(tmp_path / "half", dtype="auto")
    assert again.dtype == torch.bfloat16
    assert_same(outputs(again, inputs), outputs(half, inputs))


def test_auto_classes_open_model_and_processor(tmp_path):
    model, processor = tagger("gru"), lexical_processor()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, reader = reopened(tmp_path, AutoModel), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, TaggerModel) and isinstance(reader, TaggerProcessor)
    inputs = reader(text=TEXTS, images=PHOTOS)
    assert_same(dict(inputs), batch())
    assert_same(outputs(again, inputs), outputs(model, batch()))


def test_an_unknown_fusion_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="fusion must be one of concat, attention, late, got 'sum'"):
        TaggerConfig(fusion="sum")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_gives_a_sequence_with_its_mask_and_a_pooled_vector(fusion):
    model = tagger(fusion=fusion, fusion_heads=4)
    inputs = batch()
    found = outputs(model, inputs, output_sequence=True)
    sequence, mask = found["last_hidden_state"], found["attention_mask"]
    assert found["pooled"].shape == (5, 16) and sequence.shape == (*mask.shape, 16) and mask.dtype == torch.bool
    # The proxy of an absent text, the tokens, the proxy of an absent photo, and the photos' 1 x 1 feature maps.
    tokens = inputs["attention_mask"].sum(1)
    photos = inputs["pixel_mask"].sum(1)
    assert mask.sum(1).tolist() == (tokens.clamp(min=1) + photos.clamp(min=1)).tolist()
    without = outputs(model, inputs)
    assert ("last_hidden_state" in without) == (fusion == "attention")
    torch.testing.assert_close(without["tag_logits"], found["tag_logits"])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("text", ["bert", "lstm"])
def test_a_row_scores_the_same_in_any_company(fusion, text):
    model = tagger(text, fusion=fusion, fusion_heads=4)
    together = outputs(model, batch())
    for row in range(4):
        alone = outputs(model, one(row))
        for name in ("tag_logits", "none_logits", "pooled"):
            torch.testing.assert_close(alone[name][0], together[name][row], rtol=1e-4, atol=1e-4)
    assert together["tag_logits"][4].isfinite().all()


def count_runs(model):
    runs = {"text": 0, "vision": 0}

    def counting(tower):
        def hook(module, args, kwargs):
            first = args[0] if args else kwargs["input_ids"]
            runs[tower] += len(first)

        return hook

    for tower in runs:
        getattr(model.encoder, f"{tower}_tower").register_forward_pre_hook(counting(tower), with_kwargs=True)
    return runs


def test_a_tower_runs_only_for_the_rows_that_have_something_for_it():
    model = tagger()
    runs = count_runs(model)
    outputs(model, one(0))
    assert runs == {"text": 1, "vision": 1}
    outputs(model, one(1))
    assert runs == {"text": 1, "vision": 2}
    outputs(model, one(2))
    assert runs == {"text": 2, "vision": 2}
    outputs(model, batch())  # three texts; four photos of three products
    assert runs == {"text": 5, "vision": 6}
    inputs = batch()
    inputs["attention_mask"] = torch.zeros_like(inputs["attention_mask"])
    outputs(model, inputs)
    assert runs == {"text": 5, "vision": 10}


def test_what_an_absent_modality_is_filled_with_does_not_matter():
    model, inputs = tagger(), batch()
    expected = outputs(model, inputs)
    no_text, places = ~inputs["attention_mask"].bool(), inputs["pixel_mask"]
    inputs["input_ids"] = inputs["input_ids"].masked_fill(no_text, 3)
    inputs["pixel_mask"] = torch.cat([places, torch.zeros_like(places)], dim=1)
    assert_same(outputs(model, inputs), expected)


def test_one_model_reads_text_photo_or_both_differently():
    model = tagger()
    both, text, image = (outputs(model, batch(*given))["encoder_logits"] for given in (
        ([TEXTS[0]], [PHOTOS[0]]), ([TEXTS[0]], [[]]), ([None], [PHOTOS[0]])))
    assert (both - text).abs().max() > 1e-3 < (both - image).abs().max()


@pytest.mark.parametrize(("text", "architecture"), [("bert", None), (None, "test_resnet")])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_models_with_one_tower(text, architecture, fusion, tmp_path):
    model = tagger(text, architecture, fusion=fusion, fusion_heads=4)
    row = 0 if text else 1
    inputs = batch()
    found = outputs(model, inputs)
    assert found["tag_logits"].isfinite().all()
    assert not hasattr(model.encoder, "vision_tower" if text else "text_tower")
    alone = outputs(model, one(row))["tag_logits"][0]
    torch.testing.assert_close(alone, found["tag_logits"][row], rtol=1e-4, atol=1e-4)
    model.save_pretrained(tmp_path)
    assert_same(outputs(reopened(tmp_path), inputs), found)


def test_several_photos_count_alike_whatever_their_order():
    model = tagger()
    first, second = photo("Red", "Mug"), photo("Blue", "Dress")
    one_of_each = outputs(model, batch([None], [[first, second]]))["tag_logits"]
    torch.testing.assert_close(outputs(model, batch([None], [[second, first]]))["tag_logits"], one_of_each)
    alone = outputs(model, batch([None], [[first]]))["tag_logits"]
    torch.testing.assert_close(outputs(model, batch([None], [[first, first]]))["tag_logits"], alone)
    assert (one_of_each - alone).abs().max() > 1e-3


def test_modality_dropout_takes_one_modality_and_only_from_rows_that_have_both():
    model = tagger(modality_dropout={"text": 0.3, "image": 0.3})
    rows = [0, 1, 2] * 200
    inputs = batch([TEXTS[row] for row in rows], [PHOTOS[row] for row in rows])
    torch.manual_seed(0)
    with torch.no_grad():
        present = model.train().encoder.run_towers(**tower_inputs(inputs, "cpu")).present.view(200, 3, 2)
    assert present[:, 1].tolist() == [[False, True]] * 200 and present[:, 2].tolist() == [[True, False]] * 200
    both = present[:, 0].float()
    assert 0.6 < both[:, 0].mean() < 0.8 and 0.6 < both[:, 1].mean() < 0.8
    assert both.any(1).all()
    with torch.no_grad():
        assert model.eval().encoder.run_towers(**tower_inputs(inputs, "cpu")).present.view(200, 3, 2)[:, 0].all()


def test_training_logits_are_the_encoders_alone():
    model = tagger(architecture="test_convnext")
    training, evaluating = outputs(model.train(), one(0)), outputs(model.eval(), one(0))
    assert "source_logits" not in training and "fusion_features" not in training
    assert torch.equal(training["tag_logits"], training["encoder_logits"][:, : model.config.num_tags])
    assert evaluating["source_logits"].shape == (1, 3, 9) and evaluating["source_logits"].any(-1).all()
    assert torch.equal(evaluating["source_logits"][:, 0], evaluating["encoder_logits"])


def test_a_source_says_nothing_of_a_product_that_lacks_what_it_reads():
    model = tagger(architecture="test_convnext").eval()
    tag_head, lexical, kernel = outputs(model, batch())["source_logits"].any(-1).T.tolist()
    assert all(tag_head)
    assert lexical == [text is not None for text in TEXTS]
    assert kernel == [bool(photos) for photos in PHOTOS], "where a model sees photos, the kernel head needs one"


def test_a_text_whose_words_nobody_read_is_scored_by_the_other_sources():
    model = tagger(architecture="test_convnext").eval()
    sources = outputs(model, tower_inputs(batch(), "cpu"))["source_logits"]
    expected = outputs(model, batch())["source_logits"]
    assert torch.equal(sources[:, [0, 2]], expected[:, [0, 2]]) and not sources[:, 1].any() and expected[:, 1].any()


def test_the_logits_are_what_the_fusion_makes_of_the_sources():
    model = tagger(architecture="test_convnext").eval()
    found = outputs(model, batch())
    with torch.no_grad():
        fused = model.logit_fusion(found["source_logits"], found["fusion_features"], model.candidate_attribute)
    assert torch.equal(torch.cat([found["tag_logits"], found["none_logits"]], dim=1), fused)
    # "red mug" with a photo names a tag of two attributes, the second product none and has a photo.
    assert found["fusion_features"][0].argmax(1).tolist() == [4, 4, 2] and not found["fusion_features"][0, :, -1].any()
    assert found["fusion_features"][1].argmax(1).tolist() == [0, 0, 0] and found["fusion_features"][2, :, -1].all()


def test_where_the_text_decides_the_photo_changes_nothing():
    model = tagger(architecture="test_convnext").eval()
    columns = attribute_slices(model.config.attributes)[0]  # of colour
    before = outputs(model, batch())["tag_logits"]
    texts = [text for text in TEXTS if text]
    alone = outputs(model, batch(texts, [[]] * len(texts)))["tag_logits"]
    model.config.attributes[0]["decided_by"] = "text"
    after = outputs(model, batch())["tag_logits"]
    has_text = torch.tensor([text is not None for text in TEXTS])
    has_both = has_text & torch.tensor([bool(photos) for photos in PHOTOS])
    torch.testing.assert_close(after[has_text][:, columns], alone[:, columns], rtol=1e-4, atol=1e-4)
    assert has_both.any() and not torch.equal(after[has_both][:, columns], before[has_both][:, columns])
    assert torch.equal(after[~has_both], before[~has_both])
    others = [column for column in range(after.shape[1]) if not columns.start <= column < columns.stop]
    assert torch.equal(after[:, others], before[:, others])


def test_stored_features_stand_in_for_the_towers():
    model = tagger()
    inputs = batch()
    with torch.no_grad():
        features = model.encoder.run_towers(**tower_inputs(inputs, "cpu"))
    runs = count_runs(model)
    torch.testing.assert_close(outputs(model, {"features": features})["encoder_logits"],
                               outputs(model, inputs)["encoder_logits"])
    assert_same(outputs(model, {name: inputs[name] for name in LEXICAL_INPUTS} | {"features": features}),
                outputs(model, inputs))
    assert runs == {"text": 6, "vision": 8}
    with pytest.raises(ValueError, match="token states, which .* do not keep"):
        model(features=features, output_sequence=True)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_text_towers_learn_and_round_trip(cell, tmp_path):
    model = tagger(cell, None)
    inputs = batch()
    model.train()(**inputs).encoder_logits.square().sum().backward()
    assert model.encoder.text_tower.rnn.weight_hh_l0.grad.abs().max() > 0
    expected = outputs(model.eval(), inputs)
    model.save_pretrained(tmp_path)
    assert_same(outputs(reopened(tmp_path), inputs), expected)
    with pytest.raises(ValueError, match="must be even"):
        RecurrentTextConfig(hidden_size=15)


def test_late_fusion_averages_the_logits_of_the_modalities_that_are_there():
    model = tagger(fusion="late")
    model.late_weights.weight.data = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-20.0, 20.0]])
    both, text, image = (outputs(model, batch(*given))["encoder_logits"][0] for given in (
        ([TEXTS[0]], [PHOTOS[0]]), ([TEXTS[0]], [[]]), ([None], [PHOTOS[0]])))
    weights = model.late_weights.weight.softmax(1)[model.candidate_attribute]
    torch.testing.assert_close(both, weights[:, 0] * text + weights[:, 1] * image, rtol=1e-4, atol=1e-4)


def test_scores_are_a_softmax_with_none_for_single_and_sigmoids_for_multi_attributes():
    model = tagger()
    logits, none = torch.tensor([[1.0, 2.0, 0.0, 0.0, -1.0, 3.0]]), torch.tensor([[0.5, 5.0, 9.0]])
    scores = model.tag_scores(logits, none)
    colour = torch.tensor([1.0, 2.0, 0.5]).softmax(0)
    category = torch.tensor([0.0, 0.0, 5.0]).softmax(0)
    expected = [*colour[:2], *category[:2], *torch.tensor([-1.0, 3.0]).sigmoid()]
    torch.testing.assert_close(scores[0], torch.stack(expected))
    assert model.predicted_tags(scores).tolist() == [[False, True, False, False, False, True]]


def test_fitted_thresholds_decide():
    colour, category, features = ATTRIBUTES
    model = tagger(attributes=[colour | {"thresholds": [0.2, 0.9]}, category, features | {"thresholds": [0.3, 0.99]}])
    scores = torch.tensor([[0.3, 0.6, 0.9, 0.05, 0.31, 0.98], [0.4, 0.1, 0.1, 0.2, 0.2, 0.995]])
    assert model.predicted_tags(scores).tolist() == [
        [False, False, True, False, True, False], [True, False, False, False, False, True]]


@pytest.mark.parametrize(("change", "message"), [
    ({"attributes": []}, "names no attributes"),
    ({"attributes": [ATTRIBUTES[0], ATTRIBUTES[0]]}, "a name of its own"),
    ({"attributes": [{"name": "a", "kind": "singel", "tags": ["x"]}]}, "'single' or 'multi', got 'singel'"),
    ({"attributes": [{"name": "a", "kind": "single", "tags": ["x", "x"]}]}, "each tag once"),
    ({"attributes": [{"name": "a", "kind": "single", "tags": ["x"], "counts": [1, 2]}]}, "2 counts for 1 tags"),
    ({"fusion": "attention", "fusion_heads": 3}, "not a multiple of fusion_heads"),
    ({"modality_dropout": {"photo": 0.1}}, "takes text and image"),
    ({"text": None, "name_match": True}, "need a text_config"),
])  # fmt: skip
def test_configurations_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        tagger(**change)


def test_a_product_with_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="a product needs text or a photo"):
        tagger()()
