"""A new tagger from settings and a vocabulary, and which of its parts move in a phase."""

import re
from collections.abc import Iterable

import numpy as np
import torch
from peft import PeftModel
from transformers import ViTImageProcessor, set_seed

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.predict import embeddings_of
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.model.saving import FormatError
from hf_tagger.model.towers import Standardise
from hf_tagger.training.arguments import ModelSettings, PhaseSettings
from hf_tagger.training.backbones import (
    TextBackbone,
    VisionBackbone,
    load_text_backbone,
    load_towers,
    load_vision_backbone,
    vision_config,
)
from hf_tagger.training.heads.lexical import coded_attributes
from hf_tagger.training.lora import apply_lora
from hf_tagger.training.optimizer import tower_of
from hf_tagger.training.settings import LoraSettings

CONFIG_FIELDS = ("fusion", "fusion_layers", "fusion_heads", "hidden_size", "text_pooling", "vision_stages",
                 "vision_grid", "colour_histogram", "dropout", "modality_dropout", "speech")
EMBEDDINGS = re.compile(r"word_embeddings|embed_tokens|tok_embeddings")


def build_model(
    settings: ModelSettings, attributes: list[dict], texts: Iterable[str] = (), seed: int = 0,
    text: TextBackbone | None = None, vision: VisionBackbone | None = None,
) -> tuple[TaggerModel, TaggerProcessor]:
    """A tagger for a vocabulary's attributes; the same arguments give the same weights. `texts`: the catalogue's, for
    the tokenizer of an untrained text tower. `text`, `vision`: backbones in place of those that the settings name."""
    if text is None and settings.text_backbone:
        text = load_text_backbone(settings.text_backbone, texts)
    if vision is None and settings.vision_backbone:
        vision = load_vision_backbone(settings.vision_backbone, settings.vision_weights)
    lexical, kernel = settings.lexical, settings.kernel
    config = TaggerConfig(
        attributes=attributes,
        text_config=text.config if text else None,
        vision_config=vision_config(vision, settings.image_size) if vision else None,
        **({"image_mean": list(vision.mean), "image_std": list(vision.std)} if vision else {}),
        lexical_buckets=lexical.buckets if text else 0,
        tag_codes=(coded_attributes(attributes, lexical) if text else None) or None,
        name_match=lexical.name_match and text is not None,
        **{f"lexical_{name}": getattr(lexical, name) for name in ("char_ngrams", "word_ngrams")},
        **{f"kernel_{name}": getattr(kernel, name) for name in ("landmarks", "dim", "width", "weights")},
        **{name: getattr(settings, name) for name in CONFIG_FIELDS},
    )
    set_seed(seed)
    model = TaggerModel(config)
    load_towers(model, text, vision)
    image_processor = None
    if vision:
        height, width = settings.image_size
        image_processor = ViTImageProcessor(size={"height": height, "width": width}, image_mean=list(vision.mean),
                                            image_std=list(vision.std))
    processor = TaggerProcessor(image_processor, text.tokenizer if text else None, text_prefix=settings.text_prefix,
                                max_length=settings.max_length)
    model.name_tags(processor)
    return model.to(memory_format=torch.channels_last), processor


def load_model(path: str) -> tuple[TaggerModel, TaggerProcessor]:
    """A saved tagger to train further. Raises ConfigError for one of another format."""
    try:
        model = TaggerModel.from_pretrained(path, dtype=torch.float32)
    except FormatError as error:
        raise ConfigError(str(error)) from error
    return model.to(memory_format=torch.channels_last), TaggerProcessor.from_pretrained(path)


@torch.no_grad()
def fit_standardise(model: TaggerModel, settings: ModelSettings, batches: Iterable[dict], rows: int = 1000) -> None:
    """Sets the mean and deviation of pretrained towers' features from the first `rows` products. The features of an
    untrained tower will move too far for that to be of use."""
    found: dict[str, list[np.ndarray]] = {"text": [], "image": []}
    seen = 0
    for batch, features, present in embeddings_of(model, batches):
        for name, vectors in features.items():
            found[name].append(vectors[present[name]])
        seen += len(batch["ids"])
        if seen >= rows:
            break
    set_scales(model, settings, {name: np.concatenate(parts) for name, parts in found.items() if parts})


def set_scales(model: TaggerModel, settings: ModelSettings, features: dict[str, np.ndarray]) -> None:
    """Sets mean and deviation of "text" and "image" features, each [N, F], where the tower is pretrained."""
    for name, backbone in (("text", settings.text_backbone), ("image", settings.vision_backbone)):
        if len(features.get(name, ())) and not backbone.startswith("scratch:"):
            vectors = torch.from_numpy(features[name].astype(np.float32)).to(model.device)
            # Where peft has wrapped the projection, it holds two of them.
            for part in getattr(model.encoder, f"{name}_projection").modules():
                if isinstance(part, Standardise):
                    part.fit(vectors)


def with_lora(model: TaggerModel, settings: LoraSettings) -> PeftModel:
    """Puts adapters on the towers; all heads and the logit fusion are saved with them."""
    modules = ["tag_head", "late_weights", "lexical_head", "kernel_head", "logit_fusion", "decoder_memory", "decoder"]
    modules = [name for name in modules if getattr(model, name, None) is not None]
    sequence_read = model.config.fusion == "attention" or model.decoder is not None
    unused = () if sequence_read else ("text_token_projection", "image_token_projection")
    modules += [f"encoder.{name}" for name, _ in model.encoder.named_children()
                if tower_of(f"encoder.{name}.weight") is None and name not in unused]
    return apply_lora(model, settings, modules)


def set_trainable(model: torch.nn.Module, phase: PhaseSettings, lora: bool, embeddings: bool = False) -> None:
    """Sets `requires_grad` for the parts that the phase names. Lexical head, kernel head and logit fusion are fitted
    apart and never move here. Raises ValueError where nothing is left to train."""
    attention = model.config.fusion == "attention"
    frozen = re.compile("|".join(f"(?:{pattern})" for pattern in phase.frozen) or r"(?!)")
    for name, parameter in model.named_parameters():
        tower = tower_of(name)
        if ".original_module." in name or re.search(r"(^|\.)(lexical_head|kernel_head|logit_fusion)\.", name):
            wanted = False
        elif tower is None:
            wanted = part_of(name, attention) in phase.train
        elif tower not in phase.train or frozen.search(name):
            wanted = False
        elif lora:
            wanted = "lora_" in name or ".modules_to_save." in name
        else:
            wanted = embeddings or not EMBEDDINGS.search(name)
        parameter.requires_grad_(wanted)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"phase {phase.name!r} trains nothing: the model has none of {phase.train}, or all is frozen")


def part_of(name: str, attention: bool) -> str:
    """"decoder" or "heads" for a parameter outside the towers. Only `attention` fusion reads token states; in other
    models their projections belong to the decoder."""
    if re.search(r"(^|\.)decoder(_memory)?\.", name):
        return "decoder"
    return "decoder" if not attention and "_token_projection." in name else "heads"
