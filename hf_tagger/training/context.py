"""What all steps of a run share: its settings, processes, folder and log."""

import platform
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from transformers.utils import logging as transformers_logging

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.machine import describe_machine, package_versions, process_state
from hf_tagger.model.pipeline_tagger import bf16_is_fast
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.checkpoint import newest_checkpoint
from hf_tagger.training.memory import keep_freed_memory
from hf_tagger.training.run_log import RunLog
from hf_tagger.training.threads import set_cpu_threads


@dataclass
class RunContext:
    settings: RunSettings
    data: dict  # the plain YAML data that the settings were built from, saved beside the model
    resume: bool  # go on from the newest checkpoint in `output_dir/checkpoints`
    accelerator: Accelerator
    log: RunLog
    started: float = field(default_factory=time.monotonic)

    @property
    def folder(self) -> Path:
        return Path(self.settings.output_dir)

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self.resume and newest_checkpoint(self.checkpoints) is not None


def start_run(settings: RunSettings, data: dict, resume: bool = False) -> RunContext:
    """Sets up processes, precision, threads, seed and folder of a run, and logs which. Raises ConfigError where the
    settings need a single process and there are several."""
    device, precision = process_state().device, settings.training.mixed_precision
    if precision == "auto":
        precision = "bf16" if bf16_is_fast(device) else "no"
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision=precision, log_with=settings.training.log_with or None,
        project_dir=settings.output_dir, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])
    if settings.logit_fusion.folds not in (0, "auto") and accelerator.num_processes > 1:
        raise ConfigError("logit_fusion.folds: sources are refitted by one process; start one, or set it to 0")
    computer = device.type
    if computer == "cpu":
        threads = set_cpu_threads(settings.training.threads)
        computer = f"the CPU with {threads} thread{'s' * (threads > 1)}{' each' * (accelerator.num_processes > 1)}"
    if settings.training.keep_freed_memory:
        keep_freed_memory()
    transformers_logging.disable_progress_bar()
    set_seed(settings.seed)
    log = RunLog(Path(settings.output_dir) / "run.log", accelerator.is_main_process, resume)
    run = RunContext(settings, data, resume, accelerator, log)
    if accelerator.is_main_process:
        if not resume:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        log.keep({"settings": asdict(settings), "machine": describe_machine(), "python": platform.python_version(),
                  "versions": package_versions()})
    accelerator.wait_for_everyone()
    processes = "1 process" if accelerator.num_processes == 1 else f"{accelerator.num_processes} processes"
    log.say(f"{processes} on {computer}, in {'bfloat16' if precision == 'bf16' else 'float32'}; details: {log.path}")
    return run
