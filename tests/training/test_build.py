import numpy as np
import pytest
import torch

from hf_tagger.catalog.batching.collate import tower_inputs
from hf_tagger.model.towers import Standardise
from hf_tagger.training.arguments import ModelSettings, PhaseSettings
from hf_tagger.training.build import build_model, fit_standardise, set_scales, set_trainable, with_lora
from hf_tagger.training.settings import KernelSettings, LexicalSettings, LoraSettings
from tests.tiny_tagger import ATTRIBUTES, photo

TEXTS = ["red mug", "blue dress", "handmade blue mug", "waterproof dress in red", "new mug", "new dress"] * 5
SETTINGS = {
    "text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_efficientnet", "image_size": (48, 32),
    "hidden_size": 16, "max_length": 12, "lexical": LexicalSettings(buckets=64), "text_prefix": "",
    "vision_stages": [], "vision_grid": [], "colour_histogram": False, "kernel": KernelSettings(landmarks=0),
}  # fmt: skip


def made(seed=0, **changes):
    return build_model(ModelSettings(**SETTINGS | changes), ATTRIBUTES, TEXTS, seed)


def batch(processor, texts=("red mug", "blue dress", None), photos=((), ("Blue", "Dress"), ("Red", "Mug"))):
    images = [[photo(*given)] if given else [] for given in photos]
    inputs = dict(processor(text=list(texts), images=images))
    return inputs | {"ids": ["a", "b", "c"]}


def logits(model, processor):
    inputs = {key: value for key, value in batch(processor).items() if key != "ids"}
    with torch.no_grad():
        return model.eval()(**inputs).tag_logits


def moving(model, **phase):
    set_trainable(model, PhaseSettings(**phase), phase.pop("lora", False))
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_settings_reach_the_configuration_and_the_processor():
    model, processor = made(fusion="late", text_prefix="query: ", vision_stages=[0, 1], dropout=0.3,
                            lexical=LexicalSettings(buckets=64, char_ngrams=[4], word_ngrams=2),
                            kernel=KernelSettings(landmarks=7, dim=5, width=0.5))  # fmt: skip
    config = model.config
    assert (config.fusion, config.hidden_size, config.dropout, config.vision_stages) == ("late", 16, 0.3, [0, 1])
    assert (config.lexical_buckets, config.lexical_char_ngrams, config.lexical_word_ngrams) == (64, [4], 2)
    assert (config.kernel_landmarks, config.kernel_dim, config.kernel_width) == (7, 5, 0.5)
    assert config.sources == ["tag_head", "lexical_head", "kernel_head"]
    assert config.attributes == ATTRIBUTES
    assert processor.image_size == (48, 32) and processor.max_length == 12 and processor.text_prefix == "query: "
    assert list(config.image_mean) == list(processor.image_processor.image_mean)
    assert processor.lexical == config.lexical_features and processor.lexical["attributes"]


