"""Fits heads and word evidence again and again on frozen features: the towers run once, however many fits there are."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.build import set_trainable
from hf_tagger.training.features import store_features
from hf_tagger.training.loop import TrainingLoop, kept_tensors, load_kept
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.run import FinetuneRun
from hf_tagger.training.words import fit_words

ROWS_AT_ONCE = 256
# Where a configuration has no phase on cached features.
HEADS = PhaseSettings(name="heads", train=["heads"], cached_views=1, epochs=20, batch_size=128)


def heads_only(settings: RunSettings) -> RunSettings:
    """The run of which only heads and words are fitted: its first phase on cached features, no adapters, no exemplars,
    and the words of texts as they are. Raises ConfigError for `attention` fusion."""
    if settings.model.fusion == "attention":
        raise ConfigError("model.fusion: attention needs token states, which stored features do not keep; "
                          "take another one here: --model.fusion concat")
    model = replace(settings.model, words=replace(settings.model.words, masked_view=False),
                    exemplars=replace(settings.model.exemplars, count=0))
    phase = next((phase for phase in settings.phases if phase.cached_views), HEADS)
    return replace(settings, model=model, lora=None, phases=[replace(phase, evaluate_every=0)], save_adapter=False)


class RefittedHeads:
    """Rows are the products of one or more splits, in the order of their stored features.

    Args:
        run: of `heads_only` settings, its catalogue prepared and its model built. One process only.
        splits: whose products are stored.

    `ids` and `tags` (as in a record) list the rows, `split_of` (str [N]) says where each is from, `tag_labels` is
    float [N, T].
    """

    def __init__(self, run: FinetuneRun, splits: Sequence[str] = ("train",)):
        if run.accelerator.num_processes > 1:
            raise ConfigError("heads are refitted by one process: start this recipe as one.")
        self.run, self.model, self.phase = run, run.model, run.settings.phases[0]
        self.tags: list[dict] = []
        self._tokens: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._split_of: list[str] = []
        self._folder = tempfile.TemporaryDirectory(prefix="features-")
        views = (self._view(view, splits) for view in range(self.phase.cached_views))
        batch_size = self.phase.batch_size or run.settings.training.loader.batch_size
        self._store = store_features(self.model, views, Path(self._folder.name), batch_size, run.settings.seed)
        self.ids, self.tag_labels = self._store.ids, self._store.tag_labels
        self.split_of = np.array(self._split_of)
        self.input_ids, self.attention_mask = self._stack_tokens()
        self._start = {name: tensor.clone() for name, tensor in kept_tensors(self.model, set()).items()}

    def _view(self, view: int, splits: Sequence[str]) -> Iterator[dict[str, Any]]:
        run = self.run
        reader = replace(run.settings.training.loader, batch_size=run.settings.evaluation.batch_size)
        collator = run._augmenting_collator() if view else run._collator()
        loaders = {split: run._loader(split, collator, reader) for split in splits}
        if view:
            yield from chain.from_iterable(loader.epoch(view) for loader in loaders.values())
            return
        for split, loader in loaders.items():
            for batch in loader.epoch(view):
                if batch["ids"]:
                    none = torch.zeros(len(batch["ids"]), 1, dtype=torch.long)
                    self._tokens.append((batch.get("input_ids", none), batch.get("attention_mask", none)))
                    self._split_of += [split] * len(batch["ids"])
                    self.tags += batch["tags"]
                yield batch

    def _stack_tokens(self) -> tuple[torch.Tensor, torch.Tensor]:
        length = max((ids.shape[1] for ids, _ in self._tokens), default=1)
        stacked = [torch.cat([torch.nn.functional.pad(part, (0, length - part.shape[1])) for part in parts]).int()
                   for parts in zip(*self._tokens, strict=True)]
        self._tokens.clear()
        return stacked[0], stacked[1]

    def fit(self, rows: np.ndarray) -> None:
        """Fits heads and words anew, from where they started, on these rows (int [n])."""
        run, settings, wanted = self.run, self.run.settings, np.zeros(len(self.ids), bool)
        load_kept(self.model, self._start)
        set_seed(settings.seed)
        if self.model.words is not None:
            texts = ((self.input_ids[part].long(), self.attention_mask[part].long(),
                      torch.from_numpy(self.tag_labels[part])) for part in _parts(rows))
            fit_words(self.model.words.cpu(), self.model.config.attributes, self.model.candidate_attribute.cpu(),
                      [[(1.0, texts)]], settings.model.words)
            self.model.words.to(self.model.device)
        wanted[rows] = True
        loader = replace(self._store, repeats=wanted.astype(float).tolist())
        set_trainable(self.model, self.phase, lora=False)
        loss = TaggingLoss(self.model.config.attributes, settings.training.loss)
        loop = TrainingLoop(run.accelerator, settings.training, loss, None, Path(self._folder.name), run.quarantine)
        loop.run_phase(0, self.phase, self.model, loader, -(-len(rows) // loader.batch_size))

    @torch.no_grad()
    def scores(self, rows: np.ndarray, words: bool = True) -> np.ndarray:
        """Probabilities of tags, float [n, T], of these rows by the last fit, with or without the word evidence."""
        self.model.eval()
        device, found = self.model.device, [np.zeros((0, self.model.config.num_tags), np.float32)]
        for part in _parts(rows):
            batch = self._store.batch(part.tolist(), [0] * len(part))
            features = batch["features"]
            for name in ("present", "text", "image"):
                if getattr(features, name) is not None:
                    setattr(features, name, getattr(features, name).to(device))
            tokens = {}
            if words and self.model.words is not None:
                tokens = {"input_ids": self.input_ids[part].long().to(device),
                          "attention_mask": self.attention_mask[part].long().to(device)}
            outputs = self.model(features=features, **tokens)
            if words:
                logits = outputs.tag_logits, outputs.none_logits
            else:
                tags = self.model.config.num_tags
                logits = outputs.encoder_logits[:, :tags], outputs.encoder_logits[:, tags:]
            found.append(self.model.tag_scores(*logits).cpu().numpy())
        return np.concatenate(found)

    def out_of_fold(self, fold: np.ndarray) -> np.ndarray:
        """Probabilities [N, T] of every row by a fit on the rows of other folds (fold int [N])."""
        scores = np.zeros_like(self.tag_labels)
        for number in np.unique(fold):
            self.run.say(f"fold {number + 1} of {fold.max() + 1}")
            self.fit(np.flatnonzero(fold != number))
            held_out = np.flatnonzero(fold == number)
            scores[held_out] = self.scores(held_out)
        return scores


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start:start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
