"""Simpler methods that a tagger has to beat: rules, a bag of words, nearest neighbours.

Each is fitted on training products and gives `Predictions` of others, to be calibrated and scored as a tagger's are.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.text import WORD, stem

NEVER = -30.0  # log-probability of a tag that no training product has
NEIGHBOURS = (1, 3, 5, 10, 20, 50)


@dataclass
class Products:
    """Labelled products."""

    ids: list[str]
    tags: list[dict[str, list[str] | None]]
    about: list[dict]  # what else reports need, see `Predictions`
    texts: list[str | None] = field(default_factory=list)  # for methods that read; None: a product without text

    @classmethod
    def read(cls, records: Iterable[dict | Refusal], without: Iterable[str] = ()) -> "Products":
        """The products of `Catalog.records` that have text or photos besides the hidden modalities."""
        found = cls([], [], [])
        for record in records:
            if isinstance(record, Refusal):
                continue
            text = None if "text" in without else record["text"]
            photos = 0 if "image" in without else len(record["images"])
            if text or photos:
                about = {"text": record["text"], "language": record["language"], "kept": record["kept"]}
                found.ids.append(record["id"])
                found.texts.append(text)
                found.tags.append(record["tags"])
                found.about.append(about | {"photos": len(record["images"])})
        return found

    def targets(self, attribute: dict) -> tuple[np.ndarray, np.ndarray]:
        """Rows [n] of the products whose tags of the attribute are known, and these tags: float32 [n, T + 1] in {0, 1},
        "none" last. Tags that the attribute does not list are left out."""
        given = [tags.get(attribute["name"]) for tags in self.tags]
        known = np.array([row for row, tags in enumerate(given) if tags is not None], dtype=int)
        column = {tag: index for index, tag in enumerate(attribute["tags"])}
        targets = np.zeros((len(known), len(column) + 1), np.float32)
        for place, row in enumerate(known):
            targets[place, [column[tag] for tag in given[row] if tag in column] if given[row] else -1] = 1.0
        return known, targets

    def predictions(self, attributes: list[dict], logits=None, scores=None) -> Predictions:
        """logits [N, T + A] ("none" last) or scores [N, T] as predictions."""
        arrays = {name: array.astype(np.float32) for name, array in (("logits", logits), ("scores", scores))
                  if array is not None}
        return Predictions(attributes, self.ids, self.tags, about=self.about, **arrays).decided(attributes)


class MajorityBaseline:
    """Every product gets the commonest tags of the training products: of a `multi` attribute those that at least half
    of them have."""

    def __init__(self, attributes: list[dict], products: Products):
        self.attributes, blocks = attributes, []
        for attribute in attributes:
            share = products.targets(attribute)[1].mean(0, keepdims=True).clip(1e-9, 1 - 1e-9)
            blocks.append(np.log(share) if attribute["kind"] == "single" else np.log(share / (1 - share)))
        self.logits = nones_last(blocks)

    def predict(self, products: Products) -> Predictions:
        return products.predictions(self.attributes, np.repeat(self.logits, len(products.ids), axis=0))


class RuleBaseline:
    """A tag is given where its name, or an alias of it ({attribute: {other spelling: tag}}), stands in the text as
    whole words, in singular or plural. Of a `single` attribute the longest name found counts, of two as long the
    first."""

    def __init__(self, attributes: list[dict], aliases: dict[str, dict[str, str]]):
        self.attributes = attributes
        self.spellings = []
        for attribute in attributes:
            names = {tag: tag for tag in attribute["tags"]} | aliases.get(attribute["name"], {})
            forms = {_stemmed(spelling): tag for spelling, tag in names.items() if tag in attribute["tags"]}
            pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
            self.spellings.append((forms, re.compile(rf"(?<!\w)(?:{pattern})(?!\w)")))

    def predict(self, products: Products) -> Predictions:
        scores = np.zeros((len(products.ids), sum(len(entry["tags"]) for entry in self.attributes)))
        slices = attribute_slices(self.attributes)
        for attribute, (forms, pattern), where in zip(self.attributes, self.spellings, slices, strict=True):
            column = {tag: index for index, tag in enumerate(attribute["tags"], where.start)}
            for row, text in enumerate(products.texts):
                found = pattern.findall(_stemmed(text or ""))
                if attribute["kind"] == "single":
                    found = sorted(found, key=len, reverse=True)[:1]
                scores[row, [column[forms[form]] for form in found]] = 1.0
        return products.predictions(self.attributes, scores=scores)


def _stemmed(text: str) -> str:
    return WORD.sub(lambda word: stem(word.group()), text.casefold())


def tfidf_of_words(most: int | None = None):
    """A vectorizer of words and word pairs, and of letter n-grams, each of length 1, with so many features of each kind
    at most. Needs scikit-learn (the extra `baselines`)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", max_features=most),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2, max_features=most))