def test_the_same_seed_builds_the_same_model_and_another_another():
    first, second, other = made()[0].state_dict(), made()[0].state_dict(), made(seed=1)[0].state_dict()
    assert not [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert not torch.equal(first["tag_head.query.weight"], other["tag_head.query.weight"])


@pytest.mark.parametrize(("changes", "reads"), [
    ({"vision_backbone": None}, ["input_ids", "attention_mask"]),
    ({"text_backbone": None}, ["pixel_values", "pixel_mask"]),
])  # fmt: skip
def test_one_tower_is_enough(changes, reads):
    model, processor = made(**changes)
    assert processor.model_input_names == reads
    assert logits(model, processor).isfinite().all()


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
def test_vision_towers_see_photos_of_the_size_asked_for(architecture):
    model, processor = made(vision_backbone=f"scratch:{architecture}", image_size=(64, 32))
    assert batch(processor)["pixel_values"].shape[-2:] == (64, 32)
    assert logits(model, processor).isfinite().all()


def test_a_phase_moves_the_parts_it_names():
    model, _ = made()
    heads = moving(model, train=["heads"])
    assert {"tag_head.query.weight", "encoder.fusion.layers.0.weight", "encoder.proxies.weight"} <= heads
    assert not [name for name in heads if "_tower." in name or name.startswith(("lexical_head.", "logit_fusion."))]
    text = moving(model, train=["text"])
    assert text and all(name.startswith("encoder.text_tower.") for name in text)
    assert not [name for name in text if "word_embeddings" in name]
    everything = moving(model)
    assert everything >= heads | text and any("vision_tower" in name for name in everything)
    set_trainable(model, PhaseSettings(), False, embeddings=True)
    assert model.encoder.text_tower.embeddings.word_embeddings.weight.requires_grad


def test_frozen_patterns_hold_tower_weights_back():
    model, _ = made()
    names = moving(model, frozen=["vision_tower", r"layer\.0\."])
    assert not [name for name in names if "vision_tower" in name or ".layer.0." in name]
    assert any(".layer.1." in name for name in names)


def test_a_phase_that_would_train_nothing_is_refused():
    model, _ = made(vision_backbone=None)
    with pytest.raises(ValueError, match="'fine-tune' trains nothing: the model has none of"):
        moving(model, train=["vision"])


@pytest.mark.parametrize("fusion", ["concat", "attention", "late"])
def test_with_lora_phases_move_adapters_and_heads_and_merging_changes_nothing(fusion):
    model, processor = made(fusion=fusion, fusion_heads=4, vision_backbone="scratch:mobilenetv3_small_050")
    adapted = with_lora(model, LoraSettings(rank=2))
    set_trainable(model, PhaseSettings(train=["heads"]), True)
    heads = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("tag_head.modules_to_save") for name in heads)
    assert not [name for name in heads if "original_module" in name or "_tower." in name or "lexical_head." in name]
    set_trainable(model, PhaseSettings(train=["text", "vision"]), True)
    towers = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert towers and all("lora_" in name for name in towers)
    wrapped = [name for name, module in model.named_modules() if type(module).__name__ == "ModulesToSaveWrapper"]
    assert not [name for name in wrapped if "_tower." in name or name.count(".") > 1], "wrapped by its ending alone"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    expected = logits(model, processor)
    merged = adapted.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(logits(merged, processor), expected, rtol=1e-4, atol=1e-4)


def test_features_of_pretrained_towers_are_brought_to_one_scale_and_untrained_ones_left():
    model, processor = made()
    batches = [{"ids": [], "refusals": []}, batch(processor), batch(processor)]
    fit_standardise(model, ModelSettings(**SETTINGS), batches)
    assert not model.encoder.text_projection[0].mean.any()
    pretrained = ModelSettings(**SETTINGS | {"text_backbone": "installed:x", "vision_backbone": "installed:y"})
    fit_standardise(model, pretrained, batches, rows=3)
    features = model.encoder.run_towers(**tower_inputs(batches[1], "cpu"))
    for name, vectors in (("text", features.text[:2]), ("image", features.image[1:])):
        standardised = getattr(model.encoder, f"{name}_projection")[0](vectors)
        torch.testing.assert_close(standardised.mean(0), torch.zeros(vectors.shape[1]), atol=1e-4, rtol=0)


def test_scales_are_set_in_both_projections_that_peft_holds():
    model, _ = made()
    adapted = with_lora(model, LoraSettings())
    pretrained = ModelSettings(**SETTINGS | {"text_backbone": "installed:x"})
    set_scales(model, pretrained, {"text": np.full((3, 128), 2.0, np.float16)})
    parts = [part for part in adapted.modules() if isinstance(part, Standardise) and len(part.mean) == 128]
    assert len(parts) >= 2 and all(part.mean.eq(2).all() for part in parts)


def test_standardise_passes_everything_until_it_is_fitted_and_cuts_outliers():
    standardise = Standardise(2)
    vectors = torch.tensor([[1.0, 100.0], [3.0, 300.0], [2.0, 200.0]])
    assert torch.equal(standardise(vectors[:1] / 100), vectors[:1] / 100)
    standardise.fit(vectors)
    torch.testing.assert_close(standardise(vectors), torch.tensor([[-1.0, -1], [1, 1], [0, 0]]))
    assert standardise(torch.tensor([[1e6, -1e6]])).tolist() == [[6, -6]]
