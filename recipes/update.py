"""Bring reviewers' verdicts back into the model, as a new version that is no worse.

    hf_tagger update runs/my-shop my.yaml feedback.db --how calibrate      # thresholds alone: seconds
    hf_tagger update runs/my-shop my.yaml feedback.db                      # fine-tunes heads: minutes
    hf_tagger update runs/my-shop my.yaml feedback.db --how towers         # LoRA on the towers, too
    hf_tagger update runs/my-shop --list
    hf_tagger update runs/my-shop --rollback 1

MODEL is a model folder, CONFIG the training configuration that it came from (keys can be overridden as `--key.sub
value`), FEEDBACK a path or URL of hf_tagger/feedback/store.py. Versions are kept in MODEL.versions; its link `current`
is what `pipeline(model=...)` should be pointed to. Every call goes on from the version in use.

Corrected products of the training split are mixed with `--replay` others for each, so that nothing is forgotten; a
fifth of them is held out. Approved tags are added before heads or towers are trained. The new version is only kept if
macro- and micro-F1 on the validation split as the catalogue has it are no lower than before (by more than --tolerance),
and it agrees with the verdicts on held-out products at least as often; else the recipe says why, and exits with 1.
"""

import argparse
import shutil
import sys
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.versions import Versions
from hf_tagger.training.arguments import RunSettings, load_run

HELD_OUT = 0.2


@cli.recipe
def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    versions = Versions(f"{options.model.rstrip('/')}.versions")
    if options.list or options.rollback is not None:
        if options.rollback is not None:
            versions.use(options.rollback)
        show(versions)
        return 0
    if options.config is None or options.feedback is None:
        raise ConfigError("give MODEL, CONFIG and FEEDBACK, or MODEL and --list or --rollback")
    if "://" not in options.feedback and not Path(options.feedback).is_file():
        raise ConfigError(f"there is no feedback store {options.feedback}")
    settings, data = load_run(options.config, overrides)
    settings.check_paths()
    versions.start(options.model)
    return update(options, settings, data, versions)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("model", metavar="MODEL", help="model folder")
    parser.add_argument("config", metavar="CONFIG", nargs="?", help="the training configuration that it came from")
    parser.add_argument("feedback", metavar="FEEDBACK", nargs="?", help="path or URL of the feedback store")
    parser.add_argument("--how", choices=("calibrate", "heads", "towers"), default="heads", help="what is learned anew")
    parser.add_argument("--replay", type=float, default=10.0, help="other products for each corrected one")
    parser.add_argument("--tolerance", type=float, default=0.0, help="F1 that a new version may lose on validation")
    parser.add_argument("--list", action="store_true", help="list the versions")
    parser.add_argument("--rollback", type=int, metavar="VERSION", help="put an earlier version to use")
    return parser.parse_known_args(arguments)


def update(options: argparse.Namespace, settings: RunSettings, data: dict, versions: Versions) -> int:
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import open_tagger
    from hf_tagger.feedback.proposals import approved
    from hf_tagger.feedback.store import FeedbackStore
    from hf_tagger.training.update import draw, replay_share

    pending = versions.pending()
    parent = str(versions.path(versions.current))
    catalog = open_catalog(settings.catalog, pending / "catalog")
    tagger = open_tagger(parent, process_state().device)
    with FeedbackStore(options.feedback) as store:
        holds, products = read_feedback(store, catalog, tagger.model.config.attributes)
        new_tags = approved(store, tagger.model.config.attributes)
    learned = {product: settled for product, settled in holds.items() if draw(f"held out {product}") >= HELD_OUT}
    if not learned:
        print("nothing to learn: no verdict on a product of the training split is settled")
        return 1
    held_out = {product: settled for product, settled in holds.items() if product not in learned}
    before, judged = judge(tagger, settings, catalog, held_out)
    if options.how == "calibrate":
        recalibrate(tagger, settings, catalog, learned, judged, pending, parent)
    else:
        share = replay_share(len(learned), products, options.replay)
        fine_tune(tagger, settings, data, learned, share, new_tags, pending, parent, options.how == "towers")
    after, _ = judge(open_tagger(str(pending), tagger.device), settings, catalog, held_out)
    scores = {"before": before, "after": after}
    for name, value in before.items():
        print(f"{name:<18} {value:.4f} before, {after[name]:.4f} after")
    worse = [name for name in before if after[name] < before[name] - (options.tolerance if "f1" in name else 0.0)]
    if worse:
        print("no new version: " + ", ".join(f"{name} fell from {before[name]} to {after[name]}" for name in worse))
        shutil.rmtree(pending)
        return 1
    for leftover in ("catalog", "checkpoints", "grown"):
        shutil.rmtree(pending / leftover, ignore_errors=True)
    versions.add(pending, options.how, verdicts=sum(map(len, holds.values())), scores=scores,
                 added_tags=new_tags if options.how != "calibrate" else {})
    show(versions)
    return 0


