"""What training and tagging cost on this machine, as JSON; for towers with random weights, which cost what others do.

    python recipes/lab/benchmark.py --suite gpu --output gpu.json
    python recipes/lab/benchmark.py --suite tiny

The suite `gpu` is recipes/configs/gpu.yaml on a made-up catalogue, and takes some minutes on a GPU; `tiny` is the same
with towers that a CPU runs in a minute. Neither asks the Hub.

"training" is the phase that moves the towers: rows a second, the share of the time spent waiting for data, and what the
loader gives while nobody trains. "share_of_peak" is what it multiplies in a second (forward and backward as torch
counts them, without what is frozen, and without recomputing) over what large matrices reach on the same device in
the same precision. "tagging" is the pipeline at batch 1, 32 and 256, decoding of JPEGs included. Memory is the device's
highest, on a CPU the process's; each part has a process of its own. Keys of the configuration can be overridden as
`--key.sub value`.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import XLMRobertaConfig, XLMRobertaModel, pipeline

from benchmark_training import TimedLoader, time_training, timed_settings, train_plainly
from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.training.arguments import PhaseSettings, RunSettings, load_run
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext, start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.phases import start_training
from hf_tagger.training.starting_model import starting_model
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
from measuring import as_product, conditions, in_fresh_process, readable

BATCH_SIZES = (1, 32, 256)


@dataclass
class Suite:
    """The towers' sizes, those of the made-up catalogue, and keys that differ from recipes/configs/gpu.yaml."""

    text: dict[str, int]
    vision: str
    rows: int
    photo: int  # pixels
    steps: int  # of training that are timed
    matrix: int  # rows and columns of the largest matrices that are multiplied
    overrides: tuple[str, ...] = ()


