"""Simulated shoppers with known tastes, to test personal tags.

Every shopper likes a few tags, each to its own degree, and repeatedly chooses one of several products: with a
probability that is the softmax of the summed liking of each product's true tags. The model sees the choices only, and
its own tags, which may be wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.feedback.interactions import Interactions
from hf_tagger.model.reranking import DAY


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
