"""Checkpoints that a kill cannot break: written aside and renamed when complete; safetensors and JSON, no pickle."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from hf_tagger.model.saving import let_others_read
from hf_tagger.training.optimizer import tower_of
from hf_tagger.training.whole import whole_file, whole_folder

PREFIX = "checkpoint-"


def save_checkpoint(folder: Path, step: int, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> Path:
    """Writes `folder/checkpoint-<step>.<number>` and then removes older ones; `progress` must be plain JSON data."""
    # An epoch may end at a step that has its checkpoint already: the old one is removed when the new one is complete.
    numbers = [int(path.suffix[1:]) for path in folder.glob(f"{PREFIX}{step:08d}.*") if path.suffix[1:].isdigit()]
    target = folder / f"{PREFIX}{step:08d}.{max(numbers, default=0) + 1:02d}"
    with whole_folder(target) as aside:
        write_safetensors(aside / "state.safetensors", tensors)
        (aside / "progress.json").write_text(json.dumps(progress), encoding="utf-8")
    for old in folder.glob(f"{PREFIX}*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes a file whole, or not at all. safetensors refuses tensors that share memory or are not contiguous: plain
    copies are stored."""
    with whole_file(path) as aside:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, aside)
        let_others_read(aside)


def newest_checkpoint(folder: Path) -> Path | None:
    """The last complete checkpoint, or None. Half-written ones carry another name and never count."""
    complete = [path for path in folder.glob(f"{PREFIX}*") if path.suffix != ".incomplete"]
    return max(complete, default=None, key=lambda path: path.name)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and progress as given to `save_checkpoint`."""
    return load_file(path / "state.safetensors"), json.loads((path / "progress.json").read_text(encoding="utf-8"))


def kept_tensors(model: nn.Module, changed: set[str]) -> dict[str, torch.Tensor]:
    """What training may have changed: the parameters in `changed`, the buffers of their towers, and everything outside
    the towers."""
    towers = {tower_of(name) for name in changed}
    parameters = {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in model.state_dict().items()
            if name in changed or tower_of(name) is None or (name not in parameters and tower_of(name) in towers)}


def copied_heads(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything outside the towers, for `load_kept`."""
    return {name: tensor.clone() for name, tensor in kept_tensors(model, set()).items()}


def load_kept(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Puts back what `kept_tensors` returned. Raises ValueError where the model has no such tensor."""
    unexpected = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unexpected:
        raise ValueError(f"the checkpoint belongs to another configuration: it holds {unexpected[0]}")


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimiser's running state as flat tensors "optimizer.<parameter>.<key>", whole in every process; its options
    are rebuilt."""
    return {f"optimizer.{index}.{key}": whole(torch.as_tensor(value))
            for index, state in optimizer.state_dict()["state"].items()
            for key, value in state.items() if value is not None}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Puts back what `optimizer_tensors` returned for an optimiser built the same way."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state.items():
        if isinstance(parameter := parameters[index], DTensor):
            for key, value in values.items():
                if value.shape == parameter.shape and value.ndim:
                    values[key] = distribute_tensor(value.to(parameter.device), parameter.device_mesh,
                                                    parameter.placements)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be in shards, as it is in all; every process must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def random_state() -> dict[str, Any]:
    """State of the generators that training draws from (batches seed their own: see catalog.batching)."""
    state = {"python": random.getstate(), "torch": torch.get_rng_state().tolist()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state().tolist()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators back to what `random_state` returned (JSON has turned its tuples into lists)."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))
