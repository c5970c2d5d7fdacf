"""What `absent` gains where lists of tags are partial: lists are thinned in training, and whole in the test.

    python recipes/lab/benchmark_partial_lists.py recipes/lab/configs/food.yaml --listed 0.6 --seeds 0

Of every `multi` attribute, each tag of a training or validation product is kept with the probability `--listed`
(seeded); a list that loses all its tags is unknown. Trains by `hf_tagger finetune` on these labels, once with
`absent: no` and once with `absent: auto`, and scores both on the test split, whose lists are as they were. Lists that
are partial in the catalogue itself stay so in the test. Writes OUTPUT/partial_lists.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.tables import text_table
from hf_tagger.training.arguments import load_run
from measuring import HF_TAGGER, measured, readable

METRICS = ("macro_f1", "micro_f1", "accuracy")


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files of `hf_tagger finetune`")
    parser.add_argument("--listed", type=float, default=0.6, help="probability of a tag to be kept")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--output_dir", default="runs/partial-lists")
    options, overrides = parser.parse_known_args(arguments)
    found = {}
    for config in options.configs:
        for seed in options.seeds:
            scores = compare(config, seed, options, overrides)
            found.setdefault(Path(config).stem, {})[seed] = scores
            print(f"{Path(config).stem}, seed {seed}, {options.listed:.0%} of the tags listed")
            print(text_table({f"{name}, absent: {absent}": row for name in scores["no"]
                              for absent, row in ((absent, scores[absent][name]) for absent in scores)}))
    Path(options.output_dir, "partial_lists.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compare(config: str, seed: int, options: argparse.Namespace, overrides: list[str]) -> dict[str, dict]:
    """{"no" | "auto": {attribute: scores on test}} of the lists."""
    folder = Path(options.output_dir, Path(config).stem, str(seed))
    folder.mkdir(parents=True, exist_ok=True)
    settings, _ = load_run(config, overrides)
    catalog = open_catalog(settings.catalog, folder / "catalog")
    lists = [name for name, spec in catalog.schema.attributes.items() if spec.kind == "multi"]
    labels = folder / "thinned.jsonl"
    with labels.open("w", encoding="utf-8") as file:
        for row in thinned(catalog, lists, options.listed, seed):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    scores = {}
    for absent in ("no", "auto"):
        model = str(folder / absent)
        said = [f"--catalog.schema.attributes.{name}.absent={absent}" for name in lists]
        measured([*HF_TAGGER, "finetune", config, "--labels", str(labels), "--output_dir", model, "--seed", str(seed),
                  *said, *overrides])
        _, metrics = next(iter(json.loads(Path(model, "metrics.json").read_text(encoding="utf-8"))[
            settings.evaluation.split].items()))
        scores[absent] = {name: {metric: metrics[f"{name}/{metric}"] for metric in METRICS} for name in lists}
    return scores


def thinned(catalog: Catalog, lists: list[str], listed: float, seed: int) -> Iterator[dict]:
    """Rows of corrected tags, as `catalog.labels` reads them."""
    random = np.random.default_rng(seed)
    for split in ("train", "validation"):
        for record in readable(catalog, split) if split in catalog.splits else ():
            for name in lists:
                if tags := record["tags"][name]:
                    kept = [tag for tag, drawn in zip(tags, random.random(len(tags)), strict=True) if drawn < listed]
                    yield {"id": record["id"], "attribute": name, "tags": kept or None}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
