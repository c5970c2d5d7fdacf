"""LoRA (arXiv 2106.09685) on both towers through peft; what is trained beside them is trained and saved in full."""

import re
import warnings
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_tagger.model.saving import let_others_read
from hf_tagger.training.settings import LoraSettings

TOWERS = ("text_tower", "vision_tower")
# Embeddings and stems, squeeze-excite gates (a few channels wide), poolers.
LEFT_ALONE = re.compile(r"embed|stem|pooler|\bse\.|^(timm_model\.)?conv1\b")


def apply_lora(model: nn.Module, settings: LoraSettings, modules_to_save: list[str]) -> PeftModel:
    """Puts adapters into the sub-modules called `text_tower` and `vision_tower`, in place, and freezes the rest, but
    for `modules_to_save`, the names of those outside the towers that are trained and saved in full.

    A tower without a layer that LoRA could adapt (a recurrent one) is trained and saved in full as well. BatchNorm
    statistics are frozen, for they are not in an adapter. Raises ValueError where a target names no layer, or no layer
    at all is to be adapted.
    """
    targets, whole_towers = [], []
    for name, tower in find_towers(model).items():
        wanted = getattr(settings, f"{name.rpartition('.')[2].removesuffix('_tower')}_targets")
        chosen = adaptable_layers(tower) if wanted == "auto" else _named_layers(tower, wanted, name)
        targets += [f"{name}.{layer}" for layer in chosen]
        if not chosen and wanted == "auto":
            whole_towers.append(name)
    if not targets:
        raise ValueError("LoRA has no layer to adapt: name lora.text_targets or lora.vision_targets, or tune in full")
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
                        target_modules=targets, modules_to_save=[*whole_towers, *modules_to_save])
    freeze_batch_norm(model)
    with warnings.catch_warnings():
        # peft reads a property of transformers by its deprecated name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, config)


def find_towers(model: nn.Module) -> dict[str, nn.Module]:
    """The towers of a model by their full names."""
    return {name: module for name, module in model.named_modules() if name.rpartition(".")[2] in TOWERS}


def adaptable_layers(tower: nn.Module) -> list[str]:
    """Names of a tower's layers that LoRA adapts by default, whatever its architecture.

    All linear layers (query, key, value, output and MLP of a transformer) and all ordinary convolutions, pointwise or
    not. Left out: embeddings and stems, squeeze-excite gates, and depthwise or grouped convolutions, where the rank
    would have to divide by the groups and merging fails.
    """
    stem = next((module for module in tower.modules() if isinstance(module, nn.Conv2d)), None)
    # Subclasses compute something else from their weights (dynamic padding, standardised kernels): LoRA does not fit.
    return [name for name, module in tower.named_modules()
            if (type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1))
            and module is not stem and not LEFT_ALONE.search(name)]


def _named_layers(tower: nn.Module, wanted: list[str], tower_name: str) -> list[str]:
    chosen = []
    for target in wanted:
        found = [name for name, module in tower.named_modules()
                 if isinstance(module, nn.Linear | nn.Conv2d) and f".{name}".endswith(f".{target}")]
        if not found:
            examples = ", ".join(sorted({name.rpartition(".")[2] for name in adaptable_layers(tower)}))
            raise ValueError(f"{tower_name} has no layer called {target!r}; layers LoRA adapts well there: {examples}")
        chosen += found
    return list(dict.fromkeys(chosen))


def freeze_batch_norm(model: nn.Module) -> None:
    """Makes every BatchNorm use and keep its running statistics, also after `model.train()`."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_use_running_statistics)


def _use_running_statistics(module, inputs):
    module.training = False


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Trainable and all parameters, without the frozen originals that peft keeps beside fully trained modules."""
    parameters = [parameter for name, parameter in model.named_parameters() if ".original_module." not in name]
    return (sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            sum(parameter.numel() for parameter in parameters))


def save_adapter(model: PeftModel, folder: str | Path, base: str | Path) -> int:
    """Writes the adapter and the fully trained modules alone; returns their size in bytes. `base`: folder or Hub id of
    the model as it was before `apply_lora`, from where `AutoModel.from_pretrained(folder)` opens it."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(base)
    # "auto" would look the base model up on the Hub to see whether its vocabulary has grown.
    model.save_pretrained(folder, save_embedding_layers=False)
    let_others_read(*Path(folder).glob("*.safetensors"))
    return sum(file.stat().st_size for file in Path(folder).glob("adapter_*"))
