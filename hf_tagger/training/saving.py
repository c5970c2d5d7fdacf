"""Writes the model folder of a run, with a record of what the model was made of."""

import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.calibration import store_attributes
from hf_tagger.evaluation.machine import describe_machine, package_versions
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.urls import without_credentials
from hf_tagger.training.context import RunContext
from hf_tagger.training.lora import save_adapter
from hf_tagger.training.phases import Training
from hf_tagger.training.whole import whole_folder, written_whole


def save_run(run: RunContext, training: Training) -> None:
    """Merges adapters into the model, in place, and writes the model folder; with `save_adapter` also the adapter by
    itself."""
    batches, main = training.batches, run.accelerator.is_main_process
    with run.log.step("saved") as step:
        step.result = str(run.folder)
        if training.adapter is not None:
            if run.settings.save_adapter and main:
                with whole_folder(run.folder / "adapter") as folder:
                    size = save_adapter(training.adapter, folder, run.folder / "base")
                    batches.processor.save_pretrained(folder)
                    store_attributes(folder, training.model.config.attributes)
                step.result += f", its adapter alone {size / 2**20:.1f} MiB"
            training.adapter.merge_and_unload(safe_merge=True)
            training.adapter = None
        if not main:
            return
        with written_whole(run.folder) as folder:
            # Through the pipeline: the folder then also opens where hf_tagger is not installed.
            ProductTaggingPipeline(training.model, processor=batches.processor).save_pretrained(folder)
            (folder / "training_config.yaml").write_text(
                without_credentials(yaml.safe_dump(run.data, sort_keys=False, allow_unicode=True)), encoding="utf-8")
            vocabulary = batches.data.vocabulary
            vocabulary.save(folder / "vocabulary.json")
            text = json.dumps(provenance(run, vocabulary, training.loop.progress.history), indent=1)
            (folder / "provenance.json").write_text(text + "\n", encoding="utf-8")


def provenance(run: RunContext, vocabulary: Vocabulary, history: list[dict[str, float]]) -> dict[str, Any]:
    """Data, code, versions, machine and time that made a model; history: its validations."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    return {
        "data_fingerprint": vocabulary.fingerprint,
        "rows": vocabulary.rows,
        "git_revision": git.stdout.strip() or None,
        "versions": package_versions(),
        "python": platform.python_version(),
        "machine": describe_machine(),
        "seconds": round(time.monotonic() - run.started),
        "processes": run.accelerator.num_processes,
        "mixed_precision": run.accelerator.mixed_precision,
        "validation": history,
    }
