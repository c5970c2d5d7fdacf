"""How fast a configuration trains, beside the same training of the same rows in a plain loop, as JSON.

    python recipes/lab/benchmark_training.py recipes/configs/fashion.yaml
    python recipes/lab/benchmark_training.py recipes/configs/fashion.yaml --steps 16 --repeats 2

Times the first phase that moves a tower (where the configuration has none, the default phase), in turns with a loop as
anybody would write it: float32 in the default memory layout, texts padded to 128 tokens, photos decoded in full and
between the steps. Each run has a process of its own. Every key of the YAML file can be overridden as `--key.sub value`.
Run it on a machine that does nothing else: "load_average" is the load found at the start.
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from hf_tagger import cli
from hf_tagger.catalog.batching.collate import model_inputs
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.settings import made_up
from hf_tagger.model.images import load_image
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.arguments import PhaseSettings, RunSettings, load_run
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_trainable
from hf_tagger.training.context import RunContext, start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.lora import count_parameters, find_towers
from hf_tagger.training.optimizer import OPTIMIZERS, parameter_groups
from hf_tagger.training.phases import Training, start_training, train_phase
from hf_tagger.training.settings import LogitFusionSettings
from hf_tagger.training.starting_model import starting_model
from measuring import conditions, in_fresh_process

PLAIN_LENGTH = 128


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    found = {"config": options.config, "overrides": overrides, **conditions()}
    with TemporaryDirectory() as folder:
        found |= compare(settings, options.steps, options.repeats, Path(folder))
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--steps", type=int, default=24, help="training steps that are timed, of either side")
    parser.add_argument("--repeats", type=int, default=3, help="runs of either side, of which the median counts")
    return parser.parse_known_args(arguments)


def compare(settings: RunSettings, steps: int, repeats: int, folder: Path) -> dict[str, Any]:
    phase = next((phase for phase in settings.phases if set(phase.train) - {"heads"}), None)
    chosen = phase or PhaseSettings()
    settings = replace(settings, catalog=made_up(settings.catalog, folder / "catalog"))
    # Whole pools of length-bucketed batches hold the same rows as that many batches without buckets.
    pool = max(1, settings.training.loader.bucket_batches)
    steps = -(-steps // pool) * pool
    ours, plain = [], []
    for repeat in range(1, repeats + 1):
        for runs, name in ((ours, "as configured"), (plain, "in the plain loop")):
            runs.append(in_fresh_process(time_training, settings, chosen, pool, steps, folder / "run", runs is plain))
            cli.say(f"{repeat} of {repeats}: {runs[-1]['rows_per_second']:.1f} rows/s {name}")
    ratios = [fast["rows_per_second"] / slow["rows_per_second"] for fast, slow in zip(ours, plain, strict=True)]
    same = ("data", "trainable_parameters", "batch_size", "mixed_precision")
    return {
        "phase": chosen.name, "phase_in_config": phase is not None, "train": chosen.train,
        "lora": settings.lora is not None, **{name: ours[0][name] for name in same},
        "warmup_steps": pool, "steps": steps, "repeats": repeats,
        "rows_per_second": figure(ours, "rows_per_second"), "plain_rows_per_second": figure(plain, "rows_per_second"),
        "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
        "same_rows": all(fast["ids"] == slow["ids"] for fast, slow in zip(ours, plain, strict=True)),
        "same_parameters": len({run["trainable_parameters"] for run in ours + plain}) == 1,
        "waiting": figure(ours, "waiting"), "plain_waiting": figure(plain, "waiting"),
        "loader_rows_per_second": figure(ours, "loader_rows_per_second"),
    }


def figure(runs: list[dict], name: str) -> float:
    return float(f"{median(run[name] for run in runs):.4g}")


def time_training(settings: RunSettings, phase: PhaseSettings, skip: int, steps: int, folder: Path,
                  plain: bool = False) -> dict[str, Any]:
    """Trains on `steps` batches after the first `skip`, which are not timed.

    Call it in a process of its own: what glibc does with freed memory is set once for a whole process.

    Returns `TimedLoader.reading` of the training, with "data", "trainable_parameters", "batch_size" and
    "mixed_precision"; unless `plain`, also "loader_rows_per_second" of the loader with nobody training.
    """
    batches_needed = skip + steps + 1
    phase = replace(phase, epochs=1, max_steps=math.ceil(batches_needed / settings.training.gradient_accumulation))
    settings = timed_settings(settings, phase, folder)
    run = start_run(plain_settings(settings) if plain else settings, {})
    catalogue = read_catalog(run)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    training = start_training(run, batches)
    found = {"data": {"rows": catalogue.vocabulary.rows, "fingerprint": catalogue.vocabulary.fingerprint},
             "batch_size": phase.batch_size or settings.training.loader.batch_size,
             "mixed_precision": run.accelerator.mixed_precision}
    if plain:
        make_plain(batches)
        loader = TimedLoader(batches.training(phase))
        train_plainly(run, training, phase, loader)
    else:
        alone = TimedLoader(batches.training(phase))
        for _ in itertools.islice(alone.epoch(), batches_needed):
            pass
        found["loader_rows_per_second"] = alone.reading(skip, steps)["rows_per_second"]
        loader = TimedLoader(batches.training(phase))
        train_phase(run, training, 0, phase, lambda _: loader)
    return loader.reading(skip, steps) | found | {"trainable_parameters": count_parameters(batches.model)[0]}


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
    """One phase of a run, neither validated nor saved, without what a run fits before training (scale of features,
    words): a step takes the same time either way."""
    model = settings.model if "decoder" in phase.train else replace(settings.model, decoder=None)
    return replace(
        settings, output_dir=str(folder), phases=[phase], model=model, logit_fusion=LogitFusionSettings(),
        save_adapter=False, training=replace(settings.training, checkpoint_steps=0, log_with=[]),
        evaluation=replace(settings.evaluation, validation=""))


def plain_settings(settings: RunSettings) -> RunSettings:
    """Without what makes `TrainingLoop` fast: float32, no length buckets, data prepared between the steps, memory
    handed back to the system. `make_plain` takes the rest away."""
    training = replace(settings.training, mixed_precision="no", compile=False, keep_freed_memory=False,
                       loader=replace(settings.training.loader, num_workers=0, bucket_batches=1))
    return replace(settings, training=training)


def make_plain(batches: Batches) -> None:
    batches.model.to(memory_format=torch.contiguous_format)
    for name, tower in find_towers(batches.model).items():
        if name.endswith("vision_tower"):
            tower.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(), *inputs[1:]))
    processor = batches.processor
    batches.processor = PlainProcessor(processor.image_processor, processor.tokenizer,
                                       text_prefix=processor.text_prefix, max_length=PLAIN_LENGTH)


class PlainProcessor(TaggerProcessor):
    """Pads every text to `max_length`, and decodes photos in full before it makes them small."""

    def encode(self, texts):
        encoded = self.tokenizer([self.text_prefix + text for text in texts], truncation=True, padding="max_length",
                                 max_length=self.max_length, return_tensors="np")
        return encoded["input_ids"], encoded["attention_mask"]

    def pixels(self, image, **options):
        height, width = self.image_size
        return np.asarray(load_image(image, **options).resize((width, height), Image.Resampling.BILINEAR))


def train_plainly(run: RunContext, training: Training, phase: PhaseSettings, loader) -> None:
    """A phase as anybody would write it."""
    settings, model, device = run.settings.training, training.model, run.accelerator.device
    set_trainable(model, phase, training.adapter is not None, settings.embeddings)
    model.train()
    groups = parameter_groups(model, phase.learning_rate, phase.tower_learning_rate)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
