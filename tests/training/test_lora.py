import re
from collections import Counter

import pytest
import timm
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoConfig, AutoModel

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training.build import with_lora
from hf_tagger.training.lora import (
    adaptable_layers,
    count_parameters,
    freeze_batch_norm,
    save_adapter,
)
from hf_tagger.training.settings import LoraSettings

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Black", "White"]},
    {"name": "usage", "kind": "multi", "tags": ["Sports", "Party", "Office"]},
]
TINY_BERT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 32}  # fmt: skip


def text_config(model_type="bert", **kwargs):
    return AutoConfig.for_model(model_type, **(TINY_BERT | {"pad_token_id": 0} | kwargs))


def tagger(text=None, architecture="resnet10t", **kwargs):
    torch.manual_seed(0)
    vision = AutoConfig.for_model("timm_wrapper", architecture=architecture, do_pooling=True)
    text = text or text_config()
    config = TaggerConfig(attributes=ATTRIBUTES, text_config=text, vision_config=vision, hidden_size=24, **kwargs)
    return TaggerModel(config)


def batch(rows=4, size=32):
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(1, 50, (rows, 6), generator=generator),
        "attention_mask": torch.ones(rows, 6, dtype=torch.long),
        "pixel_values": torch.randn(rows, 3, size, size, generator=generator),
        "pixel_mask": torch.ones(rows, 1, dtype=torch.bool),
    }


def logits(model):
    with torch.no_grad():
        return model.eval()(**batch()).tag_logits


def train_a_little(model, steps=3):
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.5)
    for _ in range(steps):
        model(**batch()).tag_logits.square().sum().sqrt().mul(-1).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def patterns(names):
    return {re.sub(r"\d+", "#", name) for name in names}


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("resnet18", {"layer#.#.conv#", "layer#.#.downsample.#"}),
        ("resnet50", {"layer#.#.conv#", "layer#.#.downsample.#"}),
        ("resnet10t", {"layer#.#.conv#", "layer#.#.downsample.#"}),
        ("vgg11", {"features.#", "pre_logits.fc#"}),
        ("tf_efficientnet_lite0", {"blocks.#.#.conv_pw", "blocks.#.#.conv_pwl", "conv_head"}),
        ("mobilenetv3_small_050", {"blocks.#.#.conv_pw", "blocks.#.#.conv_pwl", "blocks.#.#.conv", "conv_head"}),
        ("convnext_atto", {"stages.#.blocks.#.mlp.fc#", "stages.#.downsample.#"}),
        ("vit_tiny_patch16_224", {"blocks.#.attn.qkv", "blocks.#.attn.proj", "blocks.#.mlp.fc#"}),
        (
            "swin_tiny_patch4_window7_224",
            {"layers.#.blocks.#.attn.qkv", "layers.#.blocks.#.attn.proj", "layers.#.blocks.#.mlp.fc#",
             "layers.#.downsample.reduction"},
        ),
    ],
)  # fmt: skip
def test_vision_targets_are_neither_stem_nor_depthwise(architecture, expected):
    with torch.device("meta"):
        net = timm.create_model(architecture, pretrained=False, num_classes=0)
    names = adaptable_layers(net)
    assert patterns(names) == expected
    first = next(name for name, module in net.named_modules() if isinstance(module, nn.Conv2d))
    assert first not in names
    assert all(getattr(net.get_submodule(name), "groups", 1) == 1 for name in names)


@pytest.mark.parametrize(
    ("model_type", "per_layer"),
    [("bert", 6), ("xlm-roberta", 6), ("modernbert", 4), ("deberta-v2", 6), ("distilbert", 6), ("electra", 6)],
)
def test_text_targets_are_attention_and_mlp(model_type, per_layer):
    kwargs = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} if model_type == "distilbert" else {}
    kwargs |= {"embedding_size": 8} if model_type == "electra" else {}
    kwargs |= {f"{name}_token_id": 0 for name in ("bos", "eos", "cls", "sep")} if model_type == "modernbert" else {}
    tower = AutoModel.from_config(text_config(model_type, **kwargs))
    names = adaptable_layers(tower)
    assert set(Counter(re.search(r"\d+", name).group() for name in names).values()) == {per_layer}
    assert len(names) == 2 * per_layer


def test_a_recurrent_text_tower_has_no_target_and_is_trained_whole():
    recurrent = RecurrentTextConfig(vocab_size=50, embedding_size=8, hidden_size=16)
    model = with_lora(tagger(recurrent), LoraSettings())
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("text_tower" in name and "weight_ih" in name for name in trainable)
    assert not any("text_tower" in name and "lora" in name for name in trainable)
    assert any("vision_tower" in name and "lora" in name for name in trainable)


def test_only_adapters_and_the_modules_outside_the_towers_move():
    model = with_lora(tagger(), LoraSettings(rank=2))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    train_a_little(model)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert all("lora_" in name or ".modules_to_save." in name for name in moved)
    for part in ("text_tower", "vision_tower", "fusion", "tag_head", "text_projection", "image_projection"):
        assert any(part in name for name in moved), part


