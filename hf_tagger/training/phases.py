"""Trains the phases of a run, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate.utils import set_seed
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from hf_tagger.evaluation.predict import Predictions, predict
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.saving import first_control_id
from hf_tagger.training.arguments import PhaseSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_trainable, with_lora
from hf_tagger.training.checkpoint import copied_heads, load_kept, write_safetensors
from hf_tagger.training.context import RunContext
from hf_tagger.training.distill_loss import DistillationLoss
from hf_tagger.training.feature_cache import FeatureCache
from hf_tagger.training.loop import TrainingLoop
from hf_tagger.training.lora import count_parameters, freeze_batch_norm
from hf_tagger.training.losses import SequenceLoss, TaggingLoss


@dataclass
class Training:
    """A model in training; the steps of a run change it in place."""

    batches: Batches  # with the processor, and the model itself
    loop: TrainingLoop
    adapter: PeftModel | None  # the same model as peft sees it, with LoRA on its towers; None: trained in full
    features: FeatureCache  # of the frozen towers
    start: dict[str, torch.Tensor] | None  # the heads before training, where `logit_fusion.folds` fits them again
    decoder: dict[str, torch.Tensor] = field(default_factory=dict)  # of a run that is resumed in one of its phases

    @property
    def model(self) -> TaggerModel:
        return self.batches.model


def start_training(
    run: RunContext, batches: Batches, evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    distillation: DistillationLoss | None = None,
) -> Training:
    """Puts adapters on the model, in place, and goes on from the newest checkpoint of a resumed run. `evaluate` takes
    the place of `validate`."""
    settings, model, decoder = run.settings, batches.model, run.settings.model.decoder
    # What a run draws from here on must not depend on what it drew before: a resumed run skips some of that.
    set_seed(settings.seed)
    adapts = settings.lora is not None and settings.moves_closed_tags and (
        settings.save_adapter or any(phase.moves_towers for phase in settings.phases))
    adapter = with_lora(model, settings.lora) if adapts else None
    if not adapts and not (settings.model.vision_backbone or "scratch:").startswith("scratch:"):
        freeze_batch_norm(model)
    if evaluate is None and settings.evaluation.validation in batches.data.catalog.splits:
        def evaluate(_):
            return validate(run, batches)
    sequence_loss = None
    if decoder is not None:
        sequence_loss = SequenceLoss(first_control_id(model.config.decoder), decoder.label_smoothing), decoder.weight
    loss = TaggingLoss(model.config.attributes, settings.training.loss)
    loop = TrainingLoop(run.accelerator, settings.training, loss, evaluate, run.checkpoints, batches.data.quarantine,
                        sequence_loss, distillation, run.log.say)
    start = copied_heads(model) if settings.logit_fusion.folds else None
    if run.resumable:
        loop.resume(model)
    elif run.resume:
        run.log.say(f"no complete checkpoint in {run.checkpoints}: starting anew")
    run.accelerator.init_trackers("finetune")
    return Training(batches, loop, adapter, FeatureCache(run, batches, adapter, loop), start)


def train_phases(run: RunContext, training: Training,
                 load: Callable[[PhaseSettings], object] | None = None) -> None:
    """Trains one phase of the settings after the other; arguments as of `train_phase`."""
    for index, phase in enumerate(run.settings.phases):
        train_phase(run, training, index, phase, load)


def train_closed_tags(run: RunContext, training: Training) -> None:
    """Trains all phases but the last ones, which are of the decoder alone: `train_decoder` does these.

    A run that is resumed in one of them gets its heads back as they were here: what is fitted on them next must not
    start from what it ended with.
    """
    first, kept = run.settings.first_decoder_phase, run.checkpoints / "closed.safetensors"
    for index, phase in enumerate(run.settings.phases[:first]):
        train_phase(run, training, index, phase)
    if first == len(run.settings.phases):
        return
    if run.resumable and training.loop.progress.phase >= first and kept.exists():
        set_trainable(training.model, run.settings.phases[first], training.adapter is not None)
        training.decoder = {name: tensor.detach().clone() for name, tensor in training.model.named_parameters()
                            if tensor.requires_grad}
        load_kept(training.model, load_file(kept))
    elif run.accelerator.is_main_process:
        write_safetensors(kept, copied_heads(training.model))


def train_decoder(run: RunContext, training: Training, out_of_fold: Predictions) -> None:
    """Trains the last phases, those of the decoder alone, when the closed tags are as they will be. `out_of_fold`: what
    the closed tags' heads say of training products that they were not fitted on; of those that they know by heart they
    are too sure to learn from."""
    place = {product: row for row, product in enumerate(out_of_fold.ids)}
    load_kept(training.model, training.decoder)

    def load(phase: PhaseSettings):
        loader = training.features.of_phase(phase)
        rows = np.array([place.get(product, -1) for product in loader.ids])
        scores = np.concatenate([out_of_fold.scores, np.full((1, training.model.config.num_tags), np.nan)])
        loader.closed_scores = scores[rows].astype(np.float32)
        return loader

    first = run.settings.first_decoder_phase
    for index, phase in enumerate(run.settings.phases[first:], first):
        train_phase(run, training, index, phase, load if phase.cached_views and out_of_fold.ids else None)


def train_phase(run: RunContext, training: Training, index: int, phase: PhaseSettings,
                load: Callable[[PhaseSettings], object] | None = None) -> None:
    """Trains what the phase names, in place. `load`: phase -> loader with an `epoch` method, not called where a resumed
    run has done the phase already; default: of stored features where the phase has `cached_views`, else of augmented
    training products."""
    model, loop, settings = training.model, training.loop, run.settings.training
    done, loader = loop.progress.phase > index, None
    with run.log.step(f"phase {index + 1}, {phase.name}") as step:
        if not done:
            load = load or (training.features.of_phase if phase.cached_views else training.batches.training)
            loader = load(phase)
        if not phase.cached_views and phase.train != ["decoder"]:
            training.features.clear()
        # After the features are stored: peft makes adapters trainable again when it switches them on.
        set_trainable(model, phase, training.adapter is not None, settings.embeddings)
        stored = len(getattr(loader, "ids", ()))
        batches = stored or training.batches.data.rows / run.accelerator.num_processes
        batches /= phase.batch_size or settings.loader.batch_size
        before = loop.progress.step
        loop.run_phase(index, phase, model, loader, max(1, round(batches + 0.5)))
        trainable, total = count_parameters(model)
        step.result = "done before" if done else (f"{loop.progress.step - before:,} steps, trainable {trainable:,} of "
                                                  f"{total:,} parameters ({trainable / total:.2%})")
        step.details = [entry for entry in loop.progress.history if entry["phase"] == index]
        if step.details:
            metric = next(name for name in step.details[0] if name not in ("step", "phase"))
            step.result += f", validation {metric} {max(entry[metric] for entry in step.details):.4f}"


def validate(run: RunContext, batches: Batches, split: str | None = None) -> dict[str, float]:
    """Metrics of the model on the validation split, or another, as the first protocol sees it."""
    protocol = run.settings.evaluation.first_protocol
    with run.accelerator.autocast():
        found = batches.evaluation(split or run.settings.evaluation.validation, protocol)
        return predict(batches.model, found, protocol.without).metrics()
