"""Fits all heads repeatedly on frozen features: the towers run only once."""

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from hf_tagger.catalog.quarantine import Quarantine
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.towers import IMAGE, TEXT, TowerFeatures
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_scales, set_trainable
from hf_tagger.training.checkpoint import copied_heads, load_kept
from hf_tagger.training.context import RunContext
from hf_tagger.training.data import TrainingData
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.frozen_heads import fit_kernel_on, fit_lexical_on, parts_of
from hf_tagger.training.heads.folds import stratified_folds
from hf_tagger.training.heads.logit_fusion import SourceRows
from hf_tagger.training.loop import TrainingLoop
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.phases import Training
from hf_tagger.training.starting_model import starting_model

# Where a configuration has no phase on cached features.
HEADS = PhaseSettings(name="heads", train=["heads"], cached_views=1, epochs=20, batch_size=128)


def heads_only(settings: RunSettings) -> RunSettings:
    """The same run with heads alone: one phase on cached features, no adapters, kernel head or decoder. Raises
    ConfigError for `attention` fusion."""
    if settings.model.fusion == "attention":
        raise ConfigError("model.fusion: attention needs token states, which stored features do not keep; "
                          "take another one here: --model.fusion concat")
    model = replace(settings.model, kernel=replace(settings.model.kernel, landmarks=0), decoder=None)
    phase = next((phase for phase in settings.phases if phase.cached_views), HEADS)
    phase = replace(phase, train=["heads"], evaluate_every=0)
    return replace(settings, model=model, lora=None, phases=[phase], save_adapter=False)


