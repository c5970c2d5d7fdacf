"""Features of the frozen towers for all training products: computed when they are first asked for, kept on disk."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.training.arguments import PhaseSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import set_scales
from hf_tagger.training.context import RunContext
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.loop import TrainingLoop
from hf_tagger.training.optimizer import tower_of
from hf_tagger.training.settings import TextAugmentation
from hf_tagger.training.starting_model import scales_are_stored


class FeatureCache:
    """`adapter`: the model with LoRA on its towers, None without; `loop` knows which weights have been trained."""

    def __init__(self, run: RunContext, batches: Batches, adapter: PeftModel | None, loop: TrainingLoop):
        self.run, self.batches, self.adapter, self.loop = run, batches, adapter, loop
        self._stored: dict[str, FeatureLoader] = {}

    def clear(self) -> None:
        """Forgets everything: the towers are about to change."""
        self._stored.clear()

    def of_phase(self, phase: PhaseSettings, whole: bool = False) -> FeatureLoader:
        """Of this process's share of the training split, or the whole of it, in the phase's views."""
        data, loader = self.batches.data, self.run.settings.training.loader
        views = (self.batches.view(view, whole=whole) for view in range(phase.cached_views))
        plain = self.batches.collator()
        factors = data.loader("train", plain, loader, repeat_factors=data.repeat_factors())
        same_text = self.run.settings.training.text_augmentation == TextAugmentation()
        name, options = "plain", {"repeat_factor": factors.repeat_factor, "same_text": same_text}
        if "decoder" in phase.train:
            name, options["encode_targets"] = "decoder", plain.encode_targets
        self._stored[name] = self._store(name, views, phase.batch_size or loader.batch_size, **options)
        if phase is self.run.settings.phases[0] and scales_are_stored(self.run):
            set_scales(self.batches.model, self.run.settings.model, self._stored[name].sample())
        return self._stored[name]

    def plain(self) -> FeatureLoader:
        """Of all training products as the towers see them now, in the views of the last phase."""
        if "plain" in self._stored and self.run.accelerator.num_processes == 1:
            return self._stored["plain"]
        # A resumed run has lost the features of its last phase: it stores as many views again.
        settings = self.run.settings
        last = [phase for phase in settings.phases if phase.train != ["decoder"]][-1]
        views = last.cached_views or (2 if settings.augmentation is not None else 1)
        return self.of_phase(replace(last, train=["heads"], cached_views=views), whole=True)

    def masked(self) -> FeatureLoader:
        """Of all training texts without the words of their own tags."""
        if "masked" not in self._stored or self.run.accelerator.num_processes > 1:
            views = [_texts_alone(self.batches.masked())]
            self._stored["masked"] = self._store("masked", views, 1, towers=("text",))
        return self._stored["masked"]

    def _store(self, name: str, views, batch_size: int, **options) -> FeatureLoader:
        folder = self.run.checkpoints / f"features.rank{self.run.accelerator.process_index}" / name
        untouched = self.adapter is not None and not any(tower_of(name) for name in self.loop.changed)
        # An adapter that has not been trained adds nothing but time.
        with self.adapter.disable_adapter() if untouched else nullcontext(), self.run.accelerator.autocast():
            stored = store_features(self.batches.model, views, folder, batch_size, self.run.settings.seed,
                                    refuse=self._refuse, **options)
        self.batches.data.quarantine.check(final=True)
        return stored

    def _refuse(self, refusals: list[Refusal]) -> None:
        for refusal in refusals:
            self.batches.data.quarantine.add(refusal)
        self.batches.data.quarantine.check()


def _texts_alone(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        none = torch.zeros(len(batch["ids"]), 1, dtype=torch.long)
        texts = {name: batch.get(name, none) for name in ("input_ids", "attention_mask")}
        yield texts | {name: batch[name] for name in ("ids", "tags", "texts", "tag_labels") if name in batch}
