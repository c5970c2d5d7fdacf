import random

import pytest
import torch
from torch import nn

from hf_tagger.training import checkpoint
from hf_tagger.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    newest_checkpoint,
    optimizer_tensors,
    random_state,
    save_checkpoint,
    set_random_state,
)
from hf_tagger.training.optimizer import OPTIMIZERS
from hf_tagger.training.settings import OptimizerSettings

TENSORS = {"model.a": torch.arange(6.0).view(2, 3), "model.half": torch.ones(3, dtype=torch.bfloat16)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_and_the_newest_alone_is_kept(tmp_path):
    save_checkpoint(tmp_path, 7, {}, {"step": 7})
    path = save_checkpoint(tmp_path, 10, TENSORS, {"step": 10, "best": -float("inf"), "history": [{"f1": 0.5}]})
    assert names(tmp_path) == ["checkpoint-00000010.01"] and newest_checkpoint(tmp_path) == path
    tensors, progress = load_checkpoint(path)
    assert progress == {"step": 10, "best": -float("inf"), "history": [{"f1": 0.5}]}
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype


def test_tensors_that_share_memory_or_are_strided_are_stored_as_plain_copies(tmp_path):
    tied = torch.arange(12.0).view(3, 4)
    tensors, _ = load_checkpoint(save_checkpoint(tmp_path, 1, {"a": tied, "b": tied, "c": tied.T, "d": tied[1]}, {}))
    assert torch.equal(tensors["a"], tied) and torch.equal(tensors["b"], tied)
    assert torch.equal(tensors["c"], tied.T) and torch.equal(tensors["d"], tied[1])


def test_a_second_checkpoint_of_one_step_never_leaves_a_moment_without_any(tmp_path, monkeypatch):
    first = save_checkpoint(tmp_path, 5, {}, {"epoch": 0})
    seen = []
    remove = checkpoint.shutil.rmtree
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda path, **options: (seen.append(names(tmp_path)),
                                                                              remove(path, **options)))  # fmt: skip
    second = save_checkpoint(tmp_path, 5, {}, {"epoch": 1})
    assert seen and all(set(present) & {first.name, second.name} for present in seen)
    assert newest_checkpoint(tmp_path) == second and load_checkpoint(second)[1] == {"epoch": 1}
    assert names(tmp_path) == [second.name]


def test_what_a_kill_left_half_written_does_not_count_and_is_cleared_away(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    whole = save_checkpoint(tmp_path, 5, TENSORS, {"step": 5})
    half = tmp_path / "checkpoint-00000006.01.incomplete"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) == whole
    save_checkpoint(tmp_path, 6, TENSORS, {"step": 6})
    assert names(tmp_path) == ["checkpoint-00000006.01"]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 3])
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(name, steps_before, tmp_path):
    def start():
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2, "weight_decay": 0.0}]
        return model, OPTIMIZERS[name](groups, OptimizerSettings(name=name))

    def step(model, optimizer, number):
        optimizer.zero_grad()
        model(torch.full((1, 4), number + 1.0)).square().sum().backward()
        optimizer.step()

    model, optimizer = start()
    for number in range(steps_before):
        step(model, optimizer, number)
    saved = {**{f"model.{key}": value for key, value in model.state_dict().items()}, **optimizer_tensors(optimizer)}
    tensors, _ = load_checkpoint(save_checkpoint(tmp_path, 3, saved, {}))
    resumed, again = start()
    resumed.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items() if "model." in key})
    load_optimizer(again, tensors)
    for number in range(steps_before, steps_before + 3):
        step(model, optimizer, number)
        step(resumed, again, number)
    assert torch.equal(model.weight, resumed.weight) and torch.equal(model.bias, resumed.bias)


def test_random_generators_go_on_where_they_were(tmp_path):
    torch.manual_seed(1)
    random.seed(1)
    random.gauss(0, 1)
    _, progress = load_checkpoint(save_checkpoint(tmp_path, 1, {}, {"random": random_state()}))
    expected = torch.rand(5), [random.random() for _ in range(5)], random.gauss(0, 1)
    torch.manual_seed(2)
    random.seed(2)
    set_random_state(progress["random"])
    assert torch.equal(torch.rand(5), expected[0])
    assert ([random.random() for _ in range(5)], random.gauss(0, 1)) == expected[1:]
