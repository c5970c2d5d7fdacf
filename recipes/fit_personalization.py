"""Fit how far a shopper's history moves the tags of `pipeline(..., user_history=[...])`.

    hf_tagger fit-personalization runs/my-shop my.yaml interactions.parquet

MODEL is a model folder, CATALOGUE as in `hf_tagger evaluate`, and INTERACTIONS a parquet file with the columns user,
product (an id of the catalogue) and time (a timestamp, or seconds since 1970). The model tags every product once; then
gates, half-life and prior are fitted (hf_tagger/training/personalization.py) and stored in the model's config.json,
unless they explain the latest fifth of the log no better than chance.

What was fitted is also written to `personalization.json` in --output_dir. `recipes/lab/simulate_shoppers.py` shows on
made-up shoppers whether it works.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import load_checked_evaluation


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    if not Path(options.interactions).is_file():
        raise ConfigError(f"there is no file {options.interactions}")
    import torch

    from hf_tagger.evaluation.calibration import stored_config
    from hf_tagger.evaluation.machine import describe_machine, process_state
    from hf_tagger.evaluation.protocols import Evaluator, open_tagger

    config = stored_config(options.model)
    folder = Path(options.output_dir or Path(options.model) / "personalization")
    folder.mkdir(parents=True, exist_ok=True)
    state = process_state()
    tagger = open_tagger(options.model, state.device)
    catalog = open_catalog(settings.catalog, folder / "catalog")
    evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.loader, state)
    seen = {split: evaluator.predict(split, settings.evaluation.first_protocol)
            for split in catalog.splits}
    ids = [product for found in seen.values() for product in found.ids]
    tags = torch.from_numpy(np.concatenate([found.scores * found.chosen for found in seen.values()]))
    result = fit(tagger, options.interactions, ids, tags, options.seed)
    stored = json.loads(config.read_text(encoding="utf-8"))
    stored["personalization"] = tagger.model.config.personalization
    config.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    tagger.save_code(config.parent)
    print("stored in", config)
    text = json.dumps(result | {"machine": describe_machine()}, indent=1, ensure_ascii=False)
    (folder / "personalization.json").write_text(text + "\n", encoding="utf-8")
    print(f"log-loss on the latest choices: {result['loss']:.4f}, by chance {result['loss_of_chance']:.4f}")
    print(catalog.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("interactions", help="parquet file: user, product, time")
    parser.add_argument("--output_dir", help="folder for what is written (default: MODEL/personalization)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_known_args(arguments)


def fit(tagger, path: str | Path, ids: list[str], tags, seed: int) -> dict:
    from hf_tagger.feedback.interactions import read_interactions
    from hf_tagger.model.reranking import tag_vectors
    from hf_tagger.training.personalization import fit_personalization

    model = tagger.model
    log, left_out = read_interactions(path, ids)
    if left_out:
        print(f"note: {left_out} interactions are incomplete or about products that are not in the catalogue")
    vectors = tag_vectors(model.tag_head, model.config.attributes).cpu()
    model.config.personalization, report = fit_personalization(log, tags, vectors, model.config.attributes, seed)
    return {"personalization": model.config.personalization, **report}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
