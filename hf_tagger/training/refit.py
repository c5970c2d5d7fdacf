"""Fits heads, word evidence and exemplars again and again on frozen features: the towers run once, however many fits
there are."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import set_seed

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.towers import IMAGE, TEXT, TowerFeatures
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.build import set_trainable
from hf_tagger.training.exemplars import fit_exemplars, rarest_rows
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.loop import TrainingLoop, kept_tensors, load_kept
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.words import fit_words

if TYPE_CHECKING:
    from hf_tagger.training.run import FinetuneRun

ROWS_AT_ONCE = 256
# Where a configuration has no phase on cached features.
HEADS = PhaseSettings(name="heads", train=["heads"], cached_views=1, epochs=20, batch_size=128)


def heads_only(settings: RunSettings) -> RunSettings:
    """The run of which only heads and words are fitted: its first phase on cached features, no adapters, exemplars
    or decoder, and the words of texts as they are. Raises ConfigError for `attention` fusion."""
    if settings.model.fusion == "attention":
        raise ConfigError("model.fusion: attention needs token states, which stored features do not keep; "
                          "take another one here: --model.fusion concat")
    model = replace(settings.model, words=replace(settings.model.words, masked_view=False),
                    exemplars=replace(settings.model.exemplars, count=0), decoder=None)
    phase = next((phase for phase in settings.phases if phase.cached_views), HEADS)
    phase = replace(phase, train=["heads"], evaluate_every=0)
    return replace(settings, model=model, lora=None, phases=[phase], save_adapter=False)


class RefittedHeads:
    """Rows are the products of one or more splits, in the order of their stored features.

    Args:
        run: its catalogue prepared and its model built; every phase on cached features, as `heads_only` makes it. One
            process only.
        splits: whose products are stored.
        store, masked: in place of splits, stored features of the training split, and of its texts without the words of
            their own tags.

    `ids` and `tags` (as in a record) list the rows, `split_of` (str [N]) says where each is from, `tag_labels` is
    float [N, T].
    """

    def __init__(self, run: "FinetuneRun", splits: Sequence[str] = ("train",), store: FeatureLoader | None = None,
                 masked: FeatureLoader | None = None):
        if run.accelerator.num_processes > 1:
            raise ConfigError("heads are refitted by one process: start this recipe as one.")
        self.run, self.model = run, run.model
        self.phases = [replace(phase, train=["heads"]) for phase in run.settings.phases
                       if phase.cached_views and "heads" in phase.train]
        self._split_of: list[str] = []
        self._folder = None
        if store is None:
            self._folder = tempfile.TemporaryDirectory(prefix="features-")
            views = (self._view(view, splits) for view in range(self.phases[0].cached_views))
            store = store_features(self.model, views, Path(self._folder.name), 1, run.settings.seed)
        self._store, self._masked = store, masked
        self.ids, self.tags, self.tag_labels = store.ids, store.tags, store.tag_labels
        self.split_of = np.array(self._split_of or ["train"] * len(store.ids))
        self._start = {name: tensor.clone() for name, tensor in kept_tensors(self.model, set()).items()}

    def _view(self, view: int, splits: Sequence[str]) -> Iterator[dict[str, Any]]:
        run = self.run
        reader = replace(run.settings.training.loader, batch_size=run.settings.evaluation.batch_size)
        collator = run._augmenting_collator() if view else run._collator()
        for split in splits:
            for batch in run._loader(split, collator, reader).epoch(view):
                self._split_of += [split] * (len(batch["ids"]) if view == 0 else 0)
                yield batch

    def fit(self, rows: np.ndarray) -> None:
        """Fits words, heads and exemplars anew, from where they started, on these rows (int [n])."""
        run, settings, attributes = self.run, self.run.settings, self.model.config.attributes
        load_kept(self.model, self._start)
        set_seed(settings.seed)
        if self.model.words is not None and self._store.input_ids is not None:
            words = settings.model.words
            views = [[(1.0, self._texts(self._store, rows))]]
            if words.masked_view:
                views.append([(1.0, self._texts(self._store, rows)),
                              (words.masked_weight, self._texts(self._masked, rows))])
            fit_words(self.model.words.cpu(), attributes, self.model.candidate_attribute.cpu(), views, words)
            self.model.words.to(self.model.device)
        drawn = np.zeros(len(self.ids))
        drawn[rows] = np.array(self._store.repeats)[rows]
        loss = TaggingLoss(attributes, settings.training.loss)
        loop = TrainingLoop(run.accelerator, settings.training, loss, None, None, run.quarantine)
        for index, phase in enumerate(self.phases):
            size = phase.batch_size or settings.training.loader.batch_size
            loader = replace(self._store, batch_size=size, repeats=drawn.tolist())
            set_trainable(self.model, phase, run.adapted is not None)
            loop.run_phase(index, phase, self.model, loader, -(-len(rows) // size))
        if self.model.exemplars is not None:
            exemplars = settings.model.exemplars
            fit_exemplars(self.model.exemplars.cpu(), attributes,
                          exemplar_rows(self._store, self._masked, attributes, exemplars, rows), exemplars)
            self.model.exemplars.to(self.model.device)

    def _texts(self, store: FeatureLoader, rows: np.ndarray):
        return ((store.input_ids[part].long(), store.attention_mask[part].long(),
                 torch.from_numpy(self.tag_labels[part])) for part in _parts(rows))

    def _outputs(self, rows: np.ndarray, text: FeatureLoader | None, image: bool = True):
        """`TaggerOutput` of these rows [at most `ROWS_AT_ONCE`], read from `text` (None: without text) and photos."""
        device = self.model.device
        features = self._store.batch(rows.tolist(), [0] * len(rows))["features"]
        tokens = {}
        if text is not None and text.input_ids is not None:
            tokens = {"input_ids": text.input_ids[rows].long().to(device),
                      "attention_mask": text.attention_mask[rows].long().to(device)}
        if text is not None and text is not self._store:
            told = text.batch(rows.tolist(), [0] * len(rows))["features"]
            features = replace(features, text=told.text,
                               present=torch.stack([told.present[:, TEXT], features.present[:, IMAGE]], dim=1))
        shown = torch.tensor([text is not None, image])
        features = TowerFeatures(
            present=(features.present & shown).to(device),
            text=None if text is None or features.text is None else features.text.to(device),
            image=None if not image or features.image is None else features.image.to(device))
        return self.model(features=features, **tokens)

    @torch.no_grad()
    def scores(self, rows: np.ndarray, words: bool = True) -> np.ndarray:
        """Probabilities of tags, float [n, T], of these rows by the last fit, with or without the word evidence."""
        self.model.eval()
        tags = self.model.config.num_tags
        found = [np.zeros((0, tags), np.float32)]
        for part in _parts(rows):
            outputs = self._outputs(part, self._store)
            logits = outputs.tag_logits, outputs.none_logits
            if not words:
                logits = outputs.encoder_logits[:, :tags], outputs.encoder_logits[:, tags:]
            found.append(self.model.tag_scores(*logits).cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def pooled(self, rows: np.ndarray) -> np.ndarray:
        """Pooled vectors, float [n, H], of these rows by the last fit."""
        self.model.eval()
        found = [np.zeros((0, self.model.config.hidden_size), np.float32)]
        found += [self._outputs(part, self._store).pooled.float().cpu().numpy() for part in _parts(rows)]
        return np.concatenate(found)

    @torch.no_grad()
    def evidence(self, rows: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """What `fit_gate` reads, of these rows: as they are, without the words of their tags, without their text,
        without their photo."""
        self.model.eval()
        ways = [(self._store, True), (self._masked, True), (None, True), (self._store, False)]
        for text, image in ways if self._masked is not None else ways[:1] + ways[2:]:
            shown = torch.tensor([text is not None, image])
            for part in _parts(rows):
                there = ((text or self._store).present[0][part][:, TEXT] & bool(shown[TEXT])) | (
                    self._store.present[0][part][:, IMAGE] & bool(shown[IMAGE]))
                part = part[there]
                if len(part):
                    outputs = self._outputs(part, text, image)
                    yield (outputs.evidence, outputs.gate_features,
                           torch.from_numpy(self.tag_labels[part]).to(self.model.device))

    def out_of_fold(self, fold: np.ndarray) -> np.ndarray:
        """Probabilities [N, T] of every row by a fit on the rows of other folds (fold int [N])."""
        scores = np.zeros_like(self.tag_labels)
        for held_out in self._folds(fold):
            scores[held_out] = self.scores(held_out)
        return scores

    def out_of_fold_evidence(self, fold: np.ndarray, chosen: np.ndarray) -> Iterator[tuple[torch.Tensor, ...]]:
        """`evidence` of the chosen rows (bool [N]), each by a fit on the rows of other folds (fold int [N])."""
        for held_out in self._folds(fold):
            yield from self.evidence(held_out[chosen[held_out]])

    def _folds(self, fold: np.ndarray) -> Iterator[np.ndarray]:
        for number in np.unique(fold):
            self.run.say(f"fold {number + 1} of {fold.max() + 1}")
            self.fit(np.flatnonzero(fold != number))
            yield np.flatnonzero(fold == number)


def exemplar_rows(store: FeatureLoader, masked: FeatureLoader, attributes: list[dict], settings,
                  rows: np.ndarray | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """What `fit_exemplars` reads: products with text and photo, and the same without the words of their own tags, which
    make a photo look superfluous. Of more than `settings.count` the ones with the rarest tags."""
    both = store.present[0].all(1)
    if rows is not None:
        wanted = np.zeros(len(both), bool)
        wanted[rows] = True
        both &= wanted
    rows = np.flatnonzero(both)
    rows = rows[rarest_rows(torch.from_numpy(store.tag_labels[rows]), attributes, settings, settings.count // 2)]
    for part in _parts(rows):
        plain, told = (loader.batch(part.tolist(), [0] * len(part)) for loader in (store, masked))
        labels, image = plain["tag_labels"], plain["features"].image
        yield plain["features"].text, image, labels
        there = told["features"].present[:, TEXT]
        if bool(there.any()):
            yield told["features"].text[there], image[there], labels[there]


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start:start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
