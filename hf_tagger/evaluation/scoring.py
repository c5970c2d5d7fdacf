"""Every metric of a split, with bootstrap intervals, for all its products or any of them.

All metrics but average precision are ratios of sums over products. So what each product adds to the sums is computed
once, as a row of numbers. A resampled split, or a slice of it, is a weighting of these rows: one matrix product scores
a thousand resamples.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from hf_tagger.evaluation.metrics import average_precisions, averaged, mean_of_measured, mean_over, outcomes, tag_ratios
from hf_tagger.evaluation.predict import Predictions, blocks
from hf_tagger.evaluation.probabilities import BINS, calibration_bins, calibration_error, f1_at_k, log_losses

ROWS_AT_ONCE = 16_384
HEAD, MEDIUM = 100, 20  # training products of head tags, and of medium ones (Liu et al. 2019, arXiv 1904.05160)
TOP_K = (1, 3, 5)
RANKED = 20_000_000_000  # resamples x products x tags that are sorted at most


@dataclass
class AttributeRows:
    """What one attribute of each product adds to the sums."""

    name: str
    tags: list[str]  # those of the vocabulary, then those that only occur among the given tags
    # Product and column, int [2, M], by product, of every 1 among the hits, false alarms and misses [N, 3 C].
    outcomes: np.ndarray
    # float32 [N, 5 + 45]: exact, known, log-loss and its number of terms, answered; confidence bins.
    rows: np.ndarray
    references: np.ndarray  # [N, C] and
    scores: np.ndarray  # [N, P], for average precision

    @classmethod
    def of(cls, attribute: dict, tags: list[str], references, chosen, scores) -> "AttributeRows":
        found, rows = [], np.zeros((len(references), 5 + 3 * BINS), np.float32)
        for block in blocks(*references.shape):
            *tag_outcomes, exact, known = outcomes(references[block], chosen[block])
            there = np.nonzero(np.concatenate(tag_outcomes, axis=1))
            found.append(np.stack([there[0] + block.start, there[1]]))
            loss, terms = log_losses(references[block], scores[block], attribute["kind"])
            rows[block, :5] = np.stack([exact, known, loss, terms, known & chosen[block].any(1)], axis=1)
            bins = calibration_bins(references[block], scores[block], attribute["kind"])
            rows[block, 5:] = bins.reshape(len(bins), -1)
        found = np.concatenate(found, axis=1) if found else np.zeros((2, 0), int)
        return cls(attribute["name"], tags, found, rows, references, scores)

    def of_rows(self, rows: np.ndarray) -> "AttributeRows":
        """These products, int [n]."""
        first, last = (np.searchsorted(self.outcomes[0], rows, side=side) for side in ("left", "right"))
        place = np.repeat(np.arange(len(rows)), last - first)
        entry = np.arange(len(place)) - np.repeat((last - first).cumsum() - last, last - first)
        return replace(self, outcomes=np.stack([place, self.outcomes[1, entry]]), rows=self.rows[rows],
                       references=self.references[rows], scores=self.scores[rows])

    def sums(self, weights: np.ndarray | None) -> np.ndarray:
        """Weighted sums [G, 3 C + 5 + 45] over the products."""
        product, column = self.outcomes[:, np.argsort(self.outcomes[1], kind="stable")]
        columns, starts = np.unique(column, return_index=True)
        tags = np.zeros((1 if weights is None else len(weights), 3 * len(self.tags)))
        if weights is None:
            tags[0] = np.bincount(column, minlength=tags.shape[1])
        elif len(columns):
            for block in blocks(len(weights), len(product)):
                tags[block, columns] = np.add.reduceat(weights[block, product], starts, axis=1, dtype=np.float64)
        return np.concatenate([tags, _weighted(self.rows, weights)], axis=1)

    def counts(self, sums: np.ndarray) -> np.ndarray:
        """`sums` [..., K] -> `TagCounts.tags` [..., 3, C]."""
        return sums[..., :3 * len(self.tags)].reshape(*sums.shape[:-1], 3, len(self.tags))

    def bins(self, sums: np.ndarray) -> np.ndarray:
        """`sums` [..., K] -> confidence bins [..., 3, 15]."""
        return sums[..., -3 * BINS:].reshape(*sums.shape[:-1], 3, BINS)

    def metrics(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Every score but average precision from `sums` [..., K]."""
        exact, known, loss, terms, answered = np.moveaxis(sums[..., 3 * len(self.tags):-3 * BINS], -1, 0)
        return {"accuracy": mean_over(exact, known), **averaged(self.counts(sums)), "log_loss": mean_over(loss, terms),
                "coverage": mean_over(answered, known), "ece": calibration_error(self.bins(sums))}


