"""A whole tagger as one ONNX graph beside the tables and the description that `hf_tagger.runtime` runs it by; a decoder
is two graphs more."""

import copy
import json
from pathlib import Path

import torch
from torch import nn

from hf_tagger import UserError
from hf_tagger.deployment.export_decoder import export_decoder, export_graph, label_vectors, place_in_file
from hf_tagger.model.lexical_features import NAME_FEATURES
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.model.saving import FORMAT
from hf_tagger.model.towers import TowerFeatures
from hf_tagger.runtime import MODEL, TAGGER, TOKENIZER, file_fingerprint
from hf_tagger.runtime.decoder import DECODER, MEMORY, STATES, TAG_TOKENIZER

GRAPHS = (MODEL, MEMORY, DECODER)
FILES = (*(f"{name}{end}" for name in GRAPHS for end in ("", ".data")), TOKENIZER, TAG_TOKENIZER)
# Rows, tokens, terms and matches of the example that is traced; all differ, so that no two sizes are taken for one.
_BATCH, _TEXTS, _TOKENS, _TERMS, _NAMES = 5, 3, 7, 11, 9
_PHOTO_ROWS = [0, 0, 2, 3]


class ExportError(UserError, ValueError):
    """A model that has no ONNX graph; the message names the part."""


class TaggerGraph(nn.Module):
    """`TaggerModel.forward` in evaluation mode as tensors in, logits out: which rows have which modality comes as row
    numbers, where the model looks for itself. What the model calls takes sizes from `shape`: to tracing, `len` is a
    constant, and torch would have to start again in its slower, strict way."""

    def __init__(self, model: TaggerModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids=None, attention_mask=None, text_rows=None, pixel_values=None, photo_rows=None,
                present=None, lexical_ids=None, lexical_weights=None, name_ids=None, name_weights=None):
        """
        Args:
            input_ids, attention_mask: int64 [R, L], texts of the products `text_rows` int64 [R].
            pixel_values: [N, 3, H, W], photos of the products `photo_rows` int64 [N].
            present: bool [B, 2], which of text and photo each product has; the text of one without is passed over.
            lexical_ids, lexical_weights, name_ids, name_weights: as of `TaggerModel`.

        Returns logits [B, C] and, where the model has a decoder, what it needs beside: those `STATES` that there are.
        """
        model, encoder, batch = self.model, self.model.encoder, present.shape[0]
        text = image = None
        states: dict[str, torch.Tensor | None] = {}
        if input_ids is not None:
            text, states["text_states"] = encoder.read_texts(input_ids, attention_mask, text_rows, batch)
        if pixel_values is not None:
            image, states["image_states"] = encoder.read_photos(pixel_values, photo_rows, batch,
                                                                model.decoder is not None)
        encoded = encoder(features=TowerFeatures(present=present, text=text, image=image))
        lexical = (lexical_ids, lexical_weights, name_ids, name_weights)
        logits = model.fuse(encoded, model.score(encoded.pooled, encoded.modality_pooled, present), lexical)[0]
        if model.decoder is None:
            return logits
        states |= {"pooled": encoded.pooled, "modality_pooled": encoded.modality_pooled}
        return logits, *(states[name] for name in STATES if name in states)


def export_tagger(model: TaggerModel, processor: TaggerProcessor, folder: str | Path, fingerprint: str) -> Path:
    """Writes the model in float32 to `folder`; the model itself is not changed.

    Args:
        model: without adapters (the pipeline merges those of an adapter folder as it opens it).
        fingerprint: `runtime.model_fingerprint` of the saved model.

    Raises:
        ExportError: attention fusion or a recurrent text tower, which the graph does not cover, or a part with an
            operator that ONNX has not.
    """
    _check(model)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    inputs, dynamic = example(model, processor.image_size if processor.reads_images else None)
    model = copy.deepcopy(model).float().eval()
    try:
        export_graph(TaggerGraph(model), inputs, dynamic, list(inputs), outputs(model), folder / MODEL)
        if model.decoder is not None:
            export_decoder(model, processor, folder)
    except OSError:  # of the disk, not of the graph
        raise
    except Exception as error:  # torch.onnx's own classes say which operator, in lines of text
        raise ExportError(f"{type(model.encoder).__name__} has no ONNX graph: {_cause(error)}") from error
    if processor.reads_text:
        processor.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
    write_description(folder, {"model": fingerprint, "precision": "float32", **describe(model, processor)})
    return folder


