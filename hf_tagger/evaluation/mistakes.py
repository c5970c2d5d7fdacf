"""A tagger's confusions, confident mistakes and uncertain products, for people to look at."""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from hf_tagger.evaluation.metrics import outcomes
from hf_tagger.evaluation.predict import Predictions, blocks
from hf_tagger.model.decisions import attribute_slices

NONE = "(none)"


@dataclass
class Verdict:
    """One attribute of a product."""

    attribute: str
    predicted: list[tuple[str, float]]  # tags with scores
    given: list[str] | None  # None: unknown

    @property
    def right(self) -> bool | None:
        return None if self.given is None else {tag for tag, _ in self.predicted} == set(self.given)


@dataclass
class Case:
    """A product worth looking at."""

    row: int  # among the predictions
    id: str
    text: str | None
    reason: str
    verdicts: list[Verdict] = field(default_factory=list)  # those to show


def confusions(predictions: Predictions, most: int = 8) -> dict[str, list[tuple[str, str, int]]]:
    """{attribute: [(given, predicted, products)]}, the commonest first. Each missed tag of a product is paired with
    each false one; "(none)" stands in where there are only missed ones, or only false ones."""
    found = {}
    for attribute, tags, references, chosen, _ in predictions.parts():
        pairs = Counter()
        _, false_alarms, misses, _, _ = outcomes(references, chosen)
        for row in np.flatnonzero((false_alarms | misses).any(1)):
            missed, false = ([tags[column] for column in np.flatnonzero(wrong[row])] or [NONE]
                             for wrong in (misses, false_alarms))
            pairs.update(itertools.product(missed, false))
        found[attribute["name"]] = [(*pair, count) for pair, count in pairs.most_common(most)]
    return found


def confident_mistakes(predictions: Predictions, most: int = 12, per_attribute: int = 4) -> list[Case]:
    """Wrongly given tags with the highest scores, at most `per_attribute` of each attribute and one of each product."""
    candidates = []
    for attribute, tags, references, chosen, scores in predictions.parts():
        width = chosen.shape[1]
        false = chosen & (references[:, :width] == 0)
        rows, columns = np.nonzero(false)
        order = np.argsort(-scores[rows, columns], kind="stable")[:per_attribute]
        candidates += [(float(scores[row, column]), row, attribute["name"], tags[column])
                       for row, column in zip(rows[order], columns[order], strict=True)]
    surest = {}
    for candidate in sorted(candidates, key=lambda item: -item[0]):
        surest.setdefault(candidate[1], candidate)
    return [Case(row, predictions.ids[row], predictions.about[row]["text"], f"{name}: {tag}, {score:.1%} sure",
                 [verdict for verdict in verdicts_of(predictions, row) if verdict.attribute == name])
            for score, row, name, tag in list(surest.values())[:most]]


def uncertain_products(predictions: Predictions, most: int = 12) -> list[Case]:
    """The products with the highest entropy, mean over attributes: that of a `single` attribute's distribution, or the
    mean of a `multi` one's tags, each as a share of the highest possible."""
    shares = []
    for attribute, _, _, _, scores in predictions.parts():
        shares.append(np.concatenate([_doubt(attribute["kind"], scores[rows]) for rows in blocks(*scores.shape)]))
    doubt = np.mean(shares, axis=0)
    return [Case(row, predictions.ids[row], predictions.about[row]["text"], f"doubt {doubt[row]:.2f}",
                 verdicts_of(predictions, row)) for row in np.argsort(-doubt, kind="stable")[:most]]


def _doubt(kind: str, scores: np.ndarray) -> np.ndarray:
    """[N, P] -> [N]"""
    if kind == "single":
        candidates = np.concatenate([scores, 1 - scores.sum(1, keepdims=True)], axis=1).clip(1e-9, 1)
        return -(candidates * np.log(candidates)).sum(1) / np.log(candidates.shape[1])
    p = scores.astype(np.float64).clip(1e-9, 1 - 1e-9)  # in float32 the upper bound would be 1
    return -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean(1) / np.log(2)


def verdicts_of(predictions: Predictions, row: int) -> list[Verdict]:
    """The predicted and the given tags of every attribute of one product."""
    verdicts = []
    for attribute, where in zip(predictions.attributes, attribute_slices(predictions.attributes), strict=True):
        chosen, scores = predictions.chosen[row, where], predictions.scores[row, where]
        predicted = [(attribute["tags"][column], float(scores[column])) for column in np.flatnonzero(chosen)]
        verdicts.append(Verdict(attribute["name"], predicted, predictions.tags[row].get(attribute["name"])))
    return verdicts
