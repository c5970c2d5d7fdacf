"""Trains AutoGluon's MultiModalPredictor on one attribute, in an environment that has AutoGluon and not hf_tagger.

    ENVIRONMENT/bin/python recipes/lab/autogluon_peer.py JOB.json

`recipes/lab/peer.py` writes the job and reads what is written beside it: probabilities.json, {"classes", "validation",
"test"}, and result.json, with times in seconds and memory in MiB. JOB.json has "files" (parquet files with text, image
and label), "text_checkpoint" and "vision_checkpoint" (local folders; null: no such column), "max_length" in tokens,
"image_size" in pixels, "seconds" of training, "seed", and "products" and "rounds" of the measured calls.
"""

import json
import resource
import shutil
import sys
import time
from pathlib import Path

START = time.time()
BATCH_SIZES = (1, 32)
BATCH = 128  # products per optimiser step: AutoGluon's default, said to make steps countable


def main(path: Path) -> None:
    import pandas as pd
    import torch
    from autogluon.multimodal import MultiModalPredictor

    job, folder = json.loads(path.read_text(encoding="utf-8")), path.parent
    frames = {split: pd.read_parquet(file)[[*inputs(job), "label"]] for split, file in job["files"].items()}
    started = time.time()
    shutil.rmtree(folder / "predictor", ignore_errors=True)  # AutoGluon takes no folder that is there
    predictor = MultiModalPredictor(label="label", problem_type="multiclass", path=str(folder / "predictor"),
                                    validation_metric="accuracy", verbosity=1)
    predictor.fit(frames["train"], tuning_data=frames["validation"], time_limit=job["seconds"], seed=job["seed"],
                  column_types={name: "text" if name == "text" else "image_path" for name in inputs(job)},
                  hyperparameters=hyperparameters(job, folder))
    fitted, used = time.time(), cpu_seconds()
    steps, scores = curve(folder / "predictor")
    found = {split: predictor.predict_proba(frames[split][inputs(job)], as_pandas=True)
             for split in ("validation", "test")}
    probabilities = {split: frame.to_numpy().tolist() for split, frame in found.items()}
    classes = [str(name) for name in found["test"].columns]
    (folder / "probabilities.json").write_text(json.dumps({"classes": classes} | probabilities), encoding="utf-8")
    rows = len(frames["train"])
    result = {
        "import_seconds": started - START, "fit_seconds": fitted - started, "fit_cpu_seconds": used,
        "steps": steps,
        # The last batch of an epoch is smaller.
        "rows_seen": round(steps * rows / -(-rows // BATCH)),
        "validation_accuracy": [[when - START, accuracy] for when, accuracy in scores],
        "latency": latency(predictor, frames["test"][inputs(job)], job["products"], job["rounds"]),
        "peak_mb": peak_mb(), "threads": torch.get_num_threads(),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")


def inputs(job: dict) -> list[str]:
    return [name for name, checkpoint in (("text", "text_checkpoint"), ("image", "vision_checkpoint"))
            if job[checkpoint]]


def hyperparameters(job: dict, folder: Path) -> dict:
    """AutoGluon's defaults, but for the encoders and what they read."""
    chosen, names = {"env.num_gpus": 0, "env.batch_size": BATCH, "optim.log_every_n_steps": 1}, []
    if job["text_checkpoint"]:
        names.append("hf_text")
        chosen |= {"model.hf_text.checkpoint_name": job["text_checkpoint"], "model.hf_text.pooling_mode": "mean",
                   "model.hf_text.max_text_len": job["max_length"]}
    if job["vision_checkpoint"]:
        names.append("timm_image")
        chosen |= {"model.timm_image.checkpoint_name": with_weights(Path(job["vision_checkpoint"]), folder),
                   "model.timm_image.image_size": job["image_size"]}
    return chosen | {"model.names": names + ["fusion_mlp"] * (len(names) > 1)}


def with_weights(checkpoint: Path, folder: Path) -> str:
    """A copy of a timm checkpoint with its weights in the one form that AutoGluon opens."""
    import torch
    from safetensors.torch import load_file

    copy = folder / "vision"
    copy.mkdir(exist_ok=True)
    shutil.copyfile(checkpoint / "config.json", copy / "config.json")
    torch.save(load_file(checkpoint / "model.safetensors"), copy / "pytorch_model.bin")
    return str(copy)


def curve(folder: Path) -> tuple[int, list[tuple[float, float]]]:
    """Optimiser steps, and (time, accuracy on validation) of every look at it, as Lightning's log has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    logged = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    steps = max((event.step for found in logged.values() for event in found), default=-1) + 1
    return steps, [(event.wall_time, event.value) for event in logged.get("val_accuracy", ())]


def latency(predictor, frame, products: int, rounds: int) -> dict[str, dict]:
    """{"batch 1" | "batch 32": {"p50_ms", "cpu_ms"}} of calls by AutoGluon's quickest way, photos decoded."""
    import numpy as np

    found = {}
    for size in BATCH_SIZES:
        whole = min(products, len(frame)) // size * size
        chunks = [frame.iloc[start : start + size] for start in range(0, whole, size)]
        seconds = []
        # As on the other side: the first two calls are not timed.
        for chunk in [*chunks[:2], *chunks * rounds]:
            start, used = time.perf_counter(), time.process_time()
            predictor.predict_proba(chunk, realtime=True)
            seconds.append((time.perf_counter() - start, time.process_time() - used))
        if chunks:
            wall, cpu = np.median(seconds[len(chunks[:2]) :], axis=0)
            found[f"batch {size}"] = {"p50_ms": round(1e3 * wall, 2), "cpu_ms": round(1e3 * cpu, 2)}
    return found


def cpu_seconds() -> float:
    """Of this process from its start, and of its workers that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
