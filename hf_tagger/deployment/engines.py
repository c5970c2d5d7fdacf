"""What answers requests: an exported tagger through onnxruntime, or a model folder through torch, used alike."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tagger.model.handler import CLOSED_PARAMETERS, PARAMETERS
from hf_tagger.runtime import TAGGER, OnnxTagger


class Engine:
    """Runs the model for all products at once, but for those that ask for something else of it.

    Subclasses have `parameters`, the options that a request may have; `runs_by`, those that a run depends on besides
    whether and how tags are written; check(options), which raises TypeError or ValueError for an option's value that is
    not understood; preprocess(product), which reads one product and raises ProductError; run(products, options); and
    postprocess(output, **options) -> tags.
    """

    parameters: tuple[str, ...]
    runs_by: tuple[str, ...] = ()

    def tag(self, products: Sequence[dict[str, Any]], options: Sequence[Mapping[str, Any]]) -> list[list[dict]]:
        """Products of `preprocess`, with the options of each -> the tags of each."""
        tagged: list[list[dict]] = [[] for _ in products]
        runs: dict[str, list[int]] = {}
        wanted = [self._run_options(each) for each in options]
        for index, run in enumerate(wanted):
            runs.setdefault(json.dumps(run, sort_keys=True), []).append(index)
        for rows in runs.values():
            outputs = self.run([products[index] for index in rows], wanted[rows[0]])
            for index, output in zip(rows, outputs, strict=True):
                listing = {name: options[index][name] for name in CLOSED_PARAMETERS if name in options[index]}
                tagged[index] = self.postprocess(output, **listing)
        return tagged

    def _run_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        names = [name for name in options if name != "top_k"] if options.get("free_form") else self.runs_by
        return {name: options[name] for name in names if name in options}


class ExportedEngine(Engine):
    """An `OnnxTagger`; torch is not imported."""

    def __init__(self, folder: str | Path, threads: int | None = None):
        self.tagger = OnnxTagger(folder, threads)
        self.check, self.preprocess = self.tagger.check, self.tagger.preprocess
        self.postprocess = self.tagger.postprocess
        writes = self.tagger.description.get("decoder") is not None
        self.parameters = tuple(name for name in PARAMETERS if name != "critic") if writes else CLOSED_PARAMETERS

    def run(self, products: Sequence[dict[str, Any]], options: Mapping[str, Any]) -> list:
        languages = [product["language"] for product in products]
        output = self.tagger.tag_batch(self.tagger.collate(products), languages, **options)
        return list(zip(*output, strict=True))


class TorchEngine(Engine):
    """A `ProductTaggingPipeline`, on the accelerator where there is one."""

    parameters = PARAMETERS
    runs_by = ("critic",)

    def __init__(self, model: str, threads: int | None = None):
        import torch
        from transformers import pipeline

        if threads is not None:
            torch.set_num_threads(threads)
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        self.pipeline = pipeline("product-tagging", model=model, device=device)
        self.preprocess, self.postprocess = self.pipeline.preprocess, self.pipeline.postprocess

    def check(self, options: Mapping[str, Any]) -> None:
        self.pipeline._sanitize_parameters(**options)
        if options.get("critic"):
            _ = self.pipeline.critic  # raises where there is none

    def run(self, products: Sequence[dict[str, Any]], options: Mapping[str, Any]) -> list:
        languages = [product["language"] for product in products]
        output = self.pipeline.forward(self.pipeline.collate(products), languages=languages, **options)
        return list(zip(*(output[name] for name in ("scores", "chosen", "written")), strict=True))


def open_engine(model: str, threads: int | None = None) -> Engine:
    """Raises ArtefactError for a damaged export, OSError where there is no model."""
    return ExportedEngine(model, threads) if Path(model, TAGGER).exists() else TorchEngine(model, threads)