def outputs(model: TaggerModel) -> list[str]:
    """Names of what a `TaggerGraph` of this model returns."""
    config = model.config
    absent = {"text_states": config.text_config is None, "image_states": config.vision_config is None}
    return ["logits", *(name for name in STATES if model.decoder is not None and not absent.get(name))]


def example(model: TaggerModel, image_size: tuple[int, int] | None) -> tuple[dict, dict]:
    """Inputs of a `TaggerGraph` of this model, and which of their sizes may vary."""
    config, varies = model.config, torch.export.Dim.DYNAMIC
    reads_text, reads_photos = config.text_config is not None, config.vision_config is not None
    inputs = {}
    if reads_text:
        inputs |= {"input_ids": torch.randint(3, config.text_config.vocab_size, (_TEXTS, _TOKENS)),
                   "attention_mask": torch.ones(_TEXTS, _TOKENS, dtype=torch.long),
                   "text_rows": torch.arange(_TEXTS)}
    if reads_photos:
        inputs |= {"pixel_values": torch.randn(len(_PHOTO_ROWS), 3, *image_size),
                   "photo_rows": torch.tensor(_PHOTO_ROWS)}
    inputs["present"] = torch.ones(_BATCH, 2, dtype=torch.bool)
    if model.lexical_head is not None:
        buckets, names = max(1, config.lexical_buckets), NAME_FEATURES * config.num_tags
        inputs |= {"lexical_ids": torch.randint(buckets, (_BATCH, _TERMS)),
                   "lexical_weights": torch.ones(_BATCH, _TERMS),
                   "name_ids": torch.randint(names, (_BATCH, _NAMES)), "name_weights": torch.ones(_BATCH, _NAMES)}
    wide = ("input_ids", "attention_mask", "lexical_ids", "lexical_weights", "name_ids", "name_weights")
    dynamic = {name: {0: varies, 1: varies} if name in wide else {0: varies} for name in inputs}
    return inputs, dynamic


def describe(model: TaggerModel, processor: TaggerProcessor) -> dict:
    """What `OnnxTagger` must know beside the graph: attributes with calibration and thresholds, preprocessing."""
    config, text, image = model.config, None, None
    if processor.reads_text:
        tokenizer = processor.tokenizer
        text = {"prefix": processor.text_prefix, "max_length": processor.max_length, "pad_id": tokenizer.pad_token_id,
                "pad_token": tokenizer.pad_token, "pad_type_id": tokenizer.pad_token_type_id}
    if processor.reads_images:
        photos = processor.image_processor
        image = {"size": list(processor.image_size), "mean": list(photos.image_mean), "std": list(photos.image_std)}
    found = {"attributes": config.attributes, "text": text, "image": image, "lexical": config.lexical_features}
    if model.decoder is not None:
        found |= {"decoder": config.decoder, "label_vectors": label_vectors(model, processor)}
    return found


def write_description(folder: Path, description: dict) -> None:
    """`tagger.json`, with the fingerprints of the files beside it and where in them token embeddings lie."""
    files = {name: file_fingerprint(folder / name) for name in FILES if (folder / name).exists()}
    if (vectors := description.get("label_vectors")) is not None:
        description["label_vectors"] = vectors | place_in_file(folder / vectors["graph"], vectors["name"])
    text = json.dumps({"format": FORMAT, **description, "files": files}, indent=1, ensure_ascii=False)
    (folder / TAGGER).write_text(text + "\n", encoding="utf-8")


def size_mb(folder: Path) -> float:
    """Megabytes (10^6 bytes) of an exported tagger."""
    return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6


def _check(model: TaggerModel) -> None:
    config = model.config
    if config.fusion == "attention":
        raise ExportError("attention fusion is not exported: train with concat or late")
    if config.text_config is not None and config.text_config.model_type == "tagger_recurrent":
        raise ExportError("the recurrent text tower (encoder.text_tower.rnn) is not exported: its packed sequences "
                          "have no ONNX operator; use a transformer text tower")


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
