"""What answers requests: an exported tagger through onnxruntime, or a model folder through torch, used alike."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_tagger.model.handler import CLOSED_PARAMETERS, PARAMETERS
from hf_tagger.runtime import TAGGER, OnnxTagger


class Engine:
    """Runs the model for all products at once, but for those that ask for something else of it.

    Args:
        tagger: an `OnnxTagger` or a `ProductTaggingPipeline`.
        parameters: the options that a request may have.
        image_size: (height, width) in pixels that photos are resized to; None where none are read.
    """

    def __init__(self, tagger, parameters: tuple[str, ...], image_size: Sequence[int] | None):
        self.tagger, self.parameters = tagger, parameters
        self.photo_bytes = 3 * math.prod(image_size) if image_size else 0
        self.check, self.preprocess = tagger.check, tagger.preprocess

    def tag(self, products: Sequence[dict[str, Any]], options: Sequence[Mapping[str, Any]]) -> list[list[dict]]:
        """Products of `preprocess`, with the options of each -> the tags of each."""
        tagged: list[list[dict]] = [[] for _ in products]
        runs: dict[str, list[int]] = {}
        wanted = [_run_options(each) for each in options]
        for index, run in enumerate(wanted):
            runs.setdefault(json.dumps(run, sort_keys=True), []).append(index)
        for rows in runs.values():
            batch, languages = [products[index] for index in rows], [products[index]["language"] for index in rows]
            output = self.tagger.tag_batch(self.tagger.collate(batch), languages, **wanted[rows[0]])
            for index, row in zip(rows, zip(*output, strict=True), strict=True):
                listing = {name: options[index][name] for name in CLOSED_PARAMETERS if name in options[index]}
                tagged[index] = self.tagger.postprocess(row, **listing)
        return tagged


def _run_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a run of the model depends on; how closed tags are listed is no matter of the run."""
    names = [name for name in options if name != "top_k"] if options.get("free_form") else []
    return {name: options[name] for name in names if name in options}


def open_engine(model: str | Path, threads: int | None = None, device: Any = None) -> Engine:
    """An exported folder without importing torch; anything else through torch, on this device or, by default, on the
    accelerator where there is one.

    Raises ArtefactError for a damaged export, OSError where there is no model.
    """
    if Path(model, TAGGER).exists():
        tagger = OnnxTagger(model, threads)
        writes = tagger.description.get("decoder") is not None
        parameters = PARAMETERS if writes else CLOSED_PARAMETERS
        return Engine(tagger, parameters, tagger.image and tagger.image["size"])
    import torch
    from transformers import pipeline

    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    tagger = pipeline("product-tagging", model=str(model), device=device)
    return Engine(tagger, PARAMETERS, tagger.processor.image_size if tagger.processor.reads_images else None)