def read_feedback(store, catalog, attributes: list[dict]) -> tuple[dict[str, dict], int]:
    """What was settled on of each product of the training split, and how many products that split has."""
    from hf_tagger.feedback.proposals import proposals
    from hf_tagger.feedback.review_state import decided, settle
    from hf_tagger.feedback.verdicts import fingerprint

    verdicts = store.verdicts()
    records = [(record["id"], fingerprint(record)) for record in catalog.records("train")
               if not isinstance(record, Refusal)]
    settled = settle(decided(verdicts, attributes), dict(records))
    waiting = [proposal for proposal in proposals(store, attributes) if proposal.ruling is None]
    print(f"{len(verdicts)} verdicts: {len(settled.holds)} settled, {len(settled.disputed)} disputed, "
          f"{len(settled.stale)} stale or not about a product of the training split; "
          f"{len(waiting)} proposed tags wait for approval")
    holds: dict[str, dict] = {}
    for (product, attribute, tag), yes in settled.holds.items():
        holds.setdefault(product, {})[attribute, tag] = yes
    return holds, len(records)


def judge(tagger, settings: RunSettings, catalog, held_out: dict) -> tuple:
    """{score: value} on validation and of agreement with held-out verdicts, and the predictions on validation."""
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import Evaluator
    from hf_tagger.training.update import CorrectedCatalog, verdict_agreement

    protocol = next(iter(settings.evaluation.protocols.values()))
    state = process_state()
    evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.training.loader, state)
    validation = evaluator.predict(settings.evaluation.validation, protocol)
    found = {name: round(value, 4) for name, value in validation.metrics().items() if name in ("macro_f1", "micro_f1")}
    if held_out:
        judged = Evaluator(tagger, CorrectedCatalog(catalog, held_out, 0.0), settings.evaluation,
                           settings.training.loader, state)
        seen = judged.predict("train", protocol)
        found["verdict_agreement"] = round(verdict_agreement(seen, held_out), 4)
    return found, validation


def recalibrate(tagger, settings: RunSettings, catalog, learned: dict, validation, pending: Path, parent: str) -> None:
    """A copy of the parent with temperatures and thresholds fitted on validation and on the corrected products."""
    from hf_tagger.evaluation.calibration import fit_calibration, store_attributes
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import Evaluator
    from hf_tagger.training.update import CorrectedCatalog, joined

    if settings.calibration is None:
        raise ConfigError("calibration is null in this configuration: give --calibration.objective f1, say")
    evaluator = Evaluator(tagger, CorrectedCatalog(catalog, learned, 0.0), settings.evaluation,
                          settings.training.loader, process_state())
    seen = evaluator.predict("train", next(iter(settings.evaluation.protocols.values())))
    attributes, _ = fit_calibration(joined(validation, seen), settings.calibration)
    shutil.copytree(parent, pending, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lineage.json", "README.md"))
    store_attributes(pending, attributes)


def fine_tune(tagger, settings: RunSettings, data: dict, learned: dict, share: float, new_tags: dict, pending: Path,
              parent: str, towers: bool) -> None:
    from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
    from hf_tagger.training.batches import Batches
    from hf_tagger.training.build import load_model
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.frozen_heads import fit_logit_fusion
    from hf_tagger.training.phases import start_training, train_phase
    from hf_tagger.training.report import calibrate
    from hf_tagger.training.saving import save_run
    from hf_tagger.training.starting_model import starting_model
    from hf_tagger.training.update import CorrectedCatalog, keep_vocabulary, update_settings

    if towers and tagger.model.config.kernel_landmarks:
        raise ConfigError("this model's kernel head compares products as its towers see them: leave these alone, with "
                          "--how heads")
    if new_tags:
        model, processor = load_model(parent)
        model.add_tags(new_tags, processor)
        parent = str(pending / "grown")
        ProductTaggingPipeline(model, processor=processor).save_pretrained(parent)
    settings = update_settings(settings, parent, str(pending), towers)
    run = start_run(settings, data)
    catalogue = read_catalog(run, lambda catalog: CorrectedCatalog(catalog, learned, share))
    batches = Batches(catalogue, *starting_model(run, catalogue))
    training = start_training(run, batches)
    for index, phase in enumerate(settings.phases):
        train_phase(run, training, index, phase)
    fit_logit_fusion(run, training)
    calibrate(run, batches)
    save_run(run, training)
    keep_vocabulary(settings.start_from, run.folder)


def show(versions: Versions) -> None:
    for lineage in versions.list():
        mark = "*" if lineage.version == versions.current else " "
        scores = ", ".join(f"{name} {lineage.scores['before'][name]} -> {value}"
                           for name, value in lineage.scores.get("after", {}).items())
        print(f"{mark} {lineage.version}  from {lineage.parent or '-'}  {lineage.at}  {lineage.made_by}  {scores}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
