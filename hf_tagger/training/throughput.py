"""What `recipes/lab/benchmark.py` times: training as configured, and the same training written the plain way."""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from hf_tagger.catalog.collate import model_inputs
from hf_tagger.catalog.loader import CatalogLoader
from hf_tagger.model.images import load_image
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_trainable
from hf_tagger.training.context import RunContext, start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.lora import count_parameters, find_towers
from hf_tagger.training.optimizer import OPTIMIZERS, parameter_groups
from hf_tagger.training.phases import Training, start_training, train_phase
from hf_tagger.training.settings import LogitFusionSettings
from hf_tagger.training.starting_model import starting_model

PLAIN_LENGTH = 128


class TimedLoader:
    """Batches of one epoch after the other without end, and the times at which each was asked for and came."""

    def __init__(self, loader: CatalogLoader):
        self.loader = loader
        self.asked: list[float] = []
        self.came: list[float] = []
        self.ids: list[list[str]] = []

    def epoch(self, epoch: int = 0, skip_batches: int = 0) -> Iterator[dict[str, Any]]:
        epochs = (self.loader.epoch(number) for number in itertools.count(epoch))
        batches = (batch for batches in epochs for batch in batches if batch["ids"])
        while True:
            self.asked.append(time.perf_counter())
            batch = next(batches)
            self.came.append(time.perf_counter())
            self.ids.append(batch["ids"])
            yield batch

    def reading(self, skip: int, steps: int) -> dict[str, Any]:
        """Of `steps` batches after the first `skip`: rows per second, the share of that time spent waiting for data,
        and the ids of the rows. Each step counts with the wait for its successor, so one batch more must have come."""
        first, last = skip, skip + steps
        seconds = self.came[last] - self.came[first]
        waited = sum(self.came[step] - self.asked[step] for step in range(first + 1, last + 1))
        ids = [item for batch in self.ids[first:last] for item in batch]
        return {"rows_per_second": len(ids) / seconds, "waiting": waited / seconds, "ids": sorted(ids)}


def timed_settings(settings: RunSettings, phase: PhaseSettings, folder: Path) -> RunSettings:
    """One phase of a run, for the clock only: neither validated nor saved, and what a run fits before training (scale
    of features, words) left unfitted, for a step takes the same time either way."""
    model = settings.model if "decoder" in phase.train else replace(settings.model, decoder=None)
    return replace(
        settings, output_dir=str(folder), phases=[phase], model=model, logit_fusion=LogitFusionSettings(),
        save_adapter=False, training=replace(settings.training, checkpoint_steps=0, log_with=[]),
        evaluation=replace(settings.evaluation, validation=""))


def plain_settings(settings: RunSettings) -> RunSettings:
    """The same training without what makes `TrainingLoop` fast: float32, no length buckets, data prepared between the
    steps, memory handed back to the system. `make_plain` takes the rest away."""
    training = settings.training
    training = replace(training, mixed_precision="no", compile=False, keep_freed_memory=False,
                       loader=replace(training.loader, num_workers=0, bucket_batches=1))
    return replace(settings, training=training)


def make_plain(batches: Batches) -> None:
    """The default memory layout, texts padded to 128 tokens, photos decoded in full and then resized."""
    batches.model.to(memory_format=torch.contiguous_format)
    for name, tower in find_towers(batches.model).items():
        if name.endswith("vision_tower"):
            tower.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))
    processor = batches.processor
    batches.processor = PlainProcessor(processor.image_processor, processor.tokenizer,
                                       text_prefix=processor.text_prefix, max_length=PLAIN_LENGTH)


def train_plainly(run: RunContext, training: Training, phase: PhaseSettings, loader) -> None:
    """A phase as anybody would write it."""
    settings, model, device = run.settings.training, training.model, run.accelerator.device
    set_trainable(model, phase, training.adapter is not None, settings.embeddings)
    model.train()
    groups = parameter_groups(model, phase.learning_rate, phase.tower_learning_rate, phase.layer_decay,
                              settings.optimizer.weight_decay)
    optimizer = OPTIMIZERS[settings.optimizer.name](groups, settings.optimizer)
    parameters = [parameter for group in groups for parameter in group["params"]]
    batches = itertools.islice(loader.epoch(), phase.max_steps * settings.gradient_accumulation)
    for number, batch in enumerate(batches, 1):
        labels = batch["tag_labels"].to(device)
        logits = model(**model_inputs(batch, device)).encoder_logits
        tags = labels.shape[1]
        loss = training.loop.loss(logits[:, :tags], logits[:, tags:], labels).total
        loss = loss / training.loop.loss.count(labels).clamp(min=1) / settings.gradient_accumulation
        loss.backward()
        if number % settings.gradient_accumulation == 0:
            nn.utils.clip_grad_norm_(parameters, settings.optimizer.max_grad_norm or math.inf)
            optimizer.step()
            optimizer.zero_grad()
        loss.item()


class PlainProcessor(TaggerProcessor):
    def encode(self, texts):
        encoded = self.tokenizer([self.text_prefix + text for text in texts], truncation=True, padding="max_length",
                                 max_length=self.max_length, return_tensors="np")
        return encoded["input_ids"], encoded["attention_mask"]

    def pixels(self, image, **options):
        height, width = self.image_size
        return np.asarray(load_image(image, **options).resize((width, height), Image.Resampling.BILINEAR))


def time_training(settings: RunSettings, phase: PhaseSettings, skip: int, steps: int, folder: Path,
                  plain: bool = False) -> dict[str, Any]:
    """Trains on `steps` batches after the first `skip`, which are not timed.

    Call it in a process of its own: what glibc does with freed memory is set once for a whole process.

    Returns `TimedLoader.reading` of the training, with "trainable_parameters", "batch_size" and "mixed_precision";
    unless `plain`, also "loader_rows_per_second" of the loader with nobody training.
    """
    batches_needed = skip + steps + 1
    phase = replace(phase, epochs=1, max_steps=math.ceil(batches_needed / settings.training.gradient_accumulation))
    settings = timed_settings(settings, phase, folder)
    run = start_run(plain_settings(settings) if plain else settings, {})
    catalogue = read_catalog(run)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    training = start_training(run, batches)
    result = {"batch_size": phase.batch_size or settings.training.loader.batch_size,
              "mixed_precision": run.accelerator.mixed_precision}
    if plain:
        make_plain(batches)
        loader = TimedLoader(batches.training(phase))
        train_plainly(run, training, phase, loader)
    else:
        alone = TimedLoader(batches.training(phase))
        for _ in itertools.islice(alone.epoch(), batches_needed):
            pass
        result["loader_rows_per_second"] = alone.reading(skip, steps)["rows_per_second"]
        loader = TimedLoader(batches.training(phase))
        train_phase(run, training, 0, phase, lambda _: loader)
    return loader.reading(skip, steps) | result | {"trainable_parameters": count_parameters(batches.model).trainable}