class Words:
    """`tfidf_of_words`, fitted on training products."""

    def __init__(self, products: Products):
        self.vectorizer = tfidf_of_words()
        self.any = any(products.texts)
        if self.any:
            self.vectorizer.fit([text or "" for text in products.texts])

    def __call__(self, products: Products):
        """A sparse matrix [N, F]; words and letters of a product have length 1 each. Without training texts, F is 0."""
        from scipy.sparse import csr_matrix

        if not self.any:
            return csr_matrix((len(products.texts), 0))
        return self.vectorizer.transform([text or "" for text in products.texts])


class BagOfWordsBaseline:
    """A logistic regression on `Words` per attribute (per tag of a `multi` one), classes weighted by the inverse of
    their frequency. `vectors`: further features [N, F], to be given of products predicted later, too."""

    def __init__(self, attributes: list[dict], products: Products, vectors: np.ndarray | None = None):
        self.attributes, self.words = attributes, Words(products)
        features = _beside(self.words(products), vectors)
        self.models = [self._fit(attribute, features, products) for attribute in attributes]

    def _fit(self, attribute: dict, features, products: Products):
        known, targets = products.targets(attribute)
        if attribute["kind"] == "single":
            learned = targets.any(1)
            return _logistic(features[known[learned]], targets[learned].argmax(1))
        return [_logistic(features[known], chosen) for chosen in targets.T[:-1] > 0]

    def predict(self, products: Products, vectors: np.ndarray | None = None) -> Predictions:
        features = _beside(self.words(products), vectors)
        blocks = []
        for attribute, model in zip(self.attributes, self.models, strict=True):
            logits = np.full((len(products.ids), len(attribute["tags"]) + 1), NEVER)
            if attribute["kind"] == "single":
                logits[:, model.classes_] = np.maximum(model.predict_log_proba(features), NEVER)
            else:
                for column, of_tag in enumerate(model):
                    logits[:, column] = of_tag.decision_function(features) if of_tag else NEVER
            blocks.append(logits)
        return products.predictions(self.attributes, nones_last(blocks))


def _beside(features, vectors: np.ndarray | None):
    from scipy.sparse import csr_matrix, hstack

    return features if vectors is None else hstack([features, csr_matrix(vectors)], format="csr")


def nones_last(blocks: list[np.ndarray]) -> np.ndarray:
    """Each attribute's logits [N, tags + "none"] -> [N, T + A]."""
    return np.concatenate([block[:, :-1] for block in blocks] + [block[:, -1:] for block in blocks], axis=1)


def _logistic(features, classes):
    """A fitted model; None where there is but one class."""
    from sklearn.linear_model import LogisticRegression

    if len(set(classes.tolist())) < 2:
        return None
    return LogisticRegression(C=10.0, class_weight="balanced", max_iter=300).fit(features, classes)


