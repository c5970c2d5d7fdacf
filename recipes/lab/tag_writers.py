"""Ways to give a product tags that no short list holds, for `benchmark_free_form_rivals.py`.

Each is fitted on training products and answers with all tags that it can say anything about, scored: how many of them
are listed is chosen on validation for all alike.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hf_tagger.evaluation.baselines import tfidf_of_words
from hf_tagger.evaluation.free_form import stands_in, unique
from hf_tagger.model.decisions import fold

Scored = list[list[tuple[str, float]]]  # per product (tag, score), best first

WIDEST = 100  # tags that a product is answered with, at most
NEIGHBOURS = (1, 2, 3, 5, 10, 20)
ALPHAS = (3e-6, 1e-5, 3e-5)
COMMON = 100  # tags that `alpha` is chosen by, the commonest
SMOOTHING = 1.0
FEATURES = 40_000  # of words, and of letters: a weight for each and every tag is held
PHRASES = 40  # candidates per text


@dataclass
class Texts:
    """Products whose free-form tags are known."""

    texts: list[str]
    languages: list[str | None]
    tags: list[list[str]]  # folded

    @classmethod
    def of(cls, records: Sequence[dict]) -> "Texts":
        known = [record for record in records if any(tags is not None for tags in record["free_form"].values())]
        return cls([record["text"] or "" for record in known], [record["language"] for record in known],
                   [unique([tag for tags in record["free_form"].values() for tag in tags or ()]) for record in known])


def listed(names: Sequence[str], scores: np.ndarray) -> Scored:
    """Scores [N, T] of the tags `names` -> the best of each product."""
    return [[(names[tag], float(row[tag])) for tag in np.argsort(-row, kind="stable")[:WIDEST]] for row in scores]


def indicators(train: Texts) -> tuple[list[str], np.ndarray]:
    """All tags of the training products, and which product has which: bool [N, T]."""
    names = list(Counter(tag for tags in train.tags for tag in tags))
    place = {name: number for number, name in enumerate(names)}
    given = np.zeros((len(train.tags), len(names)), bool)
    for row, tags in zip(given, train.tags, strict=True):
        row[[place[tag] for tag in tags]] = True
    return names, given


class TfidfRegression:
    """TF-IDF and a logistic regression per tag by stochastic gradient."""

    def __init__(self, train: Texts, validation: Texts):
        self.vectorizer = tfidf_of_words(FEATURES)
        features = self.vectorizer.fit_transform(train.texts)
        self.names, given = indicators(train)
        common = np.argsort(-given.sum(0), kind="stable")[:COMMON]
        known = np.array([[self.names[tag] in tags for tag in common] for tags in validation.tags])
        losses = {alpha: self._loss(features, given[:, common], validation, known, alpha) for alpha in ALPHAS}
        alpha = min(losses, key=losses.get)
        self.choice = f"alpha {alpha:g}"
        self.weights, self.bias = self._fit(features, given, alpha)

    @staticmethod
    def _fit(features, given: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.linear_model import SGDClassifier

        weights, bias = np.zeros((given.shape[1], features.shape[1]), np.float32), np.zeros(given.shape[1], np.float32)
        for tag, column in enumerate(given.T):
            fitted = SGDClassifier(loss="log_loss", alpha=alpha, max_iter=15, tol=None, random_state=0)
            fitted.fit(features, column)
            weights[tag], bias[tag] = fitted.coef_[0], fitted.intercept_[0]
        return weights, bias

    def _loss(self, features, given: np.ndarray, validation: Texts, known: np.ndarray, alpha: float) -> float:
        weights, bias = self._fit(features, given, alpha)
        logits = self.vectorizer.transform(validation.texts) @ weights.T + bias
        return float(np.logaddexp(0, np.where(known, -logits, logits)).mean())

    def __call__(self, products: Texts) -> Scored:
        return listed(self.names, self.vectorizer.transform(products.texts) @ self.weights.T + self.bias)


class Neighbours:
    """Tags of the most similar training products, each vote weighted by the similarity: the cosine of TF-IDF, of a text
    tower's centred vectors, or the sum of both.

    Args:
        embed: texts -> unit vectors [N, F] of the tower.
        judge: what is answered of validation -> how good it is; chooses similarity and number of neighbours.
    """

    def __init__(self, train: Texts, embed: Callable, validation: Texts, judge: Callable[[Scored], float]):
        self.names, self.given = indicators(train)
        self.embed, self.vectorizer = embed, tfidf_of_words(FEATURES)
        self.words = self.vectorizer.fit_transform(train.texts)
        vectors = embed(train.texts)
        self.mean = vectors.mean(0)
        self.vectors = _unit(vectors - self.mean)
        found = self._similarities(validation)
        tried = {(name, count): judge(self._vote(similarity, count)) for name, similarity in found.items()
                 for count in NEIGHBOURS}
        self.space, self.count = max(tried, key=tried.get)
        self.choice = f"{self.count} neighbours by {self.space}"

    def _similarities(self, products: Texts) -> dict[str, np.ndarray]:
        words = (self.vectorizer.transform(products.texts) @ self.words.T).toarray()
        tower = _unit(self.embed(products.texts) - self.mean) @ self.vectors.T
        # The union of two vectorizers of unit length has a length of sqrt(2).
        return {"TF-IDF": words / 2, "the text tower": tower, "TF-IDF and the text tower": words / 2 + tower}

    def _vote(self, similarity: np.ndarray, count: int) -> Scored:
        scores = np.zeros((len(similarity), len(self.names)))
        for row, own in zip(scores, similarity, strict=True):
            nearest = np.argsort(-own, kind="stable")[:count]
            weight = own[nearest].clip(1e-6)
            row[:] = weight @ self.given[nearest] / weight.sum()
        return [[(tag, score) for tag, score in row if score > 0] for row in listed(self.names, scores)]

    def __call__(self, products: Texts) -> Scored:
        return self._vote(self._similarities(products)[self.space], self.count)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)


class NamedInText:
    """Tags of the training products that stand in the text, scored by how often a product whose text names the tag has
    it."""

    choice = ""

    def __init__(self, train: Texts):
        self.names, given = indicators(train)
        named = self._named(train)
        self.share = ((given & named).sum(0) + SMOOTHING * 0.5) / (named.sum(0) + SMOOTHING)

    def _named(self, products: Texts) -> np.ndarray:
        stands = stands_in(products.texts)
        return np.array([[stands(row, name) for name in self.names] for row in range(len(products.texts))])

    def __call__(self, products: Texts) -> Scored:
        rows = listed(self.names, self._named(products) * self.share)
        return [[(tag, score) for tag, score in row if score > 0] for row in rows]


class Keyphrases:
    """Phrases of up to three words of the text itself, by the similarity of their embedding to the whole text's (after
    KeyBERT, Grootendorst 2020)."""

    choice = ""

    def __init__(self, embed: Callable[[Sequence[str]], np.ndarray]):
        from sklearn.feature_extraction.text import CountVectorizer

        self.embed = embed
        self.phrases_of = CountVectorizer(ngram_range=(1, 3), token_pattern=r"(?u)\b[^\W\d]\w+\b").build_analyzer()

    def __call__(self, products: Texts) -> Scored:
        phrases = [list(dict.fromkeys(map(fold, self.phrases_of(text))))[:PHRASES] for text in products.texts]
        known = list(dict.fromkeys(phrase for row in phrases for phrase in row))
        vectors, place = self.embed(known), {phrase: number for number, phrase in enumerate(known)}
        found = []
        for row, whole in zip(phrases, self.embed(products.texts), strict=True):
            scores = vectors[[place[phrase] for phrase in row]] @ whole if row else []
            found.append(sorted(zip(row, map(float, scores), strict=True), key=lambda pair: -pair[1]))
        return found


def embed_by(tagger, batch_size: int = 64) -> Callable[[Sequence[str]], np.ndarray]:
    """Texts -> unit vectors [N, F] of a tagger's text tower."""
    @torch.no_grad()
    def embed(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = None
        for start in range(0, len(order), batch_size):
            rows = order[start:start + batch_size]
            tokens = tagger.processor.tokenize([texts[row] or "-" for row in rows])
            found = tagger.model.encoder.run_towers(**{key: tokens[key] for key in ("input_ids", "attention_mask")})
            part = torch.nn.functional.normalize(found.text.float(), dim=1).numpy()
            vectors = np.zeros((len(texts), part.shape[1]), np.float32) if vectors is None else vectors
            vectors[rows] = part
        return vectors

    return embed
