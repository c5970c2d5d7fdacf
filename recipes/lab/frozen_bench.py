"""A catalogue as frozen towers see it, for programs that fit heads on it again and again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_scales
from hf_tagger.training.context import RunContext, start_run
from hf_tagger.training.data import TrainingData, read_catalog
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.heads.folds import stratified_folds
from hf_tagger.training.refit import RefittedHeads
from hf_tagger.training.settings import LexicalSettings
from hf_tagger.training.starting_model import new_model, prepare_model

SPLITS = ("train", "validation", "test")
FOLDS = 3
Change = Callable[[RunSettings], RunSettings]
# {part of the catalogue: {way of looking: (logits [n, C], fusion features [n, A, F])}}
Said = dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]


def model_change(**changes) -> Change:
    """Settings with some of `model` changed; a function gets the old `model` for the new value."""
    return lambda settings: replace(settings, model=replace(settings.model, **{
        name: value(settings.model) if callable(value) else value for name, value in changes.items()}))


NO_LEXICAL_HEAD = LexicalSettings(buckets=0, name_match=False)
# What a source needs to speak alone: the others are switched off.
ALONE: dict[str, Change] = {
    "tag_head": model_change(lexical=NO_LEXICAL_HEAD, kernel=lambda model: replace(model.kernel, landmarks=0)),
    "lexical_head": model_change(kernel=lambda model: replace(model.kernel, landmarks=0)),
    "kernel_head": model_change(lexical=NO_LEXICAL_HEAD),
}


@dataclass
class Bench:
    """A catalogue as its frozen towers see it.

    Args:
        plain: features of all splits, the training products in all views; masked: without the words of their tags.
        rows: {split: numbers of its products}; scales: of the towers' features.
    """

    run: RunContext
    data: TrainingData
    plain: FeatureLoader
    masked: FeatureLoader
    rows: dict[str, np.ndarray]
    scales: dict[str, torch.Tensor]

    @property
    def ways(self) -> dict[str, tuple[FeatureLoader | None, bool]]:
        """How products are seen: text read from where, and whether with the photo."""
        text, image = bool(self.plain.text), bool(self.plain.image)
        ways = {"whole": (self.plain, image), "masked": (self.masked, image)} if text else {}
        return ways | ({"no text": (None, True), "no photo": (self.plain, False)} if text and image else {})

    def heads(self, settings: RunSettings, masked: bool = True) -> RefittedHeads:
        """A new model of these settings, whose heads can be fitted on the stored features."""
        run = replace(self.run, settings=settings)
        data = replace(self.data, run=run)
        model, processor = new_model(run, data)
        prepare_model(run, data, model, processor)
        model.load_state_dict(self.scales, strict=False)
        other = self.masked if masked else replace(self.masked, present=[np.zeros_like(self.masked.present[0])])
        return RefittedHeads(run, Batches(data, model, processor), self.plain, other)


def look(config: str, overrides: list[str], folder: Path) -> Bench:
    """Runs the towers over a catalogue, once."""
    settings, data = load_run(config, overrides)
    run = start_run(replace(settings, model=replace(settings.model, decoder=None)), data)
    catalogue = read_catalog(run)
    settings = run.settings
    if any(phase.moves_towers for phase in settings.phases):
        raise ConfigError(f"{config}: ablations need frozen towers: phases with cached_views alone")
    phase = replace(settings.phases[0], train=["heads"], evaluate_every=0)
    run.settings = settings = replace(settings, phases=[phase])
    model, processor = new_model(run, catalogue)
    prepare_model(run, catalogue, model, processor)
    batches = Batches(catalogue, model, processor)
    split_of: list[str] = []

    def view(number: int):
        for split in SPLITS:
            # Validation and test are looked at as they are; their other views are never drawn.
            for batch in batches.view(number, split):
                split_of.extend([split] * (len(batch["ids"]) if number == 0 else 0))
                yield batch

    def masked():
        for split in SPLITS:
            yield from batches.masked(split)

    with run.accelerator.autocast():
        views = (view(number) for number in range(phase.cached_views))
        plain = store_features(model, views, folder / "plain", 1, settings.seed)
        # Where a text has nothing left, there is only the photo to look at, which is passed over here.
        without = store_features(model, [masked()], folder / "masked", 1, settings.seed, towers=("text",))
    rows = {split: np.flatnonzero(np.array(split_of) == split) for split in SPLITS}
    set_scales(model, settings.model, plain.sample())
    scales = {name: tensor for name, tensor in model.state_dict().items() if "_projection.0." in name}
    return Bench(run, catalogue, plain, without, rows, scales)


def in_turns(bench: Bench, seed: int, fit: Callable, listen: Callable) -> Said:
    """Fits on all folds but one, and listens to what is said of that one; then on all training products."""
    train = bench.rows["train"]
    texts = [bench.plain.texts[row] or bench.plain.ids[row] for row in train]
    tags = (np.flatnonzero(bench.plain.tag_labels[row] == 1) for row in train)
    fold = stratified_folds(texts, tags, FOLDS, seed)
    turns, order = [], []
    for number in range(FOLDS):
        fit(train[fold != number])
        turns.append(listen(train[fold == number]))
        order.append(np.flatnonzero(fold == number))
    back = torch.from_numpy(np.concatenate(order).argsort())
    joined = {way: tuple(torch.cat([turn[way][kind] for turn in turns])[back] for kind in (0, 1)) for way in turns[0]}
    fit(train)
    return {"out of fold": joined, **{split: listen(bench.rows[split]) for split in SPLITS[1:]}}
