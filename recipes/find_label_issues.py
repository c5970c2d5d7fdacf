"""Find products whose given tags are probably wrong, for a person to look at.

    hf_tagger find-label-issues recipes/configs/fashion.yaml --output_dir runs/fashion-labels
    hf_tagger find-label-issues my.yaml --folds 10 --most 1000
    hf_tagger finetune my.yaml --labels corrected.csv      # what the page saved

The configuration is one of `hf_tagger finetune`; every key of it can be overridden as `--key.sub value`. Its frozen
towers run once over the training split; all heads are fitted on all folds but one and judge that one.
Confident learning (hf_tagger/evaluation/label_issues.py) then says where they contradict the given tags. `output_dir`
gets

    review.html       the most suspicious labels with photos, to choose corrections on; works offline
    suspects.parquet  all of them
    summary.json      what was looked at, what was skipped, how many errors are to be expected

The catalogue is never changed.
"""

import argparse
import json
import sys
from itertools import accumulate
from pathlib import Path

from hf_tagger import cli
from hf_tagger.training.arguments import load_run

RECALLS = (0.25, 0.5, 0.75, 0.9)


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, data = load_run(options.config, overrides)
    settings.check_paths()
    import numpy as np

    from hf_tagger.catalog.synthetic.products import true_tags
    from hf_tagger.evaluation.label_issues import find_label_issues
    from hf_tagger.evaluation.review import write_review, write_suspects
    from hf_tagger.evaluation.tables import text_table
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.heads.folds import assign_folds
    from hf_tagger.training.refit import RefittedHeads, heads_only

    run = start_run(heads_only(settings), data)
    catalogue = read_catalog(run)
    heads = RefittedHeads.of_splits(run, catalogue)
    attributes, catalog = heads.model.config.attributes, catalogue.catalog
    fold_of = assign_folds(catalog.records("train"), attributes, options.folds, settings.seed)
    scores = heads.out_of_fold(np.array([fold_of[product] for product in heads.ids]))
    issues = find_label_issues(attributes, heads.tag_labels[:], scores, options.min_positives)
    folder = Path(settings.output_dir)
    write_suspects(folder / "suspects.parquet", issues, heads.ids)
    write_review(folder / "review.html", issues, heads.ids, attributes, catalog.records("train"), options.most,
                 f"Suspected labels in {Path(options.config).stem}", catalog.schema.allow_urls)
    summary = summarise(issues)
    if settings.catalog.synthetic is not None:
        summary["planted"] = compare_with_truth(issues, heads, true_tags(**settings.catalog.synthetic))
    (folder / "summary.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(text_table({name: {key.replace("_", " "): value for key, value in found.items() if key != "skipped_tags"}
                      for name, found in summary["attributes"].items()}))
    print(f"look at {folder / 'review.html'}, then train with --labels corrected.csv")
    print(catalogue.quarantine.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--folds", type=int, default=5, help="parts of the training split, each judged by the others")
    parser.add_argument("--min_positives", type=int, default=5, help="tags of fewer products are not judged")
    parser.add_argument("--most", type=int, default=300, help="suspects on the page")
    return parser.parse_known_args(arguments)


def summarise(issues) -> dict:
    names = [suspect.attribute for suspect in issues.suspects]
    return {"suspects": len(names), "attributes": {
        name: {"judged": judged, "suspects": names.count(name), "estimated_wrong": round(issues.estimated[name], 1),
               "skipped_tags": issues.skipped[name]}
        for name, judged in issues.judged.items()}}


def compare_with_truth(issues, heads, truth: dict[str, dict[str, list[str]]]) -> dict:
    """How well the suspects find the wrong tags of a made-up catalogue, over all attributes and in each."""
    wrong = {(row, name) for row, (product, tags) in enumerate(zip(heads.ids, heads.tags, strict=True))
             for name, given in tags.items() if given is not None and set(given) != set(truth[product][name])}
    results = {}
    for chosen in ("all", *issues.judged):
        planted = sum(chosen in ("all", name) for _, name in wrong)
        suspects = [suspect for suspect in issues.suspects if chosen in ("all", suspect.attribute)]
        found = [(suspect.row, suspect.attribute) in wrong for suspect in suspects]
        precisions = precision_at_recall(found, planted)
        results[chosen] = {
            "planted": planted, "suspects": len(found), "precision": round(sum(found) / max(len(found), 1), 3),
            "recall": round(sum(found) / max(planted, 1), 3),
            "precision_at_recall": {str(recall): precision and round(precision, 3)
                                    for recall, precision in precisions.items()}}
    return results


def precision_at_recall(found: list[bool], planted: int) -> dict[float, float | None]:
    """{recall: precision of the shortest list from the top that reaches it}, None where the whole list does not.

    Args:
        found: of each suspect, most suspicious first, whether it is one of the `planted` errors.
    """
    precisions = dict.fromkeys(RECALLS)
    for length, hits in enumerate(accumulate(found), 1):
        for recall in RECALLS:
            if precisions[recall] is None and hits >= recall * planted:
                precisions[recall] = hits / length
    return precisions


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
