"""What reorders a product's tags after they are scored: a shopper's preferences, from what they viewed or bought.

Per attribute, a shopper's profile is the mean embedding of the tags of what they viewed or bought, recent ones with
more weight, minus the mean over all products. A tag's preference is its similarity to the profile times a gate of the
attribute. Gates, half-life and prior are fitted on interaction logs (`hf_tagger/training/personalization.py`) and kept
in the config as plain data:

    "personalization": {"half_life_days": 30.0, "prior": 2.0, "gates": {"colour": 1.7, "category": 0.4}}

Tags are then ordered by log(score) + preference: the probability that a tag is right, times how much more often than
others this shopper chooses products with it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from .decisions import attribute_slices

DAY = 86400.0


@dataclass(frozen=True)
class ShopperProfile:
    """A shopper's preferences, {attribute: {tag: preference}}, 0 for an average tag. It replaces the history, and is
    stored only by `save`."""

    preferences: dict[str, dict[str, float]]

    def of(self, tag: Mapping[str, Any]) -> float:
        """The preference for a tag of the pipeline's output; 0 for a free-form one."""
        return self.preferences.get(tag["attribute"], {}).get(tag["label"], 0.0)

    def save(self, path: str | os.PathLike) -> None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.preferences, file, ensure_ascii=False)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ShopperProfile":
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))


def tag_vectors(tag_head: nn.Module, attributes: Sequence[dict]) -> torch.Tensor:
    """Embeddings of the tags [T, E], centred per attribute, of unit length."""
    vectors = tag_head.embeddings.weight.detach().float()
    parts = []
    for where in attribute_slices(attributes):
        part = vectors[where] - vectors[where].mean(0)
        parts.append(part / part.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return torch.cat(parts)


def affinities(vectors: torch.Tensor, attributes: Sequence[dict], history: torch.Tensor, prior: float) -> torch.Tensor:
    """Similarity of each tag to the shoppers' profiles [U, T], with a mean of 0 over an attribute's training products;
    0 for an attribute without any history.

    Args:
        vectors: of `tag_vectors`.
        history: of `met_tags`, for each shopper [U, T].
        prior: the number of tags at which a profile has half its full length.
    """
    found = torch.zeros_like(history)
    for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
        part, met = vectors[where], history[:, where]
        usual = torch.tensor(attribute.get("counts") or [0.0] * part.shape[0], device=part.device) + 1.0
        usual = usual / usual.sum()
        amount = met.sum(1, keepdim=True)
        profile = (met - amount * usual) @ part / (amount + prior)
        close = profile @ part.T
        found[:, where] = close - (close * usual).sum(1, keepdim=True)
    return found


def read_events(history: Sequence[Any]) -> list[dict[str, Any]]:
    """Entries of a `user_history` -> [{"time": seconds | None, "weight": float, "product": ... or "tag": (attribute,
    tag)}].

    An entry is {"label", "attribute", "weight"?, "time"?}, {"product": ..., "weight"?, "time"?}, or a product as the
    pipeline takes it. Times are datetimes, ISO 8601 or seconds since 1970, without a zone in UTC.

    Raises ValueError, naming the entry, for anything else.
    """
    if isinstance(history, str | Mapping):
        raise ValueError("user_history is a list of products or tags: put the single one into a list")
    events = []
    for number, entry in enumerate(history):
        event: dict[str, Any] = {"time": None, "weight": 1.0, "product": entry}
        if isinstance(entry, Mapping) and ("label" in entry or "product" in entry):
            known = {"product", "weight", "time"} if "product" in entry else {"label", "attribute", "weight", "time"}
            # A tag may have all the keys of the pipeline's output.
            strange = set(entry) - known - ({"score", "source"} if "label" in entry else set())
            missing = {"label", "attribute"} - set(entry) if "label" in entry else set()
            if strange or missing:
                what = f"unknown key {min(strange)!r}" if strange else f"no {min(missing)}"
                raise ValueError(f"user_history[{number}] has {what}; an entry has {', '.join(sorted(known))}")
            event = {"time": _seconds(entry.get("time"), number), "weight": entry.get("weight", 1.0)}
            event |= {"product": entry["product"]} if "product" in entry else {
                "tag": (entry["attribute"], entry["label"])}
            if not isinstance(event["weight"], int | float) or not 0 <= event["weight"] < float("inf"):
                raise ValueError(f"user_history[{number}]: weight is a number from 0, got {event['weight']!r}")
        events.append(event)
    return events


def met_tags(events: Sequence[dict], attributes: Sequence[dict], half_life_days: float | None) -> torch.Tensor:
    """Summed weight of a shopper's events for each tag [T]. The weight halves with every half-life that an event is
    older than the newest (None: never); events without a time are as new as the newest. Unknown tags do not count.

    Args:
        events: of `read_events`, with products replaced by "tags": [{"label", "attribute", "score"}].
    """
    columns = {(entry["name"], tag): where.start + place
               for entry, where in zip(attributes, attribute_slices(attributes), strict=True)
               for place, tag in enumerate(entry["tags"])}
    met = torch.zeros(len(columns))
    newest = max((event["time"] for event in events if event["time"] is not None), default=0.0)
    for event in events:
        age = newest - event["time"] if event["time"] is not None else 0.0
        weight = event["weight"] * (1.0 if half_life_days is None else 0.5 ** (age / DAY / half_life_days))
        tags = event["tags"] if "tags" in event else [{"attribute": event["tag"][0], "label": event["tag"][1]}]
        for tag in tags:
            column = columns.get((tag["attribute"], tag["label"]))
            if column is not None:
                met[column] += weight * tag.get("score", 1.0)
    return met


def shopper_profile(model, events: Sequence[dict]) -> ShopperProfile:
    """The profile of a shopper with these events (as `met_tags` takes them).

    Raises ValueError for a model without fitted gates.
    """
    config, attributes = model.config, model.config.attributes
    check_gate(config.personalization)
    settings = config.personalization
    met = met_tags(events, attributes, settings["half_life_days"])
    vectors = tag_vectors(model.tag_head, attributes).to(met.device)
    close = affinities(vectors, attributes, met[None], settings["prior"])[0].tolist()
    return ShopperProfile({
        entry["name"]: {tag: settings["gates"].get(entry["name"], 0.0) * value
                        for tag, value in zip(entry["tags"], close[where], strict=True)}
        for entry, where in zip(attributes, attribute_slices(attributes), strict=True)})


def check_gate(settings: dict | None) -> None:
    if settings is None:
        raise ValueError("user_history needs a gate fitted on interaction logs, and this model has none: run "
                         "recipes/fit_personalization.py, or leave the option out")


def _seconds(time: Any, number: int) -> float | None:
    if isinstance(time, str):
        try:
            time = datetime.fromisoformat(time)
        except ValueError as error:
            raise ValueError(f"user_history[{number}]: time is ISO 8601, a datetime or seconds: {error}") from error
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if time is None or isinstance(time, int | float) and time == time:
        return time
    raise ValueError(f"user_history[{number}]: time is ISO 8601, a datetime or seconds since 1970, got {time!r}")


__all__ = ["ShopperProfile", "affinities", "check_gate", "met_tags", "read_events", "shopper_profile",
           "tag_vectors"]
