"""Score what a tagger has to beat: the majority, rules, a bag of words, frozen features, neighbours, LSTM + CNN.

    hf_tagger baselines recipes/configs/fashion.yaml --output_dir runs/baselines
    hf_tagger baselines recipes/configs/fashion.yaml --models runs/fashion --only rules tfidf
    hf_tagger baselines my.yaml --epochs 5 --catalog.source.path products.csv

CONFIG is a YAML file of `hf_tagger finetune`; its keys can be overridden as `--key.sub value`. Every method learns
from the training split, fits its thresholds on validation and is scored on test as `hf_tagger evaluate` scores taggers.
Written to the output folder: baselines.md (one table), baselines.json, and in METHOD/evaluation metrics and predictions
as `hf_tagger evaluate` writes them.

majority: how often each tag occurs. rules: names and aliases of tags found in the text. tfidf: TF-IDF and logistic
regression (needs the extra `baselines`). regression: the same on TF-IDF and the features of the configuration's frozen
pretrained towers. knn: nearest neighbours by these features, by TF-IDF, or by both. lstm_cnn: the model and training of
recipes/configs/lstm_resnet50.yaml.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.settings import Protocol, check_model
from hf_tagger.training.arguments import RunSettings, load_run

CLASSIC = Path(__file__).parent / "configs" / "lstm_resnet50.yaml"
Predict = Callable  # (split, protocol) -> Predictions
TEXT, BOTH = {"text"}, {"text", "image"}


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    folder = Path(options.output_dir)
    settings, _ = load_run(options.config, overrides)
    settings.check_paths()
    for model in options.models:
        check_model(model)
    from hf_tagger.catalog.vocabulary import Vocabulary
    from hf_tagger.evaluation.machine import describe_machine
    from hf_tagger.evaluation.results import rounded, write_results
    from hf_tagger.evaluation.tables import comparison_table
    from hf_tagger.training.data import settled_for

    catalog = open_catalog(settings.catalog, folder / "catalog")
    opened = replace(settings.catalog, source=catalog.source, schema=catalog.schema, synthetic=None)
    settings = replace(settings, catalog=opened)
    vocabulary = Vocabulary.scan(catalog.records("train"), catalog.schema, catalog.names)
    settings = settled_for(settings, catalog, vocabulary)
    attributes = [entry for entry in vocabulary.attributes if entry["tags"]]
    about = {"catalogue": options.config, "split": settings.evaluation.split, "machine": describe_machine(),
             "data_fingerprint": vocabulary.fingerprint, "methods": {}}
    for name in [*options.only, *options.models]:
        print(f"{name} ...")
        if name in METHODS:
            predict, reads = METHODS[name](catalog, attributes, settings, folder / name, options)
        else:
            predict, reads = tagger(catalog, name, settings), BOTH
        results = judge(predict, settings, reads, options.resamples)
        write_results(folder / Path(name).name / "evaluation", results, {"method": name})
        about["methods"][Path(name).name] = {result.name: rounded(result.plain()) for result in results}
        # After every method: the last one may take hours.
        folder.mkdir(parents=True, exist_ok=True)
        table = comparison_table(about["methods"])
        (folder / "baselines.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "baselines.md").write_text(table + "\n", encoding="utf-8")
    print(table, f"\n\nwritten to {folder}")
    print(catalog.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--output_dir", default="runs/baselines", help="folder for what is written")
    parser.add_argument("--only", nargs="*", choices=list(METHODS), default=list(METHODS), help="these methods alone")
    parser.add_argument("--models", nargs="*", default=[], help="model folders to put into the table too")
    parser.add_argument("--epochs", type=int, default=10, help="of the LSTM + CNN")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (0: no intervals)")
    return parser.parse_known_args(arguments)


def judge(predict: Predict, settings: RunSettings, reads: set[str], resamples: int) -> list:
    """Thresholds from validation; a `ProtocolResult` of the test split under every protocol that shows the method
    something of what it reads, "text" or "image"."""
    from hf_tagger.evaluation.calibration import fit_calibration
    from hf_tagger.evaluation.protocols import standard_protocols
    from hf_tagger.evaluation.results import ProtocolResult, measurable

    evaluation = settings.evaluation
    validation = predict(evaluation.validation, evaluation.first_protocol)
    attributes, _ = fit_calibration(validation, settings.calibration)
    found, left_out = measurable({
        name: predict(evaluation.split, protocol).decided(attributes)
        for name, protocol in standard_protocols(evaluation.protocols).items()
        if reads - set(protocol.without)})
    for line in left_out:
        cli.say(f"note: {line}")
    return [ProtocolResult.of(name, predictions, resamples=resamples) for name, predictions in found.items()]


def majority(catalog, attributes: list[dict], *_) -> tuple[Predict, set[str]]:
    from hf_tagger.evaluation.baselines import MajorityBaseline, Products

    return on_texts(catalog, MajorityBaseline(attributes, Products.read(catalog.records("train")))), TEXT


def rules(catalog, attributes: list[dict], *_) -> tuple[Predict, set[str]]:
    from hf_tagger.evaluation.baselines import RuleBaseline

    aliases = {entry["name"]: entry.get("aliases", {}) for entry in attributes}
    return on_texts(catalog, RuleBaseline(attributes, aliases)), TEXT


def tfidf(catalog, attributes: list[dict], *_) -> tuple[Predict, set[str]]:
    from hf_tagger.evaluation.baselines import BagOfWordsBaseline, Products

    return on_texts(catalog, BagOfWordsBaseline(attributes, Products.read(catalog.records("train")))), TEXT


def on_texts(catalog, fitted) -> Predict:
    from hf_tagger.evaluation.baselines import Products
    from hf_tagger.evaluation.protocols import seen_through

    return lambda split, protocol: fitted.predict(
        Products.read(seen_through(catalog, protocol).records(split), protocol.without))


def regression(catalog, attributes: list[dict], settings: RunSettings, *_) -> tuple[Predict, set[str]]:
    from hf_tagger.evaluation.baselines import BagOfWordsBaseline

    embedded, train = embedding(catalog, attributes, settings)
    fitted = BagOfWordsBaseline(attributes, *train)
    return lambda split, protocol: fitted.predict(*embedded(split, protocol)), towers_of(settings)


def knn(catalog, attributes: list[dict], settings: RunSettings, *_) -> tuple[Predict, set[str]]:
    from hf_tagger.evaluation.baselines import best_neighbours

    embedded, train = embedding(catalog, attributes, settings)
    evaluation = settings.evaluation
    fitted = best_neighbours(attributes, train, embedded(evaluation.validation, evaluation.first_protocol))
    print(f"{fitted.neighbours} neighbours by {' and '.join(fitted.by)}, by macro-F1 on validation")
    return lambda split, protocol: fitted.predict(*embedded(split, protocol)), towers_of(settings)


def towers_of(settings: RunSettings) -> set[str]:
    towers = {"text": settings.model.text_backbone, "image": settings.model.vision_backbone}
    return {name for name, backbone in towers.items() if backbone is not None}


def embedding(catalog, attributes: list[dict], settings: RunSettings) -> tuple[Callable, tuple]:
    """A function (split, protocol) -> (products, their vectors by the configuration's frozen towers), and what it gives
    of the training split."""
    from hf_tagger.catalog.batching.collate import Collator
    from hf_tagger.catalog.batching.loader import CatalogLoader
    from hf_tagger.evaluation.baselines import EmbeddingSpace, Products
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.predict import embeddings_of
    from hf_tagger.evaluation.protocols import seen_through
    from hf_tagger.training.build import build_model

    texts = (record["text"] for record in catalog.records("train") if isinstance(record, dict) and record["text"])
    model, processor = build_model(settings.model, attributes, texts, settings.seed)
    model.to(process_state().device)
    reader = replace(settings.training.loader, batch_size=settings.evaluation.batch_size)

    def look(split: str, protocol: Protocol):
        collator = Collator(processor, attributes, allow_urls=catalog.schema.allow_urls)
        loader = CatalogLoader(seen_through(catalog, protocol), split, collator, reader)
        batches, features, present = zip(*embeddings_of(model, loader.epoch(), protocol.without), strict=True)
        products = Products(*([item for batch in batches for item in batch[key]]
                              for key in ("ids", "tags", "about", "texts")))
        if "text" in protocol.without:
            products.texts = [None] * len(products.ids)
        return products, joined(features), joined(present)

    train, features, present = look("train", Protocol())
    space = EmbeddingSpace(features, present)

    def embedded(split: str, protocol: Protocol) -> tuple:
        products, *seen = look(split, protocol)
        return products, space(*seen)

    return embedded, (train, space(features, present))


def joined(parts: tuple[dict[str, np.ndarray], ...]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def lstm_cnn(catalog, attributes, settings: RunSettings, folder: Path, options) -> tuple[Predict, set[str]]:
    from hf_tagger.training.batches import Batches
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.phases import start_training, train_phases
    from hf_tagger.training.saving import save_run
    from hf_tagger.training.starting_model import starting_model

    classic, data = load_run(CLASSIC, ["--phases.0.epochs", str(options.epochs), "--output_dir", str(folder)])
    run = start_run(replace(classic, catalog=settings.catalog, evaluation=settings.evaluation), data)
    counted = read_catalog(run)
    batches = Batches(counted, *starting_model(run, counted))
    training = start_training(run, batches)
    train_phases(run, training)
    save_run(run, training)
    return tagger(catalog, str(folder), settings), BOTH


def tagger(catalog, model: str, settings: RunSettings) -> Predict:
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import Evaluator, open_tagger

    state = process_state()
    opened = open_tagger(model, state.device)
    return Evaluator(opened, catalog, settings.evaluation, settings.training.loader, state).predict


METHODS = {"majority": majority, "rules": rules, "tfidf": tfidf, "regression": regression, "knn": knn,
           "lstm_cnn": lstm_cnn}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
