"""Shoppers with planted tastes show on a made-up catalogue whether `pipeline(..., user_history=[...])` finds them.

    python recipes/lab/simulate_shoppers.py runs/quickstart runs/quickstart/training_config.yaml --shoppers 500

Every shopper likes a few tags, each to its own degree, and repeatedly chooses one of several products: with a
probability that is the softmax of the summed liking of each product's true tags. The model sees the choices only, and
its own tags, which may be wrong. The gates of `hf_tagger fit-personalization` are fitted on the choices of so many
shoppers, and as many others meet the tags of the test split in their personal order. Nothing is stored in the model.
Printed, and written to `personalization.json` in --output_dir, beside the log of the choices: NDCG@5 of the tags that
they like, against the plain order and the order for another shopper, and what it costs.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.synthetic.products import true_tags
from hf_tagger.evaluation.machine import describe_machine, process_state
from hf_tagger.evaluation.protocols import Evaluator, open_tagger
from hf_tagger.evaluation.settings import EvaluateSettings, load_checked_evaluation
from hf_tagger.evaluation.tables import text_table
from hf_tagger.feedback.interactions import Interactions, read_interactions
from hf_tagger.model.reranking import DAY, shopper_profile, tag_vectors
from hf_tagger.training.personalization import fit_personalization

SHOWN = 20  # products of the test split that a shopper meets


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    folder = Path(options.output_dir or Path(options.model) / "personalization")
    folder.mkdir(parents=True, exist_ok=True)
    state = process_state()
    tagger = open_tagger(options.model, state.device)
    catalog = open_catalog(settings.catalog, folder / "catalog")
    evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.loader, state)
    seen = {split: evaluator.predict(split, settings.evaluation.first_protocol) for split in catalog.splits}
    ids = [product for found in seen.values() for product in found.ids]
    tags = torch.from_numpy(np.concatenate([found.scores * found.chosen for found in seen.values()]))
    config = tagger.model.config
    truth = planted(settings, ids, config.attributes)
    path = folder / "interactions.parquet"
    write_interactions(path, simulate_shoppers(truth, options.shoppers, seed=options.seed).log, ids)
    vectors = tag_vectors(tagger.model.tag_head, config.attributes).cpu()
    config.personalization, report = fit_personalization(read_interactions(path, ids)[0], tags, vectors,
                                                         config.attributes, options.seed)
    others = simulate_shoppers(truth, options.shoppers, seed=options.seed + 1)
    result = {"personalization": config.personalization, **report,
              **measure(tagger, seen, ids, tags, truth, others, settings.evaluation.split),
              "machine": describe_machine()}
    text = json.dumps(result, indent=1, ensure_ascii=False)
    (folder / "personalization.json").write_text(text + "\n", encoding="utf-8")
    print(f"log-loss on the latest choices: {result['loss']:.4f}, by chance {result['loss_of_chance']:.4f}")
    print(text_table(result["test"]))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model")
    parser.add_argument("catalogue", help="the training configuration, with catalog.synthetic")
    parser.add_argument("--shoppers", type=int, default=500)
    parser.add_argument("--output_dir", help="folder for what is written (default: MODEL/personalization)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_known_args(arguments)


def planted(settings: EvaluateSettings, ids: list[str], attributes: list[dict]) -> np.ndarray:
    """The true tags of a made-up catalogue's products, bool [P, T]."""
    if settings.catalog.synthetic is None:
        raise ConfigError("only of a made-up catalogue is the truth known: give one with catalog.synthetic")
    truth = true_tags(**settings.catalog.synthetic)
    return np.array([[tag in truth[product][entry["name"]] for entry in attributes for tag in entry["tags"]]
                     for product in ids])


@dataclass(frozen=True)
class Shoppers:
    """`log`: their choices; `liking`: float [U, T], 0 for a tag that a shopper does not care about."""

    log: Interactions
    liking: np.ndarray


def simulate_shoppers(true_tags: np.ndarray, count: int, choices: int = 20, liked: int = 4, strength: float = 2.0,
                      shown: int = 10, days: float = 90.0, seed: int = 0) -> Shoppers:
    """
    Args:
        true_tags: of the products that are for sale, bool [P, T].
        choices: how many products a shopper chooses, at random times within `days`.
        liked: how many tags a shopper likes, over all attributes, rare ones as likely as others.
        strength: mean liking, in log-odds.
        shown: how many products one is chosen from.
    """
    rng = np.random.default_rng(seed)
    products, tags = true_tags.shape
    occurring = np.flatnonzero(true_tags.any(0))
    liking = np.zeros((count, tags))
    for row in liking:
        chosen = rng.choice(occurring, size=min(liked, len(occurring)), replace=False)
        row[chosen] = strength * rng.uniform(0.5, 1.5, size=len(chosen))
    user = np.repeat(np.arange(count), choices)
    offered = rng.integers(products, size=(count * choices, shown))
    utility = np.einsum("nst,nt->ns", true_tags[offered].astype(float), liking[user])
    picked = (utility + rng.gumbel(size=utility.shape)).argmax(1)
    time = rng.uniform(0, days * DAY, size=len(user))
    order = np.argsort(time, kind="stable")
    log = Interactions(user[order], offered[np.arange(len(user)), picked][order], time[order])
    return Shoppers(log, liking)


def write_interactions(path: str | Path, log: Interactions, ids: list[str]) -> None:
    """Writes parquet as `interactions.read_interactions` takes it."""
    time = pa.array((log.time * 1e6).astype(np.int64), pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"user": [f"S{user}" for user in log.user], "product": [ids[row] for row in log.product],
                             "time": time}), path)


def ndcg(relevance: np.ndarray, at: int = 5) -> float:
    """Normalised discounted cumulative gain (Järvelin & Kekäläinen 2002) of relevances in the order of a list; nan if
    all are 0."""
    discount = 1 / np.log2(np.arange(2, at + 2))
    ideal = np.sort(relevance)[::-1][:at]
    best = ideal @ discount[:len(ideal)]
    return float(relevance[:at] @ discount[:len(relevance[:at])] / best) if best else float("nan")


def measure(tagger, seen: dict, ids: list[str], tags, truth: np.ndarray, shoppers: Shoppers, split: str) -> dict:
    """NDCG@5 over the products of which a shopper likes a true tag, and milliseconds per product and profile.

    Args:
        seen: {split: predictions}; tags: float tensor [P, T] over all of them; truth: bool [P, T].
    """
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


def history(shoppers: Shoppers, user: int, tags, entries: list[tuple[str, str]]) -> list[dict]:
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
