"""Fits, on interaction logs, how far a shopper's profile moves a tag: see `hf_tagger/model/reranking.py`.

A log says who met which product and when. Each interaction is taken as a choice between that product and others from
the log (conditional logit, McFadden 1974). A product's utility is the sum over attributes of gate x the mean closeness
of its tags to the profile that the shopper had by then.
"""

from collections.abc import Sequence

import numpy as np
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.convex import minimise
from hf_tagger.feedback.interactions import Interactions
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.reranking import DAY, affinities

HALF_LIVES = (3.0, 10.0, 30.0, 100.0, None)
PRIORS = (0.5, 2.0, 8.0, 32.0)
OTHERS = 20
LATEST = 0.2


def histories(log: Interactions, tags: torch.Tensor, half_life_days: float | None) -> torch.Tensor:
    """How often each interaction's shopper had met each tag before it [N, T], as `reranking.met_tags` counts."""
    met = torch.zeros(len(log.user), tags.shape[1])
    through: dict[int, tuple[torch.Tensor, float]] = {}  # per shopper, as of the latest interaction, with it
    for row, (user, product, time) in enumerate(zip(*map(np.ndarray.tolist, (log.user, log.product, log.time)),
                                                    strict=True)):
        now = tags[product]
        if user in through:
            met[row], before = through[user]
            faded = 1.0 if half_life_days is None else 0.5 ** ((time - before) / DAY / half_life_days)
            now = now + met[row] * faded
        through[user] = now, time
    return met


def choice_features(log: Interactions, rows: np.ndarray, close: torch.Tensor, tags: torch.Tensor,
                    attributes: Sequence[dict], seed: int) -> torch.Tensor:
    """Mean closeness of the tags of each choice's products per attribute [n, 1 + OTHERS, A], the chosen product first.

    Args:
        rows: int [n] of the log; close: float [N, T], see `reranking.affinities`; tags: float [P, T], the scores of the
            tags that products have, 0 for others.
    """
    drawn = np.random.default_rng(seed).integers(len(log.product), size=(len(rows), OTHERS))
    shown = torch.from_numpy(np.concatenate([log.product[rows, None], log.product[drawn]], axis=1))
    features = []
    for where in attribute_slices(attributes):
        part = tags[:, where]
        amount = part.sum(1).clamp(min=1.0)
        features.append(torch.einsum("nct,nt->nc", part[shown], close[rows][:, where]) / amount[shown])
    return torch.stack(features, dim=2)


def fit_gates(features: torch.Tensor) -> torch.Tensor:
    """Gates [A] that make the chosen products [n, 0] of `choice_features` likeliest. They are pulled towards 0, where
    nothing is explained, with the weight of one interaction."""

    def loss(gates):
        return choice_losses(features.double(), gates).mean()

    return minimise(loss, torch.zeros(features.shape[2], dtype=torch.float64), pull=1 / len(features))


def choice_losses(features: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """-log(probability of the chosen product) [n]; log(1 + OTHERS) with gates of 0."""
    return -(features @ gates.to(features.dtype)).log_softmax(1)[:, 0]


def fit_personalization(log: Interactions, tags: torch.Tensor, vectors: torch.Tensor,
                        attributes: Sequence[dict], seed: int = 0) -> tuple[dict, dict[str, float]]:
    """The config's `personalization`, and how well it explains the latest fifth of the interactions: "loss", beside the
    "loss_of_chance" of a model that knows no shopper. Half-life and prior are the ones that do so best.

    Args:
        tags: float [P, T], scores of the tags that products have, 0 for others; vectors: `tag_vectors` [T, E].

    Raises ConfigError where too few shoppers come back, or the latest choices are explained no better than by chance.
    """
    first_of_shopper = np.unique(log.user, return_index=True)[1]
    returning = np.setdiff1d(np.arange(len(log.user)), first_of_shopper)
    cut = int(len(returning) * (1 - LATEST))
    if cut < 2 or cut == len(returning):
        raise ConfigError(f"the log has {len(returning)} interactions of shoppers who had one before; that is too few "
                          "to fit anything")
    best = None
    for half_life in HALF_LIVES:
        met = histories(log, tags, half_life)
        for prior in PRIORS:
            close = affinities(vectors, attributes, met, prior)
            gates = fit_gates(choice_features(log, returning[:cut], close, tags, attributes, seed))
            held_out = choice_features(log, returning[cut:], close, tags, attributes, seed + 1)
            losses = choice_losses(held_out, gates)
            if best is None or losses.mean() < best[0].mean():
                best = losses, half_life, prior, gates
    losses, half_life, prior, gates = best
    loss, chance = float(losses.mean()), float(np.log(1 + OTHERS))
    # The best of several settings beats chance by luck alone: three standard errors leave room for that.
    error = float(losses.std() / len(losses) ** 0.5)
    if loss + 3 * error >= chance:
        raise ConfigError(f"the latest choices of the log are explained no better than by chance ({loss:.4f} ± "
                          f"{error:.4f} against {chance:.4f} nats): there is nothing to personalise by, and nothing "
                          "was stored")
    names = [entry["name"] for entry in attributes]
    settings = {"half_life_days": half_life, "prior": prior,
                "gates": {name: round(gate, 4) for name, gate in zip(names, gates.tolist(), strict=True)}}
    return settings, {"interactions": len(log.user), "loss": round(loss, 4), "loss_of_chance": round(chance, 4)}
