"""The training loop: one phase at a time, resumable at any step, on one process or many."""

import copy
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import get_scheduler

from hf_tagger import UserError
from hf_tagger.catalog.batching.collate import INPUTS, UNKNOWN
from hf_tagger.catalog.quarantine import Quarantine
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.predict import LOG_LIKELIHOOD
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.training import checkpoint
from hf_tagger.training.arguments import PhaseSettings, TrainingSettings
from hf_tagger.training.distill_loss import DistillationLoss
from hf_tagger.training.lora import find_towers
from hf_tagger.training.losses import SequenceLoss, TaggingLoss
from hf_tagger.training.meter import Meter
from hf_tagger.training.optimizer import OPTIMIZERS, add_l1_gradient, parameter_groups, tower_of

BEST = "best.safetensors"
# Ways of accelerate that take the optimiser's steps into their own hands.
UNKNOWN_KINDS = (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


class NonFiniteLoss(UserError):
    """The loss or its gradient became infinite or not a number; the message names the products of the step."""


class Interrupted(UserError):
    """Training was asked to stop, and has saved a checkpoint first."""

    exit_status = 130


@dataclass
class Progress:
    """Where a run stands: with the weights, all that a resumed run needs to go on as if it had never stopped."""

    phase: int = 0
    epoch: int = 0  # of the phase
    batch: int = 0  # of the epoch
    step: int = 0  # of the run
    phase_step: int = 0  # of the phase
    best: float = -math.inf  # validation metric of the phase
    stale: int = 0  # validations since then
    history: list[dict[str, float]] = field(default_factory=list)  # validations of the run

    def begin(self, phase: int) -> None:
        """Starts a phase: only the steps and validations of the run stay."""
        vars(self).update(vars(Progress(phase=phase, step=self.step, history=self.history)))


class TrainingLoop:
    """
    Args:
        evaluate: model -> metrics of the validation split; called by every process at the same steps.
        folder: where checkpoints and `best.safetensors` are kept; None: nowhere.
        sequence_loss: of the decoder, with its weight; None where the model has none.
        distillation: compares the model with a teacher, beside or in place of the labels; None: there is no teacher.
        say: is told the validation scores, a line each.
    """

    def __init__(
        self, accelerator: Accelerator, settings: TrainingSettings, loss: TaggingLoss,
        evaluate: Callable[[nn.Module], dict[str, float]] | None, folder: Path | None, quarantine: Quarantine,
        sequence_loss: tuple[SequenceLoss, float] | None = None, distillation: DistillationLoss | None = None,
        say: Callable[[str], None] = print,
    ):
        kind = accelerator.distributed_type
        if kind in UNKNOWN_KINDS or (kind is DistributedType.FSDP and not accelerator.is_fsdp2):
            raise ConfigError(f"training goes by DDP or FSDP 2, not by {kind.value} as accelerate is configured here: "
                              "run accelerate config anew, or start with --use_fsdp --fsdp_version 2")
        self.accelerator, self.settings, self.evaluate, self.say = accelerator, settings, evaluate, say
        self.loss = loss.to(accelerator.device)
        self.sequence_loss, self.sequence_weight = sequence_loss or (None, 0.0)
        self.distillation = None if distillation is None else distillation.to(accelerator.device)
        self.folder, self.quarantine = folder, quarantine
        self.progress = Progress()
        self.resumed: dict[str, torch.Tensor] | None = None
        self.changed: set[str] = set()
        self._last_batch: dict[str, Any] | None = None
        self._sharded: nn.Module | None = None
        self._stop = False
        self._drawn: dict | None = None  # random state at the end of the last phase

    def resume(self, model: nn.Module) -> bool:
        """Puts the weights of the newest complete checkpoint into `model`; `run_phase` then skips what is done. False
        where there is no checkpoint.

        Raises ConfigError where it was written by another number of processes: each had its own share of the rows.
        """
        path = checkpoint.newest_checkpoint(self.folder)
        if path is None:
            return False
        tensors, progress = checkpoint.load_checkpoint(path)
        states = progress.pop("random_state")
        if len(states) != self.accelerator.num_processes:
            raise ConfigError(f"{path} was written by {len(states)} processes, this run has "
                              f"{self.accelerator.num_processes}: resume with as many, or start without --resume")
        weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        checkpoint.load_kept(model, weights)
        self.resumed = {name: tensor for name, tensor in tensors.items() if not name.startswith("model.")}
        self._random_state = states[self.accelerator.process_index]
        self.progress = Progress(**progress)
        return True

    def run_phase(self, index: int, phase: PhaseSettings, model: nn.Module, loader, batches_per_epoch: int) -> None:
        """Trains what `requires_grad` in `model` on `loader.epoch(...)`; leaves the best weights in it.

        Args:
            loader: a `CatalogLoader` or `FeatureLoader` of this process's rows.
            batches_per_epoch: of the longest process, for the schedule (an estimate will do).
        """
        self.changed |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        if self.progress.phase > index:
            return
        settings = self.settings
        self._tags, self._decodes = set(phase.train) != {"decoder"}, "decoder" in phase.train
        distributed = self.accelerator.num_processes > 1
        # FSDP has no way back from shards: it gets a copy, from which `_collect` brings the weights.
        self._sharded = copy.deepcopy(model) if distributed and self.accelerator.is_fsdp2 else None
        module = model if self._sharded is None else self._sharded
        self._frozen_towers = [tower for tower in find_towers(module).values()
                               if not any(parameter.requires_grad for parameter in tower.parameters())]
        groups = parameter_groups(module, phase.learning_rate, phase.tower_learning_rate)
        optimizer = OPTIMIZERS[settings.optimizer.name](groups, settings.optimizer)
        if distributed and self._sharded is None:
            # Heads that are fitted apart are alike in all processes; broadcasting them would cost more than gradients.
            tensors = [*model.named_parameters(), *model.named_buffers()]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                model, [name for name, tensor in tensors if tower_of(name) is None and not tensor.requires_grad])
        # The optimiser stays the same object; with FSDP its parameters become shards.
        wrapped = self.accelerator.prepare(module, optimizer)[0] if distributed else model
        steps_per_epoch = max(1, math.ceil(batches_per_epoch / settings.gradient_accumulation))
        total = min(phase.epochs * steps_per_epoch, phase.max_steps or math.inf)
        scheduler = get_scheduler(phase.scheduler, optimizer, int(phase.warmup_ratio * total), total)
        self.scheduled_steps = total
        if self.resumed is not None:
            self._restore(optimizer, scheduler)
        else:
            if self._drawn is not None:
                # As a resumed run does, which does not repeat what is drawn between two phases.
                checkpoint.set_random_state(self._drawn)
            self.progress.begin(index)
            if self.accelerator.is_main_process and self.folder is not None:
                # Where this phase is never validated, the best weights of an earlier one must not come back.
                (self.folder / BEST).unlink(missing_ok=True)
        if settings.compile:
            # torch sees by itself which sizes vary; with dynamic=True it fails on the photos' height and width.
            wrapped = torch.compile(wrapped)
        previous = signal.signal(signal.SIGINT, self._ask_to_stop)
        try:
            self._run_epochs(phase, model, wrapped, optimizer, scheduler, loader, total)
            self._collect(model)
        finally:
            signal.signal(signal.SIGINT, previous)
            self._sharded = None
            if distributed:
                self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
                self.accelerator.free_memory()
        self.accelerator.wait_for_everyone()
        if self.evaluate is not None and (self.folder / BEST).exists():
            checkpoint.load_kept(model, load_file(self.folder / BEST))
        self.progress.begin(index + 1)
        self._drawn = checkpoint.random_state()
        self._save(model, None)

    def _run_epochs(self, phase, model, wrapped, optimizer, scheduler, loader, total):
        progress = self.progress
        bar = progress_bar(total=total, initial=progress.phase_step, desc=phase.name, unit="step",
                           leave=self.folder is not None, disable=not self.accelerator.is_main_process)
        meter = Meter()
        with bar:
            limit, patience = phase.max_steps or math.inf, self.settings.early_stopping or math.inf
            while progress.epoch < phase.epochs and progress.phase_step < limit and progress.stale < patience:
                batches = loader.epoch(progress.epoch, progress.batch)
                while progress.phase_step < limit:
                    meter.start_wait()
                    window = self._window(batches, loader)
                    meter.end_wait()
                    if window is None:
                        break
                    progress.batch += self.settings.gradient_accumulation
                    if not window:
                        continue
                    loss = self._step(model, wrapped, optimizer, scheduler, window)
                    progress.step += 1
                    progress.phase_step += 1
                    meter.add(loss, sum(len(batch["ids"]) for batch in window) * self.accelerator.num_processes)
                    bar.update()
                    bar.set_postfix_str(meter.summary(), refresh=False)
                    if progress.step % self.settings.log_every == 0:
                        self.accelerator.log({"loss": meter.loss, "learning_rate": scheduler.get_last_lr()[0],
                                              "rows_per_second": meter.rows / meter.seconds}, step=progress.step)
                    if self._asked_to_stop():
                        self._save(model, optimizer)
                        raise Interrupted(f"stopped at step {progress.step}; go on with --resume")
                    every = self.settings.checkpoint_steps
                    if every and progress.step % every == 0:
                        self._save(model, optimizer)
                progress.epoch, progress.batch = progress.epoch + 1, 0
                last = progress.epoch >= phase.epochs or progress.phase_step >= limit
                self._validate(phase, model, last)
                self._save(model, optimizer)

    def _window(self, batches: Iterator[dict], loader) -> list[dict] | None:
        """The micro-batches of one optimiser step, without those whose every row was refused; None when no process has
        any left. A process that has run out before others gets an old batch with all labels unknown: so it joins in the
        collective calls and adds nothing."""
        accelerator, taken, window = self.accelerator, list(islice(batches, self.settings.gradient_accumulation)), []
        for batch in taken:
            for refusal in batch["refusals"]:
                self.quarantine.add(refusal)
            self.quarantine.check()
            if batch["ids"]:
                window.append(batch)
                self._last_batch = batch
        if not int(accelerator.reduce(torch.tensor(len(taken), device=accelerator.device), "sum")):
            return None
        return window if window or accelerator.num_processes == 1 else [self._idle_batch(loader)]

    def _idle_batch(self, loader) -> dict[str, Any]:
        if self._last_batch is None:
            # A resumed process may have run out before it has seen any batch itself.
            self._last_batch = next((batch for batch in loader.epoch(self.progress.epoch) if batch["ids"]), None)
        if self._last_batch is None:
            raise RuntimeError("this process has no usable product at all: start fewer processes")
        nothing = {key: torch.full_like(self._last_batch[key], UNKNOWN) for key in ("tag_labels", "labels")
                   if key in self._last_batch}
        return {**self._last_batch, "ids": [], **nothing}

    def _step(self, model, wrapped, optimizer, scheduler, window: list[dict]) -> float:
        accelerator = self.accelerator
        self._set_modes(model, wrapped)
        counts = self._counts(window)
        total = torch.zeros((), device=accelerator.device)
        for index, batch in enumerate(window):
            last = index == len(window) - 1
            with nullcontext() if last else accelerator.no_sync(wrapped):
                loss = self._loss(wrapped, batch, counts)
                total += loss.detach()
                # DDP averages the gradients of its processes; the loss above is already a share of the whole step's.
                accelerator.backward(loss * accelerator.num_processes)
        if self.settings.optimizer.l1:
            add_l1_gradient(optimizer, self.settings.optimizer.l1)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = checkpoint.whole(nn.utils.clip_grad_norm_(parameters, self.settings.optimizer.max_grad_norm or math.inf))
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            ids = [item for batch in window for item in batch["ids"]]
            where = "" if self.folder is None else f"; the last checkpoint is in {self.folder}"
            raise NonFiniteLoss(f"loss {total.item()}, gradient norm {norm.item()} at step {self.progress.step + 1}, "
                                f"products {ids}. The weights were not touched. Lower learning_rate, or use "
                                f"mixed_precision: no{where}")
        optimizer.step()
        # Repeat-factor sampling adds rows beyond the schedule, after whose end a cosine would climb again.
        if scheduler.last_epoch < self.scheduled_steps:
            scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item() * accelerator.num_processes

    def _set_modes(self, model, wrapped) -> None:
        wrapped.train()
        for tower in self._frozen_towers:
            # No dropout, and BatchNorm statistics that do not drift.
            tower.eval()
        if not self._tags:
            # The same for all but the decoder: it learns with the closed tags' scores that it will get. The encoder's
            # own flag stays on, for it switches modality dropout.
            module = model if self._sharded is None else self._sharded
            module.eval()
            module.decoder.train()
            module.decoder_memory.train()
            module.encoder.training = True

    def _counts(self, window: list[dict]) -> torch.Tensor:
        """Numbers of known (product, attribute) pairs, decoder tokens and products [3] of the step in all processes, by
        which its losses are divided."""
        pairs = sum(self.loss.count(batch["tag_labels"]) for batch in window)
        tokens = torch.zeros_like(pairs)
        if self._decodes:
            tokens = sum(self.sequence_loss.count(batch["labels"]) for batch in window)
        products = torch.full_like(pairs, sum(len(batch["ids"]) for batch in window))
        counts = torch.stack([pairs, tokens, products]).to(self.accelerator.device)
        return self.accelerator.reduce(counts, "sum").clamp(min=1)

    def _loss(self, wrapped, batch: dict, counts: torch.Tensor) -> torch.Tensor:
        """The batch's share of the step's loss."""
        device = self.accelerator.device
        inputs = {key: to_device(batch[key], device) for key in (*INPUTS, "features") if key in batch}
        if self._decodes:
            inputs |= {key: batch[key].to(device) for key in ("labels", "closed_scores") if key in batch}
        taught = self._tags and self.distillation is not None
        if taught and self.distillation.settings.hidden and "features" not in batch:
            inputs["output_sequence"] = True
        with self.accelerator.autocast():
            outputs = wrapped(**inputs)
        loss = torch.zeros((), device=device)
        if self._tags:
            labels = batch["tag_labels"].to(device)
            tags, logits = labels.shape[1], outputs.encoder_logits
            weight = self.distillation.settings.labels if taught else 1.0
            loss = loss + weight * self.loss(logits[:, :tags], logits[:, tags:], labels).total / counts[0]
        if taught:
            taught = self.distillation(outputs, to_device(batch["teacher"], device))
            loss = loss + taught.total * bool(batch["ids"]) / counts[2]
        if self._decodes:
            written = self.sequence_loss(outputs.logits, inputs["labels"]).total / counts[1]
            loss = loss + self.sequence_weight * written
        return loss

    def _validate(self, phase: PhaseSettings, model, last: bool) -> None:
        """Scores the validation split if it is due and keeps the best weights."""
        progress, settings = self.progress, self.settings
        due = last or (phase.evaluate_every and progress.epoch % phase.evaluate_every == 0)
        if self.evaluate is None or not due:
            return
        self._collect(model)
        metrics, metric = self.evaluate(model), settings.metric if self._tags else LOG_LIKELIHOOD
        if metric not in metrics:
            raise ValueError(f"training.metric {metric!r} is not measured; known: {', '.join(sorted(metrics))}")
        value = metrics[metric]
        progress.history.append({"step": progress.step, "phase": progress.phase, metric: value})
        self.accelerator.log({f"validation/{name}": number for name, number in metrics.items()}, step=progress.step)
        self.say(f"  step {progress.step}: validation {metric} {value:.4f}")
        if value > progress.best:
            progress.best, progress.stale = value, 0
            if self.accelerator.is_main_process:
                checkpoint.write_safetensors(self.folder / BEST, checkpoint.kept_tensors(model, self.changed))
        else:
            progress.stale += 1

    def _save(self, model, optimizer) -> None:
        if self.folder is None:
            return
        self._collect(model)
        states = gather_object([checkpoint.random_state()])
        of_optimizer = {} if optimizer is None else checkpoint.optimizer_tensors(optimizer)
        if self.accelerator.is_main_process:
            tensors = {f"model.{name}": tensor for name, tensor in checkpoint.kept_tensors(model, self.changed).items()}
            tensors |= of_optimizer
            progress = {**asdict(self.progress), "random_state": states}
            checkpoint.save_checkpoint(self.folder, self.progress.step, tensors, progress)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _collect(self, model) -> None:
        """Brings what FSDP has trained, in shards, into the model itself, in every process."""
        if self._sharded is not None:
            trained = dict(self._sharded.named_parameters()) | dict(self._sharded.named_buffers())
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                if tensor.requires_grad or not isinstance(tensor, nn.Parameter):
                    tensor.copy_(checkpoint.whole(trained[name]))

    def _restore(self, optimizer, scheduler) -> None:
        if self.resumed:
            checkpoint.load_optimizer(optimizer, self.resumed)
        with warnings.catch_warnings():
            # torch warns that no optimiser step came before: the interrupted run took them.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(min(self.progress.phase_step, self.scheduled_steps)):
                scheduler.step()
        checkpoint.set_random_state(self._random_state)
        self.resumed = None

    def _ask_to_stop(self, *_) -> None:
        self._stop = True

    def _asked_to_stop(self) -> bool:
        """Whether any process got Ctrl-C: all of them must leave the loop at the same step."""
        return bool(self.accelerator.reduce(torch.tensor(int(self._stop), device=self.accelerator.device), "sum"))


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors, also those of a dataclass, on the device; anything else as it is."""
    if is_dataclass(value):
        return replace(value, **{item.name: to_device(getattr(value, item.name), device) for item in fields(value)})
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