def test_no_target_in_a_tower_leaves_it_as_it_is():
    model = with_lora(tagger(), LoraSettings(rank=2, vision_targets=[]))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert not any("vision_tower" in name for name in trainable)
    assert any("text_tower" in name for name in trainable) and any("tag_head" in name for name in trainable)


def test_named_targets_are_taken_by_their_endings():
    model = with_lora(tagger(), LoraSettings(rank=2, text_targets=["query", "value"], vision_targets=[]))
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}
    assert {name.rpartition(".")[2] for name in adapted} == {"query", "value"} and len(adapted) == 4


def test_parameters_are_counted_once():
    model = tagger()
    trainable, total = count_parameters(model)
    peft_model = with_lora(model, LoraSettings(rank=2))
    added = sum(parameter.numel() for name, parameter in peft_model.named_parameters() if "lora_" in name)
    assert trainable == total and added > 0
    assert count_parameters(peft_model)[1] == total + added


def test_batch_norm_statistics_survive_training():
    model = with_lora(tagger(), LoraSettings(rank=2))
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
    train_a_little(model)
    after = dict(model.named_buffers())
    assert statistics and all(torch.equal(after[name], value) for name, value in statistics.items())


def test_frozen_batch_norm_uses_its_statistics_in_training():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    pixels = torch.randn(2, 3, 5, 5)
    expected = net.eval()(pixels)
    assert not torch.allclose(net.train()(pixels), expected)
    net[1].reset_running_stats()
    freeze_batch_norm(net)
    assert torch.equal(net.train()(pixels), net.eval()(pixels))


@pytest.mark.parametrize("architecture", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_the_merged_model_gives_the_logits_of_its_adapter(architecture):
    untrained = logits(tagger(architecture=architecture))
    model = with_lora(tagger(architecture=architecture), LoraSettings(rank=2))
    assert torch.allclose(logits(model), untrained, atol=1e-6)
    train_a_little(model)
    adapted = logits(model)
    assert (adapted - untrained).abs().max() > 1e-2
    merged = model.merge_and_unload(safe_merge=True)
    assert isinstance(merged, TaggerModel) and not any("lora" in name for name, _ in merged.named_parameters())
    assert (logits(merged) - adapted).abs().max() <= 1e-4


def test_an_adapter_saves_alone_and_comes_back_on_its_base(tmp_path):
    base = tagger(fusion="late")
    base.save_pretrained(tmp_path / "base")
    model = with_lora(base, LoraSettings(rank=2))
    train_a_little(model)
    size = save_adapter(model, tmp_path / "adapter", base=tmp_path / "base")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert "adapter_model.safetensors" in files and "model.safetensors" not in files
    assert 0 < size < (tmp_path / "base" / "model.safetensors").stat().st_size / 5

    reloaded = PeftModel.from_pretrained(TaggerModel.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    assert torch.equal(logits(reloaded), logits(model))
    assert not any(parameter.requires_grad for parameter in reloaded.parameters())
    assert torch.equal(logits(AutoModel.from_pretrained(tmp_path / "adapter")), logits(model))


def test_an_adapter_holds_the_heads_that_are_fitted_apart(tmp_path):
    """Most of what they are fitted to is in buffers, which an optimiser never moves."""
    base = tagger(lexical_buckets=32, name_match=True, kernel_landmarks=3, kernel_weights={"text": 1.0, "final": 1.0})
    base.save_pretrained(tmp_path / "base")
    model = with_lora(base, LoraSettings(rank=2))
    torch.manual_seed(1)
    with torch.no_grad():
        for head in (base.lexical_head, base.kernel_head, base.logit_fusion):
            mine = head.modules_to_save["default"]
            for tensor in [*mine.parameters(), *mine.buffers()]:
                if tensor.is_floating_point():
                    tensor.copy_(torch.rand_like(tensor) + 0.1)
    words = {"lexical_ids": torch.tensor([[1, 30]] * 4), "lexical_weights": torch.ones(4, 2),
             "name_ids": torch.tensor([[0, 7]] * 4), "name_weights": torch.ones(4, 2)}

    @torch.no_grad()
    def scores(model):
        found = model.eval()(**batch(), **words)
        return torch.cat([found.tag_logits, found.none_logits, found.source_logits.flatten(1)], dim=1)

    expected = scores(model)
    assert (expected - scores(TaggerModel.from_pretrained(tmp_path / "base"))).abs().max() > 1
    save_adapter(model, tmp_path / "adapter", base=tmp_path / "base")
    reloaded = PeftModel.from_pretrained(TaggerModel.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(scores(reloaded), expected)
    torch.testing.assert_close(scores(reloaded.merge_and_unload(safe_merge=True)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_targets": ["q_proj"]}, r"text_tower has no layer called 'q_proj'.*query"),
        ({"text_targets": [], "vision_targets": []}, "no layer to adapt"),
    ],
)
def test_targets_that_name_nothing_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        with_lora(tagger(), LoraSettings(**settings))


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="lora.rank"):
        LoraSettings(rank=0)
    with pytest.raises(ValueError, match="lora.text_targets"):
        LoraSettings(text_targets="all")
