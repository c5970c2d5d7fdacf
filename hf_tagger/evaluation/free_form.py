"""Metrics of free-form tags, sets of strings, as an `evaluate.Metric` that needs no Hub.

    predictions  list of lists of str: the tags written of each product, best first, as they were written
    references   list of lists of str: its true tags, in any order

Tags are compared without regard to case, width (NFKC) and spaces. F1 is micro-averaged: over all tags of all products.
"""

from collections.abc import Callable, Sequence

import datasets
import evaluate
import numpy as np

from hf_tagger.model.decisions import fold

TAGS = datasets.Sequence(datasets.Value("string"))
FEW, RATIOS = 5, ("precision", "recall", "f1")
Counts = tuple[int, int, int]


def unique(tags: Sequence[str]) -> list[str]:
    """Folded tags, each once, in their order."""
    return list(dict.fromkeys(fold(tag) for tag in tags))


def ratios(counts: Counts) -> tuple[float, float, float]:
    """(right, written, true) -> precision, recall, F1; where nothing is written and nothing true, all are 1."""
    right, written, true = counts
    if not written and not true:
        return 1.0, 1.0, 1.0
    return right / written if written else 0.0, right / true if true else 0.0, 2 * right / (written + true)


def set_counts(predictions, references, keep: Callable[[int, str], bool] | None = None,
               limit: int | None = None) -> np.ndarray:
    """Per product how many tags are right, written and true, int [N, 3]; of the folded tags those that `keep` takes by
    their row, and of the written ones the first `limit`."""
    counts = np.zeros((len(predictions), 3), int)
    for row, (predicted, reference) in enumerate(zip(predictions, references, strict=True)):
        predicted, reference = unique(predicted)[:limit], unique(reference)
        if keep is not None:
            predicted = [tag for tag in predicted if keep(row, tag)]
            reference = [tag for tag in reference if keep(row, tag)]
        counts[row] = len(set(predicted) & set(reference)), len(predicted), len(reference)
    return counts


def _set_ratios(*arguments, **options) -> tuple[float, float, float]:
    return ratios(set_counts(*arguments, **options).sum(0).tolist())


def set_scores(predictions, references) -> dict[str, float]:
    """Precision, recall and F1 of the written set: {"precision@M", "recall@M", "f1@M"} of all that is written (M), and
    the same of the first five ("@5"); and {"exact_match"}, the share of products whose set is written exactly."""
    scores = {}
    for name, limit in (("M", None), (str(FEW), FEW)):
        values = _set_ratios(predictions, references, limit=limit)
        scores |= {f"{ratio}@{name}": value for ratio, value in zip(RATIOS, values, strict=True)}
    exact = [set(unique(predicted)) == set(unique(reference))
             for predicted, reference in zip(predictions, references, strict=True)]
    return scores | {"exact_match": sum(exact) / len(exact)}


def stands_in(texts: Sequence[str]) -> Callable[[int, str], bool]:
    """(row, tag) -> whether the tag stands in the text of that row."""
    spaced = [_spaced(text) for text in texts]

    def stands(row: int, tag: str) -> bool:
        tag = _spaced(tag)
        # Chinese, Japanese and Thai have no spaces around a word.
        return (tag if tag.isascii() else tag.strip()) in spaced[row]

    return stands


def present_absent_scores(predictions, references, texts) -> dict[str, float]:
    """F1 of the tags that stand in the product's text ("" where there is none) and of those that do not:
    {"present/f1@M", "present/recall@M", "absent/f1@M", "absent/recall@M"}."""
    stands, scores = stands_in(texts), {}
    for name, wanted in (("present", True), ("absent", False)):
        _, scores[f"{name}/recall@M"], scores[f"{name}/f1@M"] = _set_ratios(
            predictions, references, lambda row, tag, wanted=wanted: stands(row, tag) is wanted)
    return scores


def _spaced(text: str) -> str:
    """A text's words with a space around each."""
    return f" {fold(''.join(letter if letter.isalnum() else ' ' for letter in text))} "


class FreeFormMetrics(evaluate.Metric):
    """`set_scores`, `present_absent_scores`, and of the written tags the share that repeats an earlier one of their
    product ("duplicate_rate") and the share that `vocabulary`, a list of tags given to `compute`, does not hold
    ("out_of_vocabulary_rate")."""

    def _info(self):
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", inputs_description=__doc__ or "",
            features=datasets.Features({"predictions": TAGS, "references": TAGS, "texts": datasets.Value("string")}))

    def _compute(self, predictions, references, texts, vocabulary: Sequence[str] = ()):
        known = set(unique(vocabulary))
        written = [fold(tag) for tags in predictions for tag in tags]
        rates = {"duplicate_rate": len(written) - sum(len(unique(tags)) for tags in predictions),
                 "out_of_vocabulary_rate": sum(tag not in known for tag in written)}
        return (set_scores(predictions, references) | present_absent_scores(predictions, references, texts)
                | {name: count / max(len(written), 1) for name, count in rates.items()})


def score_free_form(
    predictions: list[list[str]],
    references: list[list[str]],
    texts: list[str | None],
    languages: list[str | None],
    vocabulary: Sequence[str] = (),
) -> dict[str, float]:
    """`FreeFormMetrics` of a split, and "<language>/f1@M" for each language in it. Raises ValueError where there is no
    product."""
    if not predictions:
        raise ValueError("no product with known free-form tags to score")
    scores = FreeFormMetrics().compute(predictions=predictions, references=references,
                                       texts=[text or "" for text in texts], vocabulary=vocabulary)
    for language in sorted({language for language in languages if language}):
        rows = [row for row, own in enumerate(languages) if own == language]
        found = set_scores([predictions[row] for row in rows], [references[row] for row in rows])
        scores[f"{language}/f1@M"] = found["f1@M"]
    return scores
