"""Fit how far a shopper's history moves the tags of `pipeline(..., user_history=[...])`.

    hf_tagger fit-personalization runs/my-shop my.yaml interactions.parquet
    hf_tagger fit-personalization runs/quickstart runs/quickstart/training_config.yaml --simulate 500

MODEL is a model folder, CATALOGUE as in `hf_tagger evaluate`, and INTERACTIONS a parquet file with the columns user,
product (an id of the catalogue) and time (a timestamp, or seconds since 1970). The model tags every product once; then
gates, half-life and prior are fitted (hf_tagger/training/personalization.py) and stored in the model's config.json,
unless they explain the latest fifth of the log no better than chance.

`--simulate N` shows on a made-up catalogue whether it works: N simulated shoppers with planted tastes choose products,
the gates are fitted on their choices, and N others meet the tags of the test split in their personal order. Nothing is
stored in the model. Printed, and written to `personalization.json` in --output_dir: NDCG@5 of the tags that they like,
against the plain order and the order for another shopper, and what it costs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import EvaluateSettings, load_checked_evaluation

SHOWN = 20  # products of the test split that a simulated shopper meets


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    if (options.interactions is None) == (options.simulate is None):
        raise ConfigError("give INTERACTIONS, or --simulate with a number of shoppers")
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    if options.interactions is not None and not Path(options.interactions).is_file():
        raise ConfigError(f"there is no file {options.interactions}")
    import torch

    from hf_tagger.evaluation.calibration import stored_config
    from hf_tagger.evaluation.machine import describe_machine, process_state
    from hf_tagger.evaluation.protocols import Evaluator, open_tagger
    from hf_tagger.evaluation.tables import text_table
    from hf_tagger.feedback.shoppers import simulate_shoppers, write_interactions

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
    truth, path = None, options.interactions
    if options.simulate:
        truth = planted(settings, ids, tagger.model.config.attributes)
        path = folder / "interactions.parquet"
        write_interactions(path, simulate_shoppers(truth, options.simulate, seed=options.seed).log, ids)
    result = fit(tagger, path, ids, tags, options.seed)
    if options.simulate:
        shoppers = simulate_shoppers(truth, options.simulate, seed=options.seed + 1)
        result |= measure(tagger, seen, ids, tags, truth, shoppers, settings.evaluation.split)
    else:
        stored = json.loads(config.read_text(encoding="utf-8"))
        stored["personalization"] = tagger.model.config.personalization
        config.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        tagger.save_code(config.parent)
        print("stored in", config)
    text = json.dumps(result | {"machine": describe_machine()}, indent=1, ensure_ascii=False)
    (folder / "personalization.json").write_text(text + "\n", encoding="utf-8")
    print(f"log-loss on the latest choices: {result['loss']:.4f}, by chance {result['loss_of_chance']:.4f}")
    if options.simulate:
        print(text_table(result["test"]))
    print(catalog.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("interactions", nargs="?", help="parquet file: user, product, time")
    parser.add_argument("--simulate", type=int, metavar="N", help="try it on N made-up shoppers")
    parser.add_argument("--output_dir", help="folder for what is written (default: MODEL/personalization)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_known_args(arguments)


def planted(settings: EvaluateSettings, ids: list[str], attributes: list[dict]) -> np.ndarray:
    """The true tags of a made-up catalogue's products, bool [P, T]."""
    if settings.catalog.synthetic is None:
        raise ConfigError("--simulate needs a made-up catalogue: give a configuration with catalog.synthetic")
    from hf_tagger.catalog.synthetic.products import true_tags

    truth = true_tags(**settings.catalog.synthetic)
    return np.array([[tag in truth[product][entry["name"]] for entry in attributes for tag in entry["tags"]]
                     for product in ids])


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


def measure(tagger, seen: dict, ids: list[str], tags, truth: np.ndarray, shoppers, split: str) -> dict:
    """NDCG@5 over the products of which a shopper likes a true tag, and milliseconds per product and profile.

    Args:
        seen: {split: predictions}; tags: float tensor [P, T] over all of them; truth: bool [P, T].
    """
    import torch

    from hf_tagger.feedback.shoppers import ndcg
    from hf_tagger.model.reranking import shopper_profile

    entries = [(entry["name"], tag) for entry in tagger.model.config.attributes for tag in entry["tags"]]
    column = {entry: place for place, entry in enumerate(entries)}
    row_of, test = {product: row for row, product in enumerate(ids)}, seen[split]
    start = time.perf_counter()
    profiles = [shopper_profile(tagger.model, history(shoppers, user, tags, entries))
                for user in range(len(shoppers.liking))]
    profile_seconds = time.perf_counter() - start
    orders: dict[str, tuple] = {"plain": (), "personal": profiles, "for another shopper": profiles[1:] + profiles[:1]}
    scores, seconds = {name: [] for name in orders}, dict.fromkeys(orders, 0.0)
    met = np.random.default_rng(0).integers(len(test.ids), size=(len(profiles), SHOWN))
    rows = [(*pair, []) for pair in zip(torch.from_numpy(test.scores), torch.from_numpy(test.chosen), strict=True)]
    for user, products in enumerate(met):
        for row in products:
            gains = shoppers.liking[user] * truth[row_of[test.ids[row]]]
            for name, chosen in orders.items():
                profile = chosen[user] if chosen else None
                start = time.perf_counter()
                listed = tagger.postprocess(rows[row], profile=profile)
                seconds[name] += time.perf_counter() - start
                scores[name].append(ndcg(np.array([gains[column[tag["attribute"], tag["label"]]] for tag in listed])))
    looks = met.size
    return {"test": {name: {"ndcg_at_5": round(float(np.nanmean(found)), 4),
                            "milliseconds_per_product": round(1000 * seconds[name] / looks, 3)}
                     for name, found in scores.items()},
            "products_with_liked_tags": int(np.isfinite(scores["plain"]).sum()), "products_met": looks,
            "milliseconds_per_profile": round(1000 * profile_seconds / len(profiles), 2)}


def history(shoppers, user: int, tags, entries: list[tuple[str, str]]) -> list[dict]:
    """A simulated shopper's events, as `personalization.met_tags` takes them."""
    log, events = shoppers.log, []
    for row in np.flatnonzero(log.user == user):
        found = tags[log.product[row]]
        events.append({"time": float(log.time[row]), "weight": 1.0, "tags": [
            {"attribute": entries[place][0], "label": entries[place][1], "score": float(found[place])}
            for place in found.nonzero()[:, 0].tolist()]})
    return events


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
