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

Tags that the model does not know and that the catalogue gives to `--propose` products or more are proposed as well, for
a person to approve or decline: `hf_tagger review`, "New tags". With `--within 30 created_at`, products of the last 30
days alone count, by the date in that column.
"""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.versions import Versions
from hf_tagger.training.arguments import RunSettings, load_run


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
    parser.add_argument("--propose", type=int, default=10, metavar="N",
                        help="propose unknown tags that the catalogue gives to so many products (0: none)")
    parser.add_argument("--within", nargs=2, metavar=("DAYS", "COLUMN"),
                        help="count for that the products of the last DAYS days alone, by the date in COLUMN")
    parser.add_argument("--list", action="store_true", help="list the versions")
    parser.add_argument("--rollback", type=int, metavar="VERSION", help="put an earlier version to use")
    return parser.parse_known_args(arguments)


def update(options: argparse.Namespace, settings: RunSettings, data: dict, versions: Versions) -> int:
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.protocols import open_tagger
    from hf_tagger.feedback.proposals import Since, UnknownTags, approved
    from hf_tagger.feedback.store import FeedbackStore
    from hf_tagger.training.update import Update, read_feedback

    pending, parent = versions.pending(), versions.path(versions.current)
    catalog = open_catalog(settings.catalog, pending / "catalog")
    since = Since.of(*options.within) if options.within else None
    if since is not None:
        catalog.schema = replace(catalog.schema, keep=[*catalog.schema.keep, since.column])
    tagger = open_tagger(str(parent), process_state().device)
    attributes = tagger.model.config.attributes
    unknown = UnknownTags(attributes, options.propose, since) if options.propose else None
    with FeedbackStore(options.feedback) as store:
        feedback = read_feedback(store, catalog, attributes, unknown, str(versions.current))
        new_tags = approved(store, attributes)
    print(feedback.summary)
    if not feedback.learned:
        print("nothing to learn: no verdict on a product of the training split is settled")
        return 1

    step = Update(tagger, parent, pending, settings, data, catalog, feedback)
    before, validation = step.judge(tagger)
    if options.how == "calibrate":
        new_tags = {}
        step.recalibrate(validation)
    else:
        step.fine_tune(options.replay, new_tags, towers=options.how == "towers")
    after, _ = step.judge(open_tagger(str(pending), tagger.device))
    print(catalog.totals())

    for name, value in before.items():
        print(f"{name:<18} {value:.4f} before, {after[name]:.4f} after")
    worse = [name for name in before if after[name] < before[name] - (options.tolerance if "f1" in name else 0.0)]
    if worse:
        print("no new version: " + ", ".join(f"{name} fell from {before[name]} to {after[name]}" for name in worse))
        shutil.rmtree(pending)
        return 1
    for leftover in ("catalog", "checkpoints", "grown"):
        shutil.rmtree(pending / leftover, ignore_errors=True)
    versions.add(pending, options.how, verdicts=feedback.verdicts, scores={"before": before, "after": after},
                 added_tags=new_tags)
    show(versions)
    return 0


def show(versions: Versions) -> None:
    for lineage in versions.list():
        mark = "*" if lineage.version == versions.current else " "
        scores = ", ".join(f"{name} {lineage.scores['before'][name]} -> {value}"
                           for name, value in lineage.scores.get("after", {}).items())
        print(f"{mark} {lineage.version}  from {lineage.parent or '-'}  {lineage.at}  {lineage.made_by}  {scores}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
