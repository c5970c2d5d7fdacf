"""How fast a configuration trains, reads its catalogue and tags, and how much memory it holds, as one JSON object.

    python recipes/lab/benchmark.py recipes/configs/fashion.yaml --suite training
    python recipes/lab/benchmark.py recipes/configs/fashion.yaml --suite pipeline --model runs/fashion
    python recipes/lab/benchmark.py recipes/configs/fashion.yaml --suite inference --model runs/fashion
    python recipes/lab/benchmark.py recipes/configs/fashion.yaml --suite memory --memory_rows 10000 1000000
    python recipes/lab/benchmark.py recipes/configs/fashion.yaml > benchmark.json      # all of it

Every key of the YAML file can be overridden as `--key.sub value`. Run it on a machine that does nothing else: the JSON
tells the load average found at the start.

training: the first phase that moves a tower (where the configuration has none, the default phase), in turns with the
    same training of the same rows in a plain loop (`hf_tagger.training.throughput`), each in a process of its own.
memory: what is resident, workers included, while the tags of a made-up catalogue are counted and its batches are read.
pipeline: products with text and photo through `pipeline("product-tagging")`.
evaluation: a split scored as `hf_tagger evaluate` scores it, in turns with the pipeline on the same products.
inference: what recipes/export.py wrote beside the model, in turns with the model in eager float32, with both on the
    test split for what is lost. Not part of "all".
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from hf_tagger import cli
from hf_tagger.catalog.settings import CatalogSettings
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.synthetic import generate, write_catalog
from hf_tagger.evaluation.inference import exported_folders, inference_suite
from hf_tagger.evaluation.machine import describe_machine, in_fresh_process, package_versions
from hf_tagger.evaluation.speed import evaluation_speed, reading_memory, tagging_speed
from hf_tagger.training.arguments import PhaseSettings, RunSettings, TrainingSettings, load_run
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.memory import keep_freed_memory
from hf_tagger.training.throughput import time_training
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

SUITES = ("training", "memory", "pipeline", "evaluation")
OF_A_MODEL = {"pipeline", "evaluation", "inference"}
PHOTO_SIZE = 24


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    result = {"config": options.config, "overrides": overrides, "machine": describe_machine(),
              "versions": versions(), **measure(settings, options)}
    print(json.dumps(result, indent=1, ensure_ascii=False))


def measure(settings: RunSettings, options: argparse.Namespace) -> dict:
    suites = SUITES if options.suite == "all" else (options.suite,)
    model, result = options.model or settings.output_dir, {}
    if OF_A_MODEL & set(suites) and options.model is None and not Path(model, "config.json").exists():
        raise ConfigError(f"{model} holds no model: train it with recipes/finetune.py, or name one with --model")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if suites != ("memory",):
            with redirect_stdout(sys.stderr):
                catalog, result["data"] = open_catalog(settings, folder / "catalog")
            settings = replace(settings, catalog=catalog)
        if "training" in suites:
            result["training"] = training(settings, options.steps, options.repeats, folder)
        if "memory" in suites:
            result["memory"] = memory(settings.training, options.memory_rows, folder)
        if "pipeline" in suites:
            cli.say(f"tagging with {model}")
            result["pipeline"] = in_fresh_process(on_split, tagging_speed, settings, model, options.products,
                                                  options.repeats)
        if "evaluation" in suites:
            cli.say(f"evaluating {model}")
            result["evaluation"] = in_fresh_process(on_split, evaluation_speed, settings, model, settings.evaluation,
                                                    settings.training.loader, options.repeats)
        if "inference" in suites:
            exported = [Path(folder) for folder in options.exported or exported_folders(model)]
            if not exported:
                raise ConfigError(f"nothing is exported beside {model}: run recipes/export.py, or give --exported")
            result["inference"] = in_fresh_process(on_split, inference_suite, settings, settings.training.loader, model,
                                                   exported, options.products, options.repeats)
    return result


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--suite", choices=[*SUITES, "inference", "all"], default="all")
    parser.add_argument("--model", help="model folder or Hub id for the pipeline (default: the output_dir of config)")
    parser.add_argument("--exported", nargs="+", help="exported folders for inference (default: those in the model's)")
    parser.add_argument("--steps", type=int, default=24, help="training steps that are timed, of either side")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind, of which the median counts")
    parser.add_argument("--products", type=int, default=256, help="products to tag in one measurement")
    parser.add_argument("--memory_rows", type=int, nargs="+", default=[10_000, 1_000_000], help="catalogue sizes")
    return parser.parse_known_args(arguments)


def versions() -> dict[str, str | None]:
    return {"python": platform.python_version(), **package_versions()}


def open_catalog(settings: RunSettings, folder: Path) -> tuple[CatalogSettings, dict]:
    """The catalogue's settings (a made-up one is written first), and what it is called in the results."""
    data = read_catalog(start_run(replace(settings, output_dir=str(folder)), {}))
    source, synthetic = data.settings.source, settings.catalog.synthetic
    return data.settings, {
        "source": {"synthetic": synthetic} if synthetic is not None else source.files or source.path,
        "rows": data.vocabulary.rows, "fingerprint": data.vocabulary.fingerprint,
    }


