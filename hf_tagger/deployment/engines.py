"""What answers requests: an exported tagger through onnxruntime, or a model folder through torch, behind one face."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hf_tagger.request_tagger import CLOSED_PARAMETERS, PARAMETERS
from hf_tagger.runtime import TAGGER, OnnxTagger


class Engine(Protocol):
    parameters: tuple[str, ...]  # options that a request may have

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises TypeError or ValueError for an option's value that is not understood."""

    def preprocess(self, product, **reading) -> dict[str, Any]:
        """Reads one product. Raises ProductError."""

    def tag(self, products: Sequence[dict[str, Any]], options: Sequence[Mapping[str, Any]]) -> list[list[dict]]:
        """Products of `preprocess`, with the options of each -> the tags of each."""


class ExportedEngine:
    """An `OnnxTagger`; torch is not imported."""

    parameters = CLOSED_PARAMETERS

    def __init__(self, folder: str | Path, threads: int | None = None):
        tagger = OnnxTagger(folder, threads)
        self.check, self.preprocess, self.tag = tagger.check, tagger.preprocess, tagger.tag


class TorchEngine:
    """A `ProductTaggingPipeline`, on the accelerator where there is one."""

    parameters = PARAMETERS

    def __init__(self, model: str, threads: int | None = None):
        import torch
        from transformers import pipeline

        if threads is not None:
            torch.set_num_threads(threads)
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        self.pipeline = pipeline("product-tagging", model=model, device=device)
        self.preprocess = self.pipeline.preprocess

    def check(self, options: Mapping[str, Any]) -> None:
        self.pipeline._sanitize_parameters(**options)
        if options.get("critic"):
            _ = self.pipeline.critic  # raises where there is none

    def tag(self, products: Sequence[dict[str, Any]], options: Sequence[Mapping[str, Any]]) -> list[list[dict]]:
        """One run of the model for all products but for those that ask for something else of it."""
        tagged: list[list[dict]] = [[] for _ in products]
        runs: dict[str, list[int]] = {}
        forwards = [self._forward_options(each) for each in options]
        for index, forward in enumerate(forwards):
            runs.setdefault(json.dumps(forward, sort_keys=True), []).append(index)
        for rows in runs.values():
            some = [products[index] for index in rows]
            output = self.pipeline.forward(self.pipeline.collate(some),
                                           languages=[each["language"] for each in some], **forwards[rows[0]])
            for place, index in enumerate(rows):
                listing = {name: options[index][name] for name in CLOSED_PARAMETERS if name in options[index]}
                each = [output[name][place] for name in ("scores", "chosen", "written")]
                tagged[index] = self.pipeline.postprocess(each, **listing)
        return tagged

    @staticmethod
    def _forward_options(options: Mapping[str, Any]) -> dict[str, Any]:
        """What the run of the model depends on: all of them where tags are written, else the critic alone."""
        names = [name for name in options if name != "top_k"] if options.get("free_form") else ["critic"]
        return {name: options[name] for name in names if name in options}


def open_engine(model: str, threads: int | None = None) -> Engine:
    """Raises ArtefactError for a damaged export, OSError where there is no model."""
    return ExportedEngine(model, threads) if Path(model, TAGGER).exists() else TorchEngine(model, threads)
