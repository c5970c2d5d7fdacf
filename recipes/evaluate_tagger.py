"""Say how good a tagger is, and set its thresholds.

    hf_tagger evaluate runs/quickstart runs/quickstart/training_config.yaml
    hf_tagger evaluate runs/my-shop new_products.csv --slices brand
    hf_tagger evaluate runs/my-shop my.yaml --calibrate --calibration.objective precision

MODEL is a model folder, an adapter folder or a Hub id. CATALOGUE is a YAML file with source and schema (the one the
model was trained by will do), or the path of a catalogue that is written like the training one. Keys of `catalog`,
`evaluation`, `calibration` and `loader` can be overridden as `--key.sub value`. Several processes share the work under
`accelerate launch` (on CPUs: `python -m torch.distributed.run --nproc_per_node 2`).

Written to the output folder: report.html, figures/*.png, metrics.json, per_tag.csv and predictions.parquet; and, filled
from model_cards/template.md, the model card: README.md in the model folder, or wherever --card says.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import EvaluateSettings, load_checked_evaluation

TEMPLATE = Path(__file__).parents[1] / "model_cards" / "template.md"


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    baselines = read_baselines(options.baselines)
    from hf_tagger.evaluation.machine import describe_machine

    folder = Path(options.output_dir or Path(options.model) / "evaluation")
    evaluator = open_evaluator(options, settings, folder)
    about = {"model": options.model, "catalogue": options.catalogue, "dataset": Path(options.catalogue).stem,
             "split": settings.evaluation.split, "machine": describe_machine()}
    if options.calibrate:
        about["calibration"] = calibrate(evaluator, settings, options.model)
    results = evaluate(evaluator, options)
    rows = every_process(evaluator.refused[settings.evaluation.split])
    if results:
        about["rows"] = rows.summary()
        if rows.counts:
            print(rows.summary())
        write(folder, about, results, evaluator, baselines, options, arguments)
        print(rows.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--output_dir", help="folder for what is written (default: MODEL/evaluation)")
    parser.add_argument("--calibrate", action="store_true",
                        help="first fit temperatures and thresholds on validation, and store them in the model")
    parser.add_argument("--slices", nargs="*", default=[], metavar="COLUMN", help="also score by these columns' values")
    parser.add_argument("--baselines", nargs="*", default=[], metavar="FILE",
                        help="baselines.json of `hf_tagger baselines`, for the report's headline table")
    parser.add_argument("--card", help="where the model card goes (default: README.md in the model folder)")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (0: no intervals)")
    return parser.parse_known_args(arguments)


def read_baselines(paths: list[str]) -> dict:
    methods = {}
    for path in paths:
        if not Path(path).is_file():
            raise ConfigError(f"there is no file {path}: hf_tagger baselines writes it")
        methods |= json.loads(Path(path).read_text(encoding="utf-8"))["methods"]
    return methods


def open_evaluator(options: argparse.Namespace, settings: EvaluateSettings, folder: Path):
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import Evaluator, open_tagger

    state = process_state()
    tagger = open_tagger(options.model, state.device)
    with state.main_process_first():
        catalog = open_catalog(settings.catalog, folder / "catalog", write=state.is_main_process)
    catalog.schema = replace(catalog.schema, keep=[*catalog.schema.keep, *options.slices])
    return Evaluator(tagger, catalog, settings.evaluation, settings.loader, state, settings.catalog.drop_duplicates)


def calibrate(evaluator, settings: EvaluateSettings, model: str) -> dict:
    """Fits on the validation split under the first protocol, and changes the stored model."""
    from hf_tagger.evaluation.calibration import fit_calibration, store_attributes, stored_config
    from hf_tagger.evaluation.tables import text_table

    stored_config(model)  # what cannot be stored need not be fitted
    if settings.calibration is None:
        raise ConfigError("calibration is null in this configuration: give --calibration.objective f1, say")
    protocol = next(iter(settings.evaluation.protocols.values()))
    validation = evaluator.predict(settings.evaluation.validation, protocol)
    attributes, fitted = fit_calibration(validation, settings.calibration)
    evaluator.tagger.model.config.attributes = attributes
    if evaluator.state.is_main_process:
        shown = ("products", "log_loss_before", "log_loss_after", "precision", "recall", "coverage")
        print(f"calibrated on {validation.products} of {settings.evaluation.validation}")
        print(text_table({name: {key.replace("_", " "): found[key] for key in shown if key in found}
                          for name, found in fitted.items()}))
        for name, found in fitted.items():
            if not found.get("reached", True):
                print(f"note: {name}: no threshold reaches a {found['objective']} of {found['target']} on validation; "
                      f"the best one has {found[found['objective']]:.3f}")
        print("stored in", store_attributes(model, attributes))
    return fitted


def evaluate(evaluator, options: argparse.Namespace) -> list:
    """Scores the split under every protocol; the main process returns the results."""
    from hf_tagger.evaluation.results import ProtocolResult, measurable

    start = time.perf_counter()
    found, left_out = measurable(evaluator.predict_each(evaluator.settings.split, evaluator.protocols))
    looks = sum(len(predictions.ids) for predictions in found.values())
    if not evaluator.state.is_main_process:
        return []
    seconds = time.perf_counter() - start
    print(f"{looks} looks at products under {len(found)} protocols, {looks / seconds:.1f} a second")
    for line in left_out:
        print(f"note: {line}")
    return [ProtocolResult.of(name, predictions, options.slices, options.resamples)
            for name, predictions in found.items()]


def every_process(rows):
    """A `Quarantine` of all processes' rows."""
    from accelerate.utils import gather_object

    first, *others = gather_object([rows])
    for other in others:
        first.merge(other)
    return first


def write(folder: Path, about: dict, results: list, evaluator, baselines: dict, options: argparse.Namespace,
          arguments: list[str]) -> None:
    from hf_tagger.evaluation.card import write_card
    from hf_tagger.evaluation.report import ReportData, write_report
    from hf_tagger.evaluation.results import remarks, write_results
    from hf_tagger.evaluation.tables import score_table

    write_results(folder, results, about)
    data = ReportData.of(f"How good is {Path(options.model).name}?", about, results, evaluator.catalog, baselines)
    write_report(folder, data)
    if options.card or Path(options.model).is_dir():
        card = Path(options.card or Path(options.model) / "README.md")
        write_card(TEMPLATE, card, data, options.model, ["hf_tagger evaluate", *arguments], folder)
    for remark in remarks(results[0].predictions, results[0].scorer):
        print(f"note: {remark}")
    print(score_table({result.name: result.values for result in results}, evaluator.attributes))
    print(f"written to {folder}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