def training(settings: RunSettings, steps: int, repeats: int, folder: Path) -> dict:
    phase = next((phase for phase in settings.phases if set(phase.train) - {"heads"}), None)
    chosen = phase or PhaseSettings()
    # Whole pools of length-bucketed batches hold the same rows as that many batches without buckets.
    pool = max(1, settings.training.loader.bucket_batches)
    steps = -(-steps // pool) * pool
    ours, plain = [], []
    for repeat in range(repeats):
        cli.say(f"training, {repeat + 1} of {repeats}: as configured")
        ours.append(in_fresh_process(time_training, settings, chosen, pool, steps, folder / "ours"))
        cli.say(f"training, {repeat + 1} of {repeats}: {ours[-1]['rows_per_second']:.1f} rows/s; now the plain loop")
        plain.append(in_fresh_process(time_training, settings, chosen, pool, steps, folder / "plain", plain=True))
        cli.say(f"training, {repeat + 1} of {repeats}: {plain[-1]['rows_per_second']:.1f} rows/s in the plain loop")
    ratios = [fast["rows_per_second"] / slow["rows_per_second"] for fast, slow in zip(ours, plain, strict=True)]
    return {
        "phase": chosen.name, "phase_in_config": phase is not None, "train": chosen.train,
        "lora": settings.lora is not None, "trainable_parameters": ours[0]["trainable_parameters"],
        "mixed_precision": ours[0]["mixed_precision"], "batch_size": ours[0]["batch_size"],
        "warmup_steps": pool, "steps": steps, "repeats": repeats,
        "rows_per_second": figure(ours, "rows_per_second"),
        "plain_rows_per_second": figure(plain, "rows_per_second"),
        "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios],
        "same_rows": all(fast["ids"] == slow["ids"] for fast, slow in zip(ours, plain, strict=True)),
        "same_parameters": all(run["trainable_parameters"] == ours[0]["trainable_parameters"] for run in plain),
        "waiting": figure(ours, "waiting"), "plain_waiting": figure(plain, "waiting"),
        "loader_rows_per_second": figure(ours, "loader_rows_per_second"),
    }


def figure(runs: list[dict], name: str) -> float:
    return float(f"{median(run[name] for run in runs):.4g}")


def memory(settings: TrainingSettings, sizes: list[int], folder: Path) -> dict:
    tokenizer = train_unigram_tokenizer(row["title"] for row in generate(rows=5000, picture_size=0))
    measured = {}
    for rows in sizes:
        cli.say(f"memory: making up {rows} rows")
        processes = min(os.cpu_count() or 1, 1 + rows // 50_000)
        catalog = write_catalog(folder / "made-up", rows_per_shard=5000, processes=processes, rows=rows,
                                picture_size=PHOTO_SIZE)
        cli.say(f"memory: reading {rows} rows")
        measured[str(rows)] = in_fresh_process(reading, catalog, settings, tokenizer)
        cli.say(f"memory: {measured[str(rows)]}")
        shutil.rmtree(catalog)
    peaks, ends = ([entry[key] for entry in measured.values()] for key in ("peak_mb", "end_mb"))
    return {
        "data": f"hf_tagger.catalog.synthetic: texts in six languages, photos of {PHOTO_SIZE} x {PHOTO_SIZE} pixels",
        "loader": asdict(settings.loader), "repeats": 1, "rows": measured,
        "peak_difference_mb": round(max(peaks) - min(peaks), 1), "end_difference_mb": round(max(ends) - min(ends), 1),
    }


def reading(catalog: Path, settings: TrainingSettings, tokenizer) -> dict:
    if settings.keep_freed_memory:
        keep_freed_memory()
    return reading_memory(catalog, settings.loader, tokenizer, PHOTO_SIZE)


def on_split(measure, settings: RunSettings, *arguments) -> dict:
    """What is measured on the split that is tagged, of the catalogue opened in this process."""
    catalog = Catalog(settings.catalog.source, settings.catalog.schema)
    split = settings.evaluation.split if settings.evaluation.split in catalog.splits else "train"
    return measure(catalog, split, *arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
