"""An exported tagger through onnxruntime: `pipeline("product-tagging")` without torch or transformers.

    from hf_tagger.runtime import OnnxTagger

    tagger = OnnxTagger("runs/my-shop/onnx")
    tagger({"title": "Linen shirt", "image": "photos/1001.jpg"})

`recipes/export.py` writes the folder: `model.onnx` (the towers and all that scores closed tags), `tokenizer.json`,
`tagger.json` (attributes with their calibration and thresholds, preprocessing, fingerprints), and of a decoder what
`runtime/decoder.py` says.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from hf_tagger import UserError
from hf_tagger.model.decisions import best_first, list_tags, predicted_tags, tag_scores
from hf_tagger.model.images import read_pixels
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.model.products import (
    FREE_FORM_OPTIONS,
    check_free_form,
    check_needless,
    check_options,
    collate,
    read_product,
    tag_inputs,
)
from hf_tagger.model.saving import FormatError, check_format
from hf_tagger.runtime.decoder import SEARCH_OPTIONS, STATES, TAG_TOKENIZER, OnnxWriter, check_greedy

try:
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError:  # the file also ships with models that nobody runs by it
    onnxruntime = None

TAGGER, MODEL, TOKENIZER = "tagger.json", "model.onnx", "tokenizer.json"
READING = ("allow_urls", "allow_private_addresses", "on_error")
OPTIONS = ("top_k", "threshold", "attributes", *READING, *FREE_FORM_OPTIONS)


class ArtefactError(UserError, ValueError):
    """A folder that is no exported tagger, a damaged one, or one made from another model."""


class OnnxTagger:
    """Tags products as `ProductTaggingPipeline` does: the same inputs, tags and options, but for free-form tags
    by any search but the greedy one.

    Args:
        folder: what `recipes/export.py` wrote.
        threads: of the engine that runs the graph; default: all cores.
        model: the fingerprint of the model it must have been made from, see `model_fingerprint`; None: any.

    Raises:
        ArtefactError: no exported tagger, one of another format, a file that is not the one exported, or one made from
            another model.
    """

    def __init__(self, folder: str | Path, threads: int | None = None, model: str | None = None):
        if onnxruntime is None:
            raise ImportError("an exported tagger runs through onnxruntime: pip install 'hf_tagger[onnx]'")
        folder = Path(folder)
        self.description = read_description(folder)
        made_from = self.description["model"]
        if model is not None and model != made_from:
            raise ArtefactError(f"{folder} was exported from another model (fingerprint {made_from[:12]}, wanted "
                                f"{model[:12]}): export this one with recipes/export.py")
        self.attributes = self.description["attributes"]
        self.text, self.image = self.description["text"], self.description["image"]
        self.tokenizer = self._tokenizer(folder / TOKENIZER) if self.text else None
        lexical = self.description["lexical"]
        self.lexical_features = None if lexical is None else LexicalFeatures(**lexical)
        self.folder, self.threads = folder, threads
        self.session = self._open_session(folder / MODEL)

    def __reduce__(self):
        return type(self), (self.folder, self.threads)  # a copy opens the folder itself

    def _open_session(self, path: Path) -> "onnxruntime.InferenceSession":
        options = onnxruntime.SessionOptions()
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def _tokenizer(self, path: Path) -> "Tokenizer":
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.enable_truncation(self.text["max_length"])
        tokenizer.enable_padding(pad_id=self.text["pad_id"], pad_token=self.text["pad_token"],
                                 pad_type_id=self.text["pad_type_id"])
        return tokenizer

    @cached_property
    def writer(self) -> OnnxWriter:
        """What writes free-form tags, opened when it is first asked for.

        Raises ValueError where the model has no decoder.
        """
        if self.description.get("decoder") is None:
            raise ValueError(f"{self.folder} has no decoder to write free-form tags with: export a model that has one")
        tokenizer = Tokenizer.from_file(str(self.folder / TAG_TOKENIZER))
        tokenizer.encode_special_tokens = True  # what looks like a special token in a tag is plain characters
        return OnnxWriter(self.folder, self.description, self._open_session, tokenizer, self.tokenizer)

    def __call__(self, inputs, *, batch_size: int = 32, num_workers: int = 1, **options):
        """As the pipeline: a product gives its tags, a list of products a list, a stream an iterator."""
        self.check(options)
        groups = (READING, ("threshold", "attributes", *FREE_FORM_OPTIONS, "max_new_tokens"),
                  ("top_k", "threshold", "attributes"))
        wanted = [{name: options[name] for name in group if name in options} for group in groups]
        return tag_inputs(self, inputs, wanted, num_workers, batch_size)

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises TypeError for an unknown option and ValueError for a value that is not understood."""
        known = [entry["name"] for entry in self.attributes]
        if options.get("free_form"):
            check_greedy({name: value for name, value in options.items() if name in SEARCH_OPTIONS})
            check_free_form(options, self.writer.decoder)
            known += [name for name in self.writer.decoder["attributes"] if name not in known]
        else:
            check_needless(options, SEARCH_OPTIONS)
        check_options({name: value for name, value in options.items() if name not in SEARCH_OPTIONS}, OPTIONS, known)

    def preprocess(self, product, position: int | None = None, **reading) -> dict[str, Any]:
        """One product -> what `read_product` gives, as the pipeline's `preprocess`."""
        pixels = partial(read_pixels, size=self.image and tuple(self.image["size"]))
        return read_product(product, self.text is not None, self.image is not None, pixels, position, **reading)

    def tag_batch(
        self, batch: Mapping[str, np.ndarray], languages: Sequence[str | None], free_form: bool = False,
        language: str | None = None, attributes: Sequence[str] | None = None, threshold: float | None = None,
        min_score: float | None = None, **writing,
    ) -> tuple[np.ndarray, np.ndarray, list[list[dict[str, Any]]]]:
        """`collate`'s arrays and the products' languages -> calibrated scores float32 and the tags chosen, bool, [B, T]
        each, and with `free_form` what is written of each product; options as of the pipeline."""
        feed = self.feed(**batch)
        if not free_form:
            scores, chosen = self.decide(self.session.run(["logits"], feed)[0])
            return scores, chosen, [[] for _ in scores]
        writer = self.writer
        names = [output.name for output in self.session.get_outputs() if output.name in ("logits", *STATES)]
        outputs = dict(zip(names, self.session.run(names, feed), strict=True))
        scores, chosen = self.decide(outputs["logits"])
        written = writer(writer.remember(feed, outputs, scores), languages, scores, attributes, language=language,
                         min_score=threshold if min_score is None else min_score, **writing)
        return scores, chosen, written

    def postprocess(self, row, top_k: int | None = None, threshold: float | None = None,
                    attributes: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row of what `tag_batch` gives -> the product's tags, best first."""
        scores, chosen, written = row
        tags = list_tags(self.attributes, scores.tolist(), chosen.tolist(), threshold, attributes)
        return best_first(tags, written)[:top_k]

    def collate(self, products: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """What `read_product` gave -> the tensors of `TaggerProcessor`, as numpy arrays."""
        return collate([product["text"] for product in products], [product["photos"] for product in products],
                       self._encode if self.text else None, self.image, self.lexical_features)

    def _encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        encoded = self.tokenizer.encode_batch([self.text["prefix"] + text for text in texts])
        return [each.ids for each in encoded], [each.attention_mask for each in encoded]

    def logits(self, **batch: np.ndarray) -> np.ndarray:
        """The processor's arrays, those of a modality together or not at all -> float32 [B, T + A], "none" of each
        attribute last."""
        return self.session.run(["logits"], self.feed(**batch))[0]

    def feed(self, input_ids=None, attention_mask=None, pixel_values=None, pixel_mask=None,
             **lexical: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the graph: towers see only the rows that have something for them."""
        size = len(input_ids if input_ids is not None else pixel_mask)
        present = np.zeros((size, 2), bool)
        feed: dict[str, np.ndarray] = {}
        if self.text:
            if input_ids is not None:
                present[:, 0] = attention_mask.any(1)
            rows = present[:, 0].nonzero()[0]
            if len(rows):
                feed |= {"input_ids": input_ids[rows], "attention_mask": attention_mask[rows]}
            else:  # The graph wants a text: two tokens that are then passed over cost next to nothing.
                rows, empty = np.zeros(1, np.int64), np.ones((1, 2), np.int64)
                feed |= {"input_ids": empty, "attention_mask": empty}
            feed["text_rows"] = rows
        if self.image:
            if pixel_mask is None:
                pixel_mask = np.zeros((size, 0), bool)
                pixel_values = np.zeros((0, 3, *self.image["size"]), np.float32)
            present[:, 1] = pixel_mask.any(1)
            feed |= {"pixel_values": pixel_values, "photo_rows": pixel_mask.nonzero()[0]}
        feed["present"] = present
        if self.lexical_features is not None:
            feed |= lexical or self.lexical_features([None] * size)
        return feed

    def decide(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits [B, T + A] -> calibrated probabilities float32 and the tags chosen, bool, [B, T] each."""
        scores = tag_scores(self.attributes, logits)
        return scores, predicted_tags(self.attributes, scores)


def read_description(folder: Path) -> dict[str, Any]:
    """`tagger.json` of an exported tagger, after every file was found to be the one exported."""
    try:
        description = json.loads((folder / TAGGER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder} is no exported tagger ({error}): write one with recipes/export.py") from error
    try:
        check_format(description.get("format"), folder / TAGGER, "export the model again")
    except FormatError as error:
        raise ArtefactError(str(error)) from error
    for name, fingerprint in description["files"].items():
        path = folder / name
        if not path.is_file() or file_fingerprint(path) != fingerprint:
            raise ArtefactError(f"{path} is {'not the file exported' if path.is_file() else 'missing'}: copy the whole "
                                "folder again, or export the model again")
    return description


def file_fingerprint(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_fingerprint(folder: str | Path) -> str:
    """Tells a saved model from any other: SHA-256 over its weights and its attributes with their calibration."""
    folder, found = Path(folder), hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        found.update(file_fingerprint(path).encode())
    if (folder / "config.json").exists():  # an adapter folder has none
        attributes = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("attributes")
        found.update(json.dumps(attributes, sort_keys=True).encode())
    return found.hexdigest()


__all__ = ["ArtefactError", "OnnxTagger", "file_fingerprint", "model_fingerprint"]
