"""Two processes train as one does: by DDP, and by FSDP2 with weights and optimiser in shards."""

import json
import os

import pytest
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from hf_tagger.catalog.quarantine import Quarantine
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import PhaseSettings, TrainingSettings
from hf_tagger.training.build import set_trainable, with_lora
from hf_tagger.training.loop import TrainingLoop
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.settings import LoraSettings, LossSettings, OptimizerSettings
from tests.processes import as_rank, forks, free_port
from tests.random_tagger import tagger
from tests.training.test_loop import COUNTED, Batches, reader

BATCHES = [[0, 1, 2], [3, 4], [5, 6], [7, 1, 3], [2, 4], [6], [0, 5], [7]]
STEPS = 4


class Recorded(TrainingLoop):
    losses: list[float]

    def _step(self, *arguments):
        self.losses.append(super()._step(*arguments))
        return self.losses[-1]


def accelerator(kind):
    found = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    if kind == "fsdp2":
        # accelerate takes FSDP for granted only where there are several GPUs.
        state = AcceleratorState._shared_state
        state["distributed_type"] = DistributedType.FSDP
        state["fsdp_plugin"] = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
        assert found.is_fsdp2
    return found


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def train(kind, folder, lora=False, max_steps=0, resume=False):
    """Trains for two epochs, or up to a step; writes losses and the whole model."""
    torch.manual_seed(0)
    model = without_dropout(tagger(architecture=None, kernel_weights={"text": 1.0})) if lora else reader()
    adapter = with_lora(model, LoraSettings(rank=2, dropout=0.0)) if lora else None
    process = accelerator(kind)
    optimizer = OptimizerSettings(name="sgd", weight_decay=0.01, max_grad_norm=0.5)
    settings = TrainingSettings(optimizer=optimizer, metric="f1", gradient_accumulation=2 if kind == "one" else 1,
                                checkpoint_steps=1)
    folder.mkdir(exist_ok=True)
    loop = Recorded(process, settings, TaggingLoss(COUNTED, LossSettings()), None, folder,
                    Quarantine(folder / f"quarantine.{process.process_index}.jsonl", max_bad_fraction=1.0))
    loop.losses, losses = [], folder / f"losses.{process.process_index}.json"
    if resume:
        assert loop.resume(model)
    phase = PhaseSettings(epochs=2, learning_rate=0.01, tower_learning_rate=0.01, scheduler="cosine", warmup_ratio=0.0)
    set_trainable(model, phase, lora=lora, embeddings=not lora)
    batches = Batches(*(BATCHES if kind == "one" else BATCHES[process.process_index::2]))
    if max_steps:  # as one that is killed there
        step, loop._step = loop._step, None

        def stopped(*arguments):
            if len(loop.losses) == max_steps:
                losses.write_text(json.dumps(loop.losses))
                os._exit(0)
            return step(*arguments)

        loop._step = stopped
    loop.run_phase(0, phase, model, batches, len(batches.batches))
    assert adapter is None or adapter.base_model.model is model
    losses.write_text(json.dumps(loop.losses))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / f"model.{process.process_index}.safetensors")


def rank(environment, *arguments):
    os.environ.update(environment)
    torch.set_num_threads(1)
    train(*arguments)


def run(kind, folder, *arguments):
    """(mean losses of the processes, the model of each) of two processes, or of one; killed ones leave no model."""
    port, started = free_port(), []
    count = 1 if kind == "one" else 2
    for number in range(count):
        environment = as_rank(number, 2, port) if count == 2 else {}
        started.append(forks().Process(target=rank, args=(environment, kind, folder, *arguments)))
        started[-1].start()
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * count
    losses = [json.loads((folder / f"losses.{number}.json").read_text()) for number in range(count)]
    return [sum(step) / count for step in zip(*losses, strict=True)], list(map(load_file, folder.glob("model.*")))


@pytest.fixture(scope="module", params=[False, True], ids=["full", "lora"])
def alone(request, tmp_path_factory):
    return request.param, *run("one", tmp_path_factory.mktemp("one"), request.param)


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_processes_killed_and_resumed_have_the_losses_of_one_and_each_ends_with_the_whole_model(
        alone, kind, tmp_path):
    lora, losses, (weights,) = alone
    begun, none = run(kind, tmp_path / "run", lora, STEPS + 1)
    ended, models = run(kind, tmp_path / "run", lora, 0, True)
    assert len(begun) == STEPS + 1 and not none
    assert begun + ended == pytest.approx(losses, abs=1e-5) and len(losses) == 2 * STEPS
    assert len(models) == 2
    for model in models:
        assert model.keys() == weights.keys()
        for name, tensor in weights.items():
            torch.testing.assert_close(model[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


def test_ways_that_step_by_themselves_are_refused(tmp_path, monkeypatch):
    process = Accelerator(cpu=True)
    monkeypatch.setitem(AcceleratorState._shared_state, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(ConfigError, match="DDP or FSDP 2, not by DEEPSPEED"):
        TrainingLoop(process, TrainingSettings(), TaggingLoss(COUNTED), None, tmp_path, Quarantine(None))