class NearestNeighbours:
    """Votes of the most similar training products.

    Args:
        products, vectors: the training products and their embeddings [N, F] by frozen encoders (see `EmbeddingSpace`).
        neighbours: how many of those whose attribute is known vote, each with its similarity.
        by: what similarity is the sum of: cosines of "embeddings", of "words" and letters, or of both.
    """

    def __init__(self, attributes: list[dict], products: Products, vectors: np.ndarray, neighbours: int = 5,
                 by: tuple[str, ...] = ("embeddings",)):
        self.attributes, self.neighbours, self.by, self.words = attributes, neighbours, by, Words(products)
        self.known = self._seen(products, vectors)
        self.votes = [products.targets(attribute) for attribute in attributes]

    def _seen(self, products: Products, vectors: np.ndarray) -> dict:
        return {"embeddings": vectors, "words": self.words(products)}

    def predict(self, products: Products, vectors: np.ndarray) -> Predictions:
        return self.predict_each(products, vectors, [self.neighbours])[0]

    def predict_each(self, products: Products, vectors: np.ndarray, choices: Sequence[int]) -> list[Predictions]:
        """Predictions by each number of neighbours."""
        seen, blocks = self._seen(products, vectors), [[[] for _ in self.attributes] for _ in choices]
        for start in range(0, len(vectors), 512):
            similarity = sum(_dense(seen[name][start:start + 512] @ self.known[name].T) for name in self.by)
            for neighbours, found in zip(choices, blocks, strict=True):
                for block, attribute, (known, votes) in zip(found, self.attributes, self.votes, strict=True):
                    block.append(_vote(similarity[:, known], votes, attribute["kind"], neighbours))
        return [products.predictions(self.attributes, nones_last([np.concatenate(block) for block in found]))
                for found in blocks]


def _vote(similarity: np.ndarray, votes: np.ndarray, kind: str, neighbours: int) -> np.ndarray:
    """Logits [n, T + 1] from similarities [n, known] and their tags [known, T + 1]."""
    nearest = np.argpartition(-similarity, min(neighbours, len(votes)) - 1, axis=1)[:, :neighbours]
    weight = np.take_along_axis(similarity, nearest, axis=1).clip(1e-6)
    share = (weight[..., None] * votes[nearest]).sum(1) / weight.sum(1, keepdims=True)
    # One more vote is spread over all tags: a tag that no neighbour has is not impossible.
    share = (share * neighbours + 1 / share.shape[1]) / (neighbours + 1)
    return np.log(share) if kind == "single" else np.log(share / (1 - share).clip(1e-6))


def _dense(matrix) -> np.ndarray:
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


class EmbeddingSpace:
    """Brings the vectors of several encoders, {modality: [N, F]}, to one scale, fitted on the training products that
    are `present`, {modality: bool [N]}."""

    def __init__(self, features: dict[str, np.ndarray], present: dict[str, np.ndarray]):
        self.scale = {name: (vectors[present[name]].mean(0), vectors[present[name]].std(0) + 1e-6)
                      for name, vectors in features.items()}

    def __call__(self, features: dict[str, np.ndarray], present: dict[str, np.ndarray]) -> np.ndarray:
        """[N, F]: standardised and of unit length per modality, zeros where a product lacks it."""
        parts = []
        for name, (mean, deviation) in self.scale.items():
            vectors = (features[name] - mean) / deviation
            length = np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
            parts.append(np.where(present[name][:, None], vectors / length, 0.0))
        return np.concatenate(parts, axis=1).astype(np.float32)


def best_neighbours(
    attributes: list[dict], train: tuple[Products, np.ndarray], validation: tuple[Products, np.ndarray],
    choices: Sequence[int] = NEIGHBOURS,
) -> NearestNeighbours:
    """The number of neighbours, and what finds them, with the highest macro-F1 on validation products."""
    fitted = NearestNeighbours(attributes, *train)
    scores = {}
    for fitted.by in (("embeddings",), ("words",), ("embeddings", "words")):
        for neighbours, found in zip(choices, fitted.predict_each(*validation, choices), strict=True):
            scores[fitted.by, neighbours] = found.metrics()["macro_f1"]
    fitted.by, fitted.neighbours = max(scores, key=scores.get)
    return fitted