SUITES = {
    "gpu": Suite({"vocab_size": 250_002, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                  "intermediate_size": 3072}, "convnext_small.in12k_ft_in1k", rows=6000, photo=320,
                 steps=40, matrix=8192),
    "tiny": Suite({"vocab_size": 8000, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                   "intermediate_size": 64}, "test_convnext.r160_in1k", rows=400, photo=48, steps=2, matrix=256,
                  overrides=("--model.image_size", "[64, 64]", "--model.hidden_size", "32", "--training.compile",
                             "false", "--training.loader.batch_size", "8", "--training.loader.num_workers", "1",
                             "--training.loader.bucket_batches", "2", "--training.loader.shuffle_buffer", "40")),
}  # fmt: skip


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    suite, start = SUITES[options.suite], time.perf_counter()
    found = {"suite": options.suite, "overrides": overrides, **conditions()}
    with TemporaryDirectory() as folder:
        settings = prepare(suite, overrides, Path(folder))
        phase = next(phase for phase in settings.phases if phase.moves_towers)
        steps = options.steps or suite.steps
        for name, measure, *given in (
                ("training", train, settings, phase, steps, Path(folder, "run")),
                ("multiplied", multiplied, settings, phase, Path(folder, "run")),
                ("matmul", matmul, suite.matrix, settings.training.mixed_precision),
                ("tagging", tag, settings, phase, Path(folder, "run"), options.rounds)):
            cli.say(name)
            found[name] = in_fresh_process(measure, *given)
    per_second = found["training"]["rows_per_second"] * found["multiplied"]["gflop_per_row"] / 1e3
    found["share_of_peak"] = round(per_second / found["matmul"]["tflop_per_second"], 3)
    found["seconds"] = round(time.perf_counter() - start, 1)
    print(text := json.dumps(found, indent=1))
    if options.output:
        Path(options.output).write_text(text + "\n", encoding="utf-8")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("--suite", choices=list(SUITES), default="gpu")
    parser.add_argument("--steps", type=int, help="training steps that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="over the products that are tagged, at each batch size")
    parser.add_argument("--output", help="JSON file for the figures")
    return parser.parse_known_args(arguments)


def prepare(suite: Suite, overrides: list[str], folder: Path) -> RunSettings:
    """The run's settings, with a made-up catalogue and untrained towers in the folder."""
    made_up = json.dumps({"synthetic": {"rows": suite.rows, "picture_size": suite.photo, "rows_per_shard": suite.rows}})
    config = cli.CONFIGS / "gpu.yaml"
    settings, _ = load_run(config, ["--catalog", made_up, "--model.text_backbone", str(folder / "text"),
                                    "--model.vision_backbone", f"timm:{suite.vision}", "--model.vision_weights",
                                    str(folder / "vision.safetensors"), *suite.overrides, *overrides])
    catalog = open_catalog(settings.catalog, folder / "catalog")
    texts = [record["text"] for record in islice(readable(catalog, "train"), 2000) if record["text"]]
    tokenizer = train_unigram_tokenizer(texts, 8000)
    XLMRobertaModel(XLMRobertaConfig(**suite.text, max_position_embeddings=514, type_vocab_size=1,
                                     pad_token_id=tokenizer.pad_token_id)).save_pretrained(folder / "text")
    tokenizer.save_pretrained(folder / "text")
    save_file(timm.create_model(suite.vision).state_dict(), folder / "vision.safetensors")
    return replace(settings, catalog=replace(settings.catalog, synthetic=None, source=catalog.source,
                                             schema=catalog.schema))


def begin(settings: RunSettings) -> tuple[RunContext, Batches]:
    run = start_run(settings, {})
    catalogue = read_catalog(run)
    return run, Batches(catalogue, *starting_model(run, catalogue))


def train(settings: RunSettings, phase: PhaseSettings, steps: int, folder: Path) -> dict[str, Any]:
    pool = max(1, settings.training.loader.bucket_batches)
    reading = time_training(settings, phase, pool, steps, folder)
    return {name: significant(value) for name, value in reading.items() if name not in ("ids", "data")} | peak()


def multiplied(settings: RunSettings, phase: PhaseSettings, folder: Path) -> dict[str, float]:
    """Of two steps: gigaflops a row, an addition and a multiplication being two."""
    settings = replace(settings, training=replace(settings.training, compile=False, gradient_accumulation=1))
    phase = replace(phase, epochs=1, max_steps=2)
    run, batches = begin(timed_settings(settings, phase, folder))
    training, loader = start_training(run, batches), TimedLoader(batches.training(phase))
    with FlopCounterMode(display=False) as counter:
        train_plainly(run, training, phase, loader)
    rows = sum(map(len, loader.ids[: phase.max_steps]))
    return {"gflop_per_row": significant(counter.get_total_flops() / rows / 1e9)}


def matmul(size: int, precision: str) -> dict[str, Any]:
    """What square matrices of this size or half of it reach, at best."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for each in (size // 2, size):
        left, right = (torch.randn(each, each, device=device, dtype=dtype) for _ in range(2))
        repeats = 20
        best = max(best, *(2 * each**3 * repeats / seconds(lambda left=left, right=right: left @ right, repeats)
                           for _ in range(4)))
    return {"tflop_per_second": significant(best / 1e12), "dtype": str(dtype).removeprefix("torch."),
            "device": str(device)}


def tag(settings: RunSettings, phase: PhaseSettings, folder: Path, rounds: int) -> dict[str, Any]:
    """{"batch 1": {"rows_per_second", "p50_ms"}, ...} of the pipeline as it stands."""
    run, batches = begin(timed_settings(settings, phase, folder))
    ProductTaggingPipeline(batches.model.eval(), processor=batches.processor).save_pretrained(folder / "model")
    tagger = pipeline("product-tagging", model=str(folder / "model"), device=run.accelerator.device)
    products = [as_product(record) for record in islice(readable(open_catalog(settings.catalog, folder), "train"), 512)]
    found = {}
    for size in BATCH_SIZES:
        # At batch 1, some dozens tell as much.
        lists = [list(islice(cycle(products), start, start + size)) for start in range(0, min(512, 48 * size), size)]
        for few in lists[:2]:
            tagger(few, batch_size=size)
        taken = [seconds(lambda few=few, size=size: tagger(few, batch_size=size)) for _ in range(rounds)
                 for few in lists]
        found[f"batch {size}"] = {"rows_per_second": significant(size * len(taken) / sum(taken)),
                                  "p50_ms": significant(1e3 * median(taken))}
    return found | peak()


def seconds(work: Callable[[], Any], repeats: int = 1) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return time.perf_counter() - start


def wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def peak() -> dict[str, float]:
    if torch.cuda.is_available():
        return {"peak_gb": significant(torch.cuda.max_memory_allocated() / 2**30)}
    return {"peak_gb": significant(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)}


def significant(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