class Scorer:
    """Scores of one set of predictions."""

    def __init__(self, predictions: Predictions):
        self.training_counts = {entry["name"]: entry.get("counts") or [] for entry in predictions.attributes}
        self.parts = [AttributeRows.of(*part) for part in predictions.parts()]
        self.overall = _overall_rows(self.parts, len(predictions.ids))

    def subset(self, rows: np.ndarray) -> "Scorer":
        """The scores of some products only: indices, or bool [N]."""
        other, rows = copy(self), np.arange(len(self))[rows]
        other.overall = self.overall[rows]
        other.parts = [part.of_rows(rows) for part in self.parts]
        return other

    def __len__(self) -> int:
        return len(self.overall)

    def scores(self, weights: np.ndarray | None = None, precisions: bool = True) -> dict[str, np.ndarray]:
        """{metric: value [G]}, NaN where nothing can be measured.

        Args:
            weights: how often each product counts, [G, N] for G sets of products; default: one set of all [1, N].
            precisions: also average precision, which costs a sort per tag.

        Metrics: "<attribute>/" accuracy, micro_, macro_ and weighted_ precision, recall and f1, log_loss, coverage
        (known products that are given a tag), ece, average_precision; over all attributes micro_f1, macro_f1,
        weighted_f1, map (means over every tag), log_loss and ece (means over the attributes), subset_accuracy (products
        whose every known attribute is right), f1@1, f1@3, f1@5; and over the tags of one frequency in training,
        head/macro_f1, medium/macro_f1, tail/macro_f1.
        """
        found, counts, average = {}, [], []
        for part in self.parts:
            sums = part.sums(weights)
            counts.append(part.counts(sums))
            found |= {f"{part.name}/{metric}": value for metric, value in part.metrics(sums).items()}
            if precisions:
                average.append(np.atleast_2d(average_precisions(part.references, part.scores, weights)))
                found[f"{part.name}/average_precision"] = mean_of_measured(average[-1])
        tags = np.concatenate(counts, axis=-1)
        overall = averaged(tags)
        found |= {name: overall[name] for name in ("micro_f1", "macro_f1", "weighted_f1")}
        if precisions:
            found["map"] = mean_of_measured(np.concatenate(average, axis=-1))
        for name in ("log_loss", "ece"):
            found[name] = mean_of_measured(np.stack([found[f"{part.name}/{name}"] for part in self.parts], axis=-1))
        sums = _weighted(self.overall, weights)
        for index, name in enumerate(["subset_accuracy", *(f"f1@{k}" for k in TOP_K)]):
            found[name] = mean_over(sums[..., 2 * index], sums[..., 2 * index + 1])
        for name, columns in self.frequency().items():
            found[f"{name}/macro_f1"] = averaged(tags[..., columns])["macro_f1"]
        return found

    def frequency(self) -> dict[str, np.ndarray]:
        """bool [all C] of "head" (100 and more training products), "medium" (20 and more), "tail" tags (fewer, or
        never seen), as far as the model's config counts them."""
        if not any(self.training_counts.values()):
            return {}
        known = [(self.training_counts[part.name], len(part.tags)) for part in self.parts]
        counts = np.concatenate([np.pad(counts, (0, tags - len(counts))) for counts, tags in known])
        return {"head": counts >= HEAD, "medium": (counts < HEAD) & (counts >= MEDIUM), "tail": counts < MEDIUM}

    def summary(self, resamples: int = 0, seed: int = 0, precisions: bool = True) -> dict[str, dict]:
        """{metric: {"value", "low", "high"}}: the score and its 95 % bootstrap interval (without resamples, the score
        alone), of all metrics that can be measured.

        The interval is that of the percentiles over resampled products, moved so that their median falls on the score.
        Resamples are biased: of the tags with one product every third is lost and others occur twice, which shifts
        macro means and calibration errors. Average precision has none where its ranking would take longer than minutes.
        """
        values = {name: float(value[0]) for name, value in self.scores(None, precisions).items()}
        summary = {name: {"value": value} for name, value in values.items() if not np.isnan(value)}
        if resamples and len(self) > 1:
            ranked = resamples * len(self) * sum(len(part.tags) for part in self.parts)
            drawn = self.scores(draw(len(self), resamples, seed), precisions and ranked <= RANKED)
            for name, entry in summary.items():
                if name not in drawn:
                    continue
                low, middle, high = (float(bound) for bound in np.nanpercentile(drawn[name], [2.5, 50, 97.5]))
                entry["low"] = max(entry["value"] - (middle - low), 0.0)
                entry["high"] = entry["value"] + (high - middle)
                if not name.endswith("log_loss"):
                    entry["high"] = min(entry["high"], 1.0)
        return summary

    def per_tag(self, resamples: int = 0, seed: int = 0) -> list[dict]:
        """One row per tag: attribute, tag, training (products, None where not counted), support, predicted, hits,
        precision, recall, f1, average_precision, f1_low and f1_high. In a resample without the tag its F1 counts as 0:
        the interval of a tag with a product or two should be wide."""
        rows = []
        weights = draw(len(self), resamples, seed) if resamples and len(self) > 1 else None
        for part in self.parts:
            hits, false_alarms, misses = counts = part.counts(part.sums(None)[0])
            ratios, average = tag_ratios(counts), average_precisions(part.references, part.scores)
            bounds = np.full((2, len(part.tags)), np.nan)
            if weights is not None:
                drawn = tag_ratios(part.counts(part.sums(weights)))
                bounds = np.percentile(drawn["f1"], [2.5, 97.5], axis=0)
            training = self.training_counts[part.name]
            for column, tag in enumerate(part.tags):
                seen = int(training[column]) if column < len(training) else 0
                rows.append({
                    "attribute": part.name, "tag": tag, "training": seen if training else None,
                    "support": int(hits[column] + misses[column]), "hits": int(hits[column]),
                    "predicted": int(hits[column] + false_alarms[column]),
                    **{name: float(values[column]) for name, values in ratios.items()},
                    "f1_low": float(bounds[0, column]), "f1_high": float(bounds[1, column]),
                    "average_precision": float(average[column]),
                })
        return rows

    def reliability(self) -> dict[str, np.ndarray]:
        """{attribute: confidence bins [3, 15]}: predictions, summed confidence, right ones."""
        return {part.name: part.bins(part.sums(None)[0]) for part in self.parts}

    def unseen(self) -> dict[str, dict[str, int]]:
        """{attribute: {tag: products}} of given tags that the model does not know."""
        found = {}
        for part in self.parts:
            support = (part.references[:, part.scores.shape[1]:] == 1).sum(0)
            found[part.name] = dict(zip(part.tags[part.scores.shape[1]:], support.tolist(), strict=True))
        return {name: tags for name, tags in found.items() if tags}


