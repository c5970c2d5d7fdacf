"""A run's catalogue in the batches that its model reads: augmented, under a protocol, or for the towers alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.batching.targets import TargetEncoder
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.evaluation.settings import Protocol
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.augment import OwnNames, image_augmenter, masked_text, text_augmenter
from hf_tagger.training.data import TrainingData


@dataclass
class Batches:
    data: TrainingData
    model: TaggerModel
    processor: TaggerProcessor
    # How products look in view 0, 1, ... of the training split; default: as they are, augmented from view 1 on.
    collate_view: Callable[[int], Collator] | None = None

    @property
    def settings(self) -> RunSettings:
        return self.data.run.settings

    @property
    def reader(self) -> LoaderSettings:
        """Reads as evaluation does."""
        return replace(self.settings.training.loader, batch_size=self.settings.evaluation.batch_size)

    @property
    def names(self) -> OwnNames:
        return OwnNames(self.model.config.attributes)

    def collator(self, *augmenters) -> Collator:
        targets, decoder = None, self.settings.model.decoder
        if decoder is not None:
            targets = TargetEncoder(self.processor.tag_tokenizer, self.model.config, decoder.targets)
        return Collator(self.processor, self.model.config.attributes, *augmenters,
                        allow_urls=self.data.catalog.schema.allow_urls, encode_targets=targets)

    def augmenting_collator(self) -> Collator:
        training = self.settings.training
        return self.collator(text_augmenter(training.text_augmentation, self.names),
                             image_augmenter(training.image_augmentation))

    def view_collator(self, view: int) -> Collator:
        if self.collate_view is not None:
            return self.collate_view(view)
        return self.augmenting_collator() if view else self.collator()

    def training(self, phase: PhaseSettings, collator: Collator | None = None) -> CatalogLoader:
        """Shuffled batches of the training split, augmented unless another collator is given."""
        loader = self.settings.training.loader
        loader = replace(loader, batch_size=phase.batch_size or loader.batch_size)
        return self.data.loader("train", collator or self.augmenting_collator(), loader, shuffle=True,
                                repeat_factors=self.data.repeat_factors())

    def view(self, view: int, split: str = "train", whole: bool = False) -> Iterator[dict[str, Any]]:
        """Products of a split for the towers to look at, each once."""
        reader = replace(self.reader, bucket_batches=8)
        return self.data.loader(split, self.view_collator(view), reader, whole=whole).epoch(view)

    def masked(self, split: str = "train") -> Iterator[dict[str, Any]]:
        """All products of a split without the words of their own tags."""
        reader = replace(self.reader, bucket_batches=8)
        return self.data.loader(split, self.collator(partial(masked_text, self.names)), reader, whole=True).epoch()

    def evaluation(self, split: str, protocol: Protocol, whole: bool = False) -> Iterator[dict[str, Any]]:
        """Of a split as the protocol sees it: this process's share, or all of it."""
        return self.data.loader(split, self.collator(), self.reader, protocol, whole).epoch()
