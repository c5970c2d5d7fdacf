"""AutoGluon's MultiModalPredictor beside the defaults, for recipes/lab/benchmark_suite.py: same splits, encoders,
length of texts, size of photos, threads and seconds of training.

AutoGluon has a model for each attribute; it gets as long for each as the defaults took for all. Attributes with
several tags per product are left out: it has no such task. Photos are square for it, of as many pixels as ours. It
runs in an environment of its own, which is made where it is not there yet.
"""

import json
import math
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoModel

from hf_tagger import cli
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.baselines import NEVER, Products, nones_last
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.inference import time_in_turns
from hf_tagger.evaluation.protocols import standard_protocols
from hf_tagger.evaluation.results import ProtocolResult, rounded, write_results
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.images import load_image
from hf_tagger.runtime import TAGGER
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.backbones import load_text_backbone, load_vision_backbone
from measuring import HF_TAGGER, as_product, measured, readable

REQUIREMENT = "autogluon.multimodal==1.6.3"
PROGRAM = Path(__file__).with_name("autogluon_peer.py")
PRODUCTS, ROUNDS = 64, 2  # of the measured calls
NONE = "(none)"  # the class of products that are known to have no tag


def environment(folder: Path) -> Path:
    """The Python of AutoGluon's environment, which is made in `folder` where it is not there."""
    python = folder.resolve() / "bin" / "python"
    asked = [python, "-c", "from importlib.metadata import version; print(version('autogluon.multimodal'))"]
    if not python.exists() or subprocess.run(asked, capture_output=True).returncode:
        cli.say(f"installing {REQUIREMENT} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        if subprocess.run([python, "-m", "pip", "install", "-q", REQUIREMENT]).returncode:
            raise ConfigError(f"{REQUIREMENT} could not be installed into {folder}: see above")
    return python


def beside(config: str, model: Path, spent: dict, python: Path, folder: Path, only: list[str]) -> dict:
    """Trains and scores AutoGluon in `folder`, and times both sides.

    Args:
        config, model: of the defaults, and `spent` what their training took.
        only: attributes that AutoGluon learns (none named: all that have one tag per product).

    Returns "scores" {protocol: `ProtocolResult.plain()`}; "seconds", "cpu_seconds" and "peak_mb" of all its trainings;
    and, with the first attribute, "speed" of both sides, {"defaults" | "autogluon": {...}}. A useful model reaches
    "bar": accuracy on validation half-way from the commonest tag to all right.
    """
    settings, _ = load_run(model / "training_config.yaml", [])
    catalog = open_catalog(settings.catalog, folder / "catalog")
    attributes = learnable(TaggerConfig.from_pretrained(model).attributes, only)
    ours = our_speed(config, model, settings, catalog, spent)
    checkpoints = write_checkpoints(settings, folder)
    runs = [train(entry, catalog, settings, checkpoints, spent["seconds"], python, folder) for entry in attributes]
    scores, first = score(runs, attributes, settings, folder), runs[0]
    name, labels = attributes[0]["name"], first["labels"]["train"]
    shown = first["labels"]["validation"]
    bar = (1 + shown.count(max(sorted(set(labels)), key=labels.count)) / len(shown)) / 2
    ours["useful_seconds"] = spent["seconds"] if validation_accuracy(config, model, settings, name) >= bar else None
    spent = {key: round(sum(run["spent"][key] for run in runs), 1) for key in ("seconds", "cpu_seconds")}
    return spent | {
        "scores": scores, "peak_mb": max(run["spent"]["peak_mb"] for run in runs), "attribute": name, "bar": bar,
        "speed": {"defaults": ours, "autogluon": their_speed(first["result"], bar)},
    }


def learnable(attributes: list[dict], only: list[str]) -> list[dict]:
    """The attributes with one tag per product, or `only` those named, without a tagger's calibration."""
    found = {entry["name"]: {key: entry[key] for key in ("name", "kind", "tags")} for entry in attributes
             if entry["kind"] == "single"}
    unknown = [name for name in only if name not in found]
    if unknown or not found:
        raise ConfigError(f"AutoGluon cannot learn {', '.join(unknown) or 'any attribute'}: with one tag per product "
                          f"there are {', '.join(found) or 'none'}")
    return [found[name] for name in only or found]


def our_speed(config: str, model: Path, settings: RunSettings, catalog: Catalog, spent: dict) -> dict:
    """Rows of all epochs by the seconds of the whole training, and latencies of torch, ONNX and int8."""
    if not list(model.glob(f"*/{TAGGER}")):
        measured([*HF_TAGGER, "export", str(model), config, "--products", "0"])
    rows = sum(1 for _ in readable(catalog, "train")) * sum(phase.epochs for phase in settings.phases)
    products = [as_product(record) for record in islice(readable(catalog, settings.evaluation.split), PRODUCTS)]
    exported = {path.parent.name: path.parent for path in sorted(model.glob(f"*/{TAGGER}"))}
    return {"rows_per_second": rows / spent["seconds"], "rows_per_cpu_second": rows / spent["cpu_seconds"],
            "model_seconds": spent["seconds"],
            "latency": time_in_turns({"torch": model, **exported}, products, ROUNDS)}


def their_speed(result: dict, bar: float) -> dict:
    seconds = result["import_seconds"] + result["fit_seconds"]
    useful = [when for when, accuracy in result["validation_accuracy"] if accuracy >= bar]
    return {"rows_per_second": result["rows_seen"] / seconds, "model_seconds": seconds,
            "rows_per_cpu_second": result["rows_seen"] / result["fit_cpu_seconds"],
            "useful_seconds": min(useful, default=None),
            "latency": {size: {"autogluon": times} for size, times in result["latency"].items()}}


def validation_accuracy(config: str, model: Path, settings: RunSettings, attribute: str) -> float:
    at = model / "evaluation_validation"
    measured([*HF_TAGGER, "evaluate", str(model), config, "--evaluation.split", settings.evaluation.validation,
              "--resamples", "0", "--output_dir", str(at), "--card", str(at / "card.md")])
    metrics = json.loads((at / "metrics.json").read_text(encoding="utf-8"))
    return next(iter(metrics["protocols"].values()))["attributes"][attribute]["accuracy"]["value"]


def write_checkpoints(settings: RunSettings, folder: Path) -> dict[str, str | None]:
    """The pretrained encoders as folders that AutoGluon opens: a transformers model, and a timm network as safetensors
    with the description that AutoGluon reads."""
    found, model = {"text": None, "image": None}, settings.model
    if model.text_backbone:
        backbone, at = load_text_backbone(model.text_backbone), folder / "text"
        tower = AutoModel.from_config(backbone.config)
        lacking = tower.load_state_dict(backbone.weights, strict=False)
        assert not lacking.unexpected_keys and all(key.startswith("pooler.") for key in lacking.missing_keys)
        tower.save_pretrained(at)
        backbone.tokenizer.save_pretrained(at)
        found["text"] = str(at.resolve())
    if model.vision_backbone:
        backbone, at = load_vision_backbone(model.vision_backbone, model.vision_weights), folder / "image"
        at.mkdir(parents=True, exist_ok=True)
        with torch.device("meta"):
            net = timm.create_model(backbone.architecture, num_classes=0)
        about = {"architecture": backbone.architecture, "num_features": net.num_features,
                 "input_size": net.pretrained_cfg["input_size"], "mean": backbone.mean, "std": backbone.std}
        (at / "config.json").write_text(json.dumps(about), encoding="utf-8")
        save_file({name: tensor.contiguous() for name, tensor in backbone.weights.items()}, at / "model.safetensors")
        found["image"] = str(at.resolve())
    return found


def train(attribute: dict, catalog: Catalog, settings: RunSettings, checkpoints: dict, seconds: float, python: Path,
          folder: Path) -> dict:
    """What AutoGluon makes of one attribute: "result" and "probabilities", what it has "spent", and the "products" and
    "labels" of its splits. What is there is not trained again."""
    at, evaluation = folder / attribute["name"], settings.evaluation
    at.mkdir(parents=True, exist_ok=True)
    splits = {"train": "train", "validation": evaluation.validation, "test": evaluation.split}
    products, labels, among = {}, {}, None
    for name, split in splits.items():
        products[name], labels[name] = write_split(catalog, split, at / f"{name}.parquet", attribute, settings,
                                                   known=name != "test", among=among)
        among = among or set(labels["train"])
    if not (at / "spent.json").exists():
        height, width = settings.model.image_size
        job = {"files": {name: str((at / f"{name}.parquet").resolve()) for name in splits},
               "text_checkpoint": checkpoints["text"], "vision_checkpoint": checkpoints["image"],
               "max_length": settings.model.max_length, "image_size": round(math.sqrt(height * width)),
               "seconds": round(seconds), "seed": settings.seed, "products": PRODUCTS, "rounds": ROUNDS}
        (at / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")
        cli.say(f"AutoGluon, {attribute['name']}: {seconds:.0f} s of training ...")
        # Its environment has packages of its own: none of ours may be found there.
        alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
        spent = measured([str(python), "-W", "ignore", str(PROGRAM), str(at / "job.json")], alone)
        (at / "spent.json").write_text(json.dumps(spent), encoding="utf-8")
    return {"products": products, "labels": labels} | {
        name: json.loads((at / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("spent", "result", "probabilities")}


def write_split(catalog: Catalog, split: str, path: Path, attribute: dict, settings: RunSettings, known: bool,
                among: set[str] | None) -> tuple[Products, list[str | None]]:
    """Writes text, photo and label of the products of a split and returns these products and labels; only those whose
    label is `known`, and is `among` others, if need be."""
    rows, kept, photos = [], [], path.parents[1] / "photos"
    photos.mkdir(exist_ok=True)
    for number, record in enumerate(readable(catalog, split)):
        label = label_of(record["tags"].get(attribute["name"]), attribute)
        if known and (label is None or among and label not in among):
            continue
        kept.append(record)
        rows.append({"text": settings.model.text_prefix + (record["text"] or ""), "label": label,
                     "image": photo_file(record["images"][:1], photos / f"{split}-{number}.jpg", settings)})
    schema = pa.schema([(name, pa.string()) for name in ("text", "image", "label")])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return Products.read(kept), [row["label"] for row in rows]


def photo_file(photos: list, path: Path, settings: RunSettings) -> str | None:
    """The path of a product's first photo, as a file with the bytes that the catalogue has; None without one."""
    for photo in photos:
        raw = photo["bytes"] if isinstance(photo, dict) else photo
        if isinstance(raw, bytes):
            path.write_bytes(raw)
        elif not path.exists():
            load_image(raw, allow_urls=settings.catalog.schema.allow_urls).save(path, quality=95)
        return str(path.resolve())


def label_of(given: list[str] | None, attribute: dict) -> str | None:
    if given is None or any(tag not in attribute["tags"] for tag in given):
        return None
    return given[0] if given else NONE


def score(runs: list[dict], attributes: list[dict], settings: RunSettings, folder: Path) -> dict:
    """The test split's scores under the first protocol; thresholds fitted on validation, as ours."""
    fitted, blocks = [], []
    for attribute, run in zip(attributes, runs, strict=True):
        of_split = {split: logits_of(attribute, run["probabilities"]["classes"], run["probabilities"][split])
                    for split in ("validation", "test")}
        validation = run["products"]["validation"].predictions([attribute], of_split["validation"])
        fitted += fit_calibration(validation, settings.calibration)[0]
        blocks.append(of_split["test"])
    test = runs[0]["products"]["test"].predictions(fitted, nones_last(blocks))
    name = next(iter(standard_protocols(settings.evaluation.protocols)))
    result = ProtocolResult.of(name, test)
    write_results(folder / "evaluation", [result], {"method": REQUIREMENT})
    return {name: rounded(result.plain())}


def logits_of(attribute: dict, classes: list[str], probabilities: list[list[float]]) -> np.ndarray:
    """[N, tags + "none"] from AutoGluon's probabilities [N, classes]."""
    found = np.full((len(probabilities), len(attribute["tags"]) + 1), NEVER)
    columns = [attribute["tags"].index(name) if name != NONE else -1 for name in classes]
    found[:, columns] = np.log(np.maximum(probabilities, np.exp(NEVER)))
    return found
