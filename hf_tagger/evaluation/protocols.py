"""Evaluation protocols, and a tagger that is evaluated under them; each product is read once."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from transformers import Pipeline, pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.quarantine import Quarantine
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.predict import Predictions, predict_each
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.evaluation.settings import EvaluationSettings, Protocol, check_model
from hf_tagger.model.saving import FormatError


def seen_through(catalog: Catalog, protocol: Protocol | None) -> Catalog:
    """The catalogue with the text columns that the protocol reads."""
    if protocol is None or protocol.text is None:
        return catalog
    return catalog.with_text(protocol.text)


def standard_protocols(given: dict[str, Protocol], text: bool = True, image: bool = True) -> dict[str, Protocol]:
    """Both modalities, text only and photo only, as far as the model reads them, and the given protocols. A standard
    one that is among the given ones has the name given there."""
    wanted = {"all": Protocol()}
    if text and image:
        wanted |= {"text only": Protocol(without=["image"]), "photo only": Protocol(without=["text"])}
    names = {name: next((known for known, protocol in given.items() if protocol == standard), name)
             for name, standard in wanted.items()}
    return {names[name]: standard for name, standard in wanted.items()} | given


def reading_alike(protocols: dict[str, Protocol]) -> list[dict[str, Protocol]]:
    """The protocols in groups that read the same text: each group needs one reading of a split."""
    groups: dict[str, dict[str, Protocol]] = {}
    for name, protocol in protocols.items():
        groups.setdefault(repr(protocol.text), {})[name] = protocol
    return list(groups.values())


def predict_protocols(model, protocols: dict[str, Protocol],
                      read: Callable[[Protocol], Iterable[dict[str, Any]]]) -> dict[str, Predictions]:
    """Predictions of a `TaggerModel` for a split under each protocol. `read`: protocol -> the batches of the split with
    its text, asked once for all that read the same text."""
    found = {}
    for alike in reading_alike(protocols):
        batches = read(next(iter(alike.values())))
        predictions = predict_each(model, batches, [protocol.without for protocol in alike.values()])
        found |= dict(zip(alike, predictions, strict=True))
    return {name: found[name] for name in protocols}


@dataclass
class Evaluator:
    """Predicts the splits of a catalogue under protocols, by one process or several."""

    tagger: Pipeline  # `pipeline("product-tagging")`
    catalog: Catalog
    settings: EvaluationSettings
    loader: LoaderSettings  # how batches are read; their size is `settings.batch_size`
    state: PartialState  # this process among the others
    drop_duplicates: bool = False
    refused: dict[str, Quarantine] = field(default_factory=dict)  # {split: rows of its first reading by this process}

    def __post_init__(self):
        self.catalog.names.learn(self.tagger.model.config.attributes)

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The standard protocols and those of the settings."""
        config = self.tagger.model.config
        return standard_protocols(self.settings.protocols, config.text_config is not None,
                                  config.vision_config is not None)

    @property
    def attributes(self) -> list[str]:
        return [entry["name"] for entry in self.tagger.model.config.attributes]

    def predict(self, split: str, protocol: Protocol) -> Predictions:
        """Every product of the split that shows something under the protocol, in every process."""
        return self.predict_each(split, {"": protocol})[""]

    def predict_each(self, split: str, protocols: dict[str, Protocol]) -> dict[str, Predictions]:
        """`predict` under several protocols, in their order; those that read the same text read the split once."""
        with self.tagger.autocast():
            return predict_protocols(self.tagger.model, protocols, partial(self._read, split))

    def _read(self, split: str, protocol: Protocol) -> Iterable[dict[str, Any]]:
        collator = Collator(self.tagger.processor, self.tagger.model.config.attributes,
                            allow_urls=self.catalog.schema.allow_urls)
        loader = CatalogLoader(
            seen_through(self.catalog, protocol), split, collator,
            replace(self.loader, batch_size=self.settings.batch_size), rank=self.state.process_index,
            world_size=self.state.num_processes, drop_duplicates=self.drop_duplicates)
        batches = progress_bar(loader.epoch(), desc=split, unit="batch", disable=not self.state.is_main_process)
        if split in self.refused:
            return batches
        self.refused[split] = Quarantine(None)
        return _counted(batches, self.refused[split])


def _counted(batches: Iterable[dict[str, Any]], quarantine: Quarantine) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for refusal in batch["refusals"]:
            quarantine.add(refusal)
        quarantine.saw(len(batch["ids"]))
        yield batch
    quarantine.saw(quarantine.rows_lost)


def open_tagger(model: str, device: torch.device) -> Pipeline:
    """The pipeline of a model folder, adapter folder or Hub id. Raises ConfigError where none can be opened."""
    check_model(model)
    try:
        return pipeline("product-tagging", model=model, device=device)
    except FormatError as error:
        raise ConfigError(str(error)) from error