def draw(products: int, resamples: int, seed: int) -> np.ndarray:
    """How often each product is drawn, uint8 [resamples, products]: Poisson(1), the limit of drawing with
    replacement (Chamandy et al. 2012, "Estimating uncertainty for massive data streams")."""
    return np.random.default_rng(seed).poisson(1.0, (resamples, products)).astype(np.uint8)


def _weighted(rows: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Weighted sums of rows [N, K] -> [G, K]."""
    if weights is None:
        return rows.sum(0, dtype=np.float64)[None]
    total = np.zeros((len(weights), rows.shape[1]))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        chunk = slice(start, start + ROWS_AT_ONCE)
        total += weights[:, chunk].astype(np.float32) @ rows[chunk]
    return total


def _overall_rows(parts: Sequence[AttributeRows], products: int) -> np.ndarray:
    """[N, 8]: every known attribute right, any attribute known; then F1@k over the tags of all attributes."""
    exact, known = np.ones(products, bool), np.zeros(products, bool)
    for part in parts:
        right, there = part.rows[:, 0] > 0, part.rows[:, 1] > 0
        exact &= right | ~there
        known |= there
    found = np.zeros((products, 2 + 2 * len(TOP_K)), np.float32)
    found[:, :2] = np.stack([exact & known, known], axis=1)
    for rows in blocks(products, sum(part.references.shape[1] for part in parts)):
        inside = [part.references[rows, : part.scores.shape[1]] for part in parts]
        outside = [part.references[rows, part.scores.shape[1]:] for part in parts]
        references = np.concatenate(inside + outside, axis=1)
        scores = np.concatenate([part.scores[rows] for part in parts], axis=1)
        for index, k in enumerate(TOP_K, 1):
            found[rows, 2 * index], found[rows, 2 * index + 1] = f1_at_k(references, scores, k)
    return found
