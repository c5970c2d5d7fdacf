"""The simplest rival of all heads: one logistic regression per attribute on all features side by side."""

from dataclasses import replace

import numpy as np
import torch

from frozen_bench import ALONE, Bench, Said, in_turns, model_change
from hf_tagger.catalog.batching.tag_labels import TagLabels
from hf_tagger.model.heads import LexicalHead, LogitFusion
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.features import FeatureLoader
from hf_tagger.training.heads.lexical import SparseRows, fit_table
from hf_tagger.training.settings import LexicalSettings

AXES = 512


def rival(bench: Bench, settings: RunSettings) -> Said:
    """One logistic regression per attribute on all features side by side, as further columns of a lexical head."""
    heads = bench.heads(model_change(lexical=LexicalSettings(word_ngrams=2, name_match=False))(
        ALONE["lexical_head"](settings)))
    config, attributes = heads.model.config, heads.model.config.attributes
    words = LexicalFeatures(**config.lexical_features)
    head, dense = LexicalHead(config), _Dense(bench)
    wide = torch.nn.EmbeddingBag(config.lexical_buckets + dense.width, len(heads.model.candidate_attribute), mode="sum")
    head.table, head.idf = wide, torch.ones(config.lexical_buckets + dense.width)
    known = {}

    def rows_in(way: str, rows: np.ndarray) -> SparseRows:
        text, image = bench.ways[way]
        texts = (((text.texts[row] or "") if text else "", bench.plain.tag_labels[row]) for row in rows)
        found = SparseRows.of_texts(words, attributes, texts)
        if "idf" in known:
            found.value *= torch.from_numpy(known["idf"] / found.idf)[found.bucket]
        return replace(found, dense=dense(text, image, rows))

    def fit(rows: np.ndarray) -> None:
        head.reset()
        known.pop("idf", None)
        dense.fit(rows)
        views = [rows_in(way, rows) for way in bench.ways]
        known["idf"] = views[0].idf
        joined = {name: torch.cat([getattr(view, name) for view in views])
                  for name in ("terms", "bucket", "value", "matches", "match_id", "match_value", "dense")}
        joined["labels"] = TagLabels.joined(attributes, [view.labels for view in views])
        fit_table(head, attributes, SparseRows(**joined, idf=views[0].idf), LexicalSettings(iterations=100))

    @torch.no_grad()
    def listen(rows: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        found = {}
        for way in bench.ways:
            view = rows_in(way, rows)
            found_words = torch.sparse_coo_tensor(torch.stack([view.row, view.bucket]), view.value,
                                                  (len(rows), config.lexical_buckets))
            of_words, of_dense = head.table.weight.split([config.lexical_buckets, dense.width])
            logits = found_words @ of_words + view.dense @ of_dense + head.bias.weight[:, 0]
            found[way] = logits, torch.zeros(len(rows), len(attributes), LogitFusion.FEATURES).index_fill_(
                2, torch.tensor([0]), 1.0)
        return found

    return in_turns(bench, settings.seed, fit, listen)


class _Dense:
    """Frozen text features and principal axes of photo features, each of unit mean length."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.text_width = bench.plain.text[0].shape[1] if bench.plain.text else 0
        self.image_width = min(AXES, bench.plain.image[0].shape[1]) if bench.plain.image else 0
        self.width = self.text_width + self.image_width

    def fit(self, rows: np.ndarray) -> None:
        plain = self.bench.plain
        if self.text_width:
            self.text = _scale(torch.from_numpy(plain.text[0][rows].astype(np.float32)))
        if self.image_width:
            features = torch.from_numpy(plain.image[0][rows].astype(np.float32))
            self.image = _scale(features)
            centred = _scaled(features, self.image)
            self.axes = torch.linalg.eigh(centred.T @ centred)[1][:, -self.image_width:]
            self.length = (centred @ self.axes).norm(dim=1).mean()

    def __call__(self, text: FeatureLoader | None, image: bool, rows: np.ndarray) -> torch.Tensor:
        """[n, width]; zeros for what is not there."""
        parts = []
        if self.text_width:
            found = torch.zeros(len(rows), self.text_width)
            if text is not None:
                features = _scaled(torch.from_numpy(text.text[0][rows].astype(np.float32)), self.text)
                found = features / self.text_width**0.5 * torch.from_numpy(text.present[0][rows, :1])
            parts.append(found)
        if self.image_width:
            found = torch.zeros(len(rows), self.image_width)
            if image:
                features = torch.from_numpy(self.bench.plain.image[0][rows].astype(np.float32))
                found = _scaled(features, self.image) @ self.axes / self.length
                found = found * torch.from_numpy(self.bench.plain.present[0][rows, 1:])
            parts.append(found)
        return torch.cat(parts, dim=1)


def _scale(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.mean(0), features.std(0).clamp(min=1e-4)


def _scaled(features: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return ((features - scale[0]) / scale[1]).clamp(-6, 6)