class RefittedHeads:
    """Rows are products, in the order of their stored features.

    Args:
        run: of one process; every phase on cached features, as `heads_only` makes it.
        batches: of the model, which is changed in place.
        store: features of the products; masked: of their texts without the words of their own tags (None: not known).

    `ids` and `tags` (as in a record) list the rows, `tag_labels` is `TagLabels` [N, T], `split_of` (str [N]) says where
    each is from.
    """

    def __init__(self, run: RunContext, batches: Batches, store: FeatureLoader, masked: FeatureLoader | None = None):
        if run.accelerator.num_processes > 1:
            raise ConfigError("heads are refitted by one process: start this recipe as one.")
        self.run, self.batches, self.model = run, batches, batches.model
        self.phases = [replace(phase, train=["heads"]) for phase in run.settings.phases
                       if phase.cached_views and "heads" in phase.train]
        self.plain, self.masked = store, masked
        self.ids, self.tags, self.tag_labels = store.ids, store.tags, store.tag_labels
        self.split_of = np.array(["train"] * len(store.ids))
        self._start = copied_heads(self.model)

    @classmethod
    def of_splits(cls, run: RunContext, data: TrainingData, splits: Sequence[str] = ("train",)) -> "RefittedHeads":
        """Of a new model, on the products of these splits; runs its towers over them."""
        batches, split_of = Batches(data, *starting_model(run, data)), []

        def look(view: int):
            for split in splits:
                for batch in batches.view(view, split):
                    split_of.extend([split] * (len(batch["ids"]) if view == 0 else 0))
                    yield batch

        folder = tempfile.TemporaryDirectory(prefix="features-")
        views = (look(view) for view in range(run.settings.phases[0].cached_views))
        heads = cls(run, batches, store_features(batches.model, views, Path(folder.name), 1, run.settings.seed))
        heads.split_of = np.array(split_of)
        # The folder is there as long as features are read from it.
        weakref.finalize(heads, folder.cleanup)
        return heads

    def fit(self, rows: np.ndarray) -> None:
        """Fits all heads anew, from where they started, on these rows (int [n])."""
        load_kept(self.model, self._start)
        set_scales(self.model, self.run.settings.model, self.plain.sample())
        set_seed(self.run.settings.seed)
        self.fit_lexical_head(rows)
        self.fit_tag_head(rows)
        self.fit_kernel_head(rows)

    def fit_lexical_head(self, rows: np.ndarray) -> None:
        """The lexical head alone, if the model has one."""
        settings = self.run.settings
        if self.model.lexical_head is not None:
            texts = ((self.plain.texts[row], self.tag_labels[row]) for row in rows if self.plain.texts[row])
            fit_lexical_on(self.model, texts, settings.model.lexical)

    def fit_tag_head(self, rows: np.ndarray) -> None:
        """Fusion and tag head alone, from where they are."""
        run, settings = self.run, self.run.settings
        drawn = np.zeros(len(self.ids))
        drawn[rows] = np.array(self.plain.repeats)[rows]
        loss = TaggingLoss(self.model.config.attributes, settings.training.loss)
        loop = TrainingLoop(run.accelerator, settings.training, loss, None, None, Quarantine(None))
        for index, phase in enumerate(self.phases):
            size = phase.batch_size or settings.training.loader.batch_size
            loader = replace(self.plain, batch_size=size, repeats=drawn.tolist())
            set_trainable(self.model, phase, lora=False)
            loop.run_phase(index, phase, self.model, loader, -(-len(rows) // size))

    def fit_kernel_head(self, rows: np.ndarray) -> None:
        """The kernel head alone, if the model has one."""
        settings = self.run.settings
        if self.model.kernel_head is not None:
            fit_kernel_on(self.model, self.plain, self.masked, settings.model.kernel, rows)

    def outputs(self, rows: np.ndarray, text: FeatureLoader | None, image: bool = True):
        """`TaggerOutput` of these rows [at most `ROWS_AT_ONCE`], read from `text` (None: without text) and photos."""
        device = self.model.device
        features = self.plain.batch(rows.tolist(), [0] * len(rows))["features"]
        words = {}
        if text is not None and self.model.lexical_head is not None:
            words = self.batches.processor.lexical_features([text.texts[row] for row in rows])
            words = {name: tensor.to(device) for name, tensor in words.items()}
        if text is not None and text is not self.plain:
            other = text.batch(rows.tolist(), [0] * len(rows))["features"]
            features = replace(features, text=other.text,
                               present=torch.stack([other.present[:, TEXT], features.present[:, IMAGE]], dim=1))
        shown = torch.tensor([text is not None, image])
        features = TowerFeatures(
            present=(features.present & shown).to(device),
            text=None if text is None or features.text is None else features.text.to(device),
            image=None if not image or features.image is None else features.image.to(device))
        return self.model(features=features, **words)

    @torch.no_grad()
    def scores(self, rows: np.ndarray, words: bool = True) -> np.ndarray:
        """Probabilities of tags, float [n, T], of these rows by the last fit, with or without the lexical head."""
        self.model.eval()
        tags = self.model.config.num_tags
        found = [np.zeros((0, tags), np.float32)]
        for part in parts_of(rows):
            outputs = self.outputs(part, self.plain)
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
        found += [self.outputs(part, self.plain).pooled.float().cpu().numpy() for part in parts_of(rows)]
        return np.concatenate(found)

    @torch.no_grad()
    def source_rows(self, rows: np.ndarray) -> Iterator[SourceRows]:
        """These products as they are, without the words of their tags, without text, without photo."""
        self.model.eval()
        ways = {"": (self.plain, True), "words": (self.masked, True), "text": (None, True),
                "image": (self.plain, False)}
        for hidden, (text, image) in ways.items():
            if hidden == "words" and text is None:
                continue
            shown = torch.tensor([text is not None, image])
            for part in parts_of(rows):
                there = ((text or self.plain).present[0][part][:, TEXT] & bool(shown[TEXT])) | (
                    self.plain.present[0][part][:, IMAGE] & bool(shown[IMAGE]))
                part = part[there]
                if len(part):
                    outputs = self.outputs(part, text, image)
                    labels = torch.from_numpy(self.tag_labels[part]).to(self.model.device)
                    yield SourceRows(outputs.source_logits, outputs.fusion_features, labels, hidden,
                                     [self.ids[row] for row in part], [self.tags[row] for row in part])

    def out_of_fold(self, fold: np.ndarray) -> np.ndarray:
        """Probabilities [N, T] of every row by a fit on the rows of other folds (fold int [N])."""
        scores = np.zeros(self.tag_labels.shape, np.float32)
        for held_out in self._folds(fold):
            scores[held_out] = self.scores(held_out)
        return scores

    def out_of_fold_rows(self, fold: np.ndarray, chosen: np.ndarray) -> Iterator[SourceRows]:
        """`source_rows` of the chosen rows (bool [N]), each by a fit on the rows of other folds (fold int [N])."""
        for held_out in self._folds(fold):
            yield from self.source_rows(held_out[chosen[held_out]])

    def _folds(self, fold: np.ndarray) -> Iterator[np.ndarray]:
        for number in np.unique(fold):
            self.run.log.say(f"  fold {number + 1} of {fold.max() + 1}")
            self.fit(np.flatnonzero(fold != number))
            yield np.flatnonzero(fold == number)


def out_of_fold_rows(run: RunContext, training: Training) -> list[SourceRows]:
    """What the sources say of at most `logit_fusion.max_rows` training products when fitted on the other folds; nothing
    without `logit_fusion.folds`. Leaves the model as it was."""
    settings, model = run.settings.logit_fusion, training.model
    if not settings.folds:
        return []
    store = training.features.plain()
    # Products with the same text stay together: else the lexical head would know the answer.
    texts = [text or product for text, product in zip(store.texts, store.ids, strict=True)]
    tags = (np.flatnonzero(row == 1) for row in store.tag_labels)
    fold = stratified_folds(texts, tags, settings.folds, run.settings.seed)
    chosen = np.zeros(len(fold), bool)
    chosen[np.random.default_rng(run.settings.seed).permutation(len(fold))[:settings.max_rows]] = True
    fitted = copied_heads(model)
    load_kept(model, training.start)
    masked = training.features.masked() if model.config.text_config is not None else None
    rows = list(RefittedHeads(run, training.batches, store, masked).out_of_fold_rows(fold, chosen))
    load_kept(model, fitted)
    return rows
