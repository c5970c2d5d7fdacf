import numpy as np
import pytest

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.evaluation.baselines import (
    BagOfWordsBaseline,
    EmbeddingSpace,
    NearestNeighbours,
    Products,
    RuleBaseline,
    best_neighbours,
)

COLOUR = {"name": "colour", "kind": "single", "tags": ["Blue", "Navy Blue", "Dark"]}
USES = {"name": "uses", "kind": "multi", "tags": ["Rain", "Sports", "Never Given"]}


def products(*rows):
    """Products of (text, colour, uses)."""
    tags = [{"colour": colour and [colour] or colour, "uses": uses} for _, colour, uses in rows]
    about = [{"text": text, "language": None, "kept": {}, "photos": 0} for text, _, _ in rows]
    return Products([str(number) for number in range(len(rows))], tags, about, [text for text, _, _ in rows])


def chosen(predictions):
    """Per product, the tags it gets."""
    tags = [tag for entry in predictions.attributes for tag in entry["tags"]]
    return [[tags[column] for column in np.flatnonzero(row)] for row in predictions.chosen]


def test_rules_find_names_and_aliases_as_whole_words_in_singular_and_plural():
    rules = RuleBaseline([COLOUR, USES], {"colour": {"midnight": "Dark", "azure": "Sky"}})
    texts = ["NAVY BLUE coat", "Blue rain coat for sport", "blueish darkness", "Azure midnight dress, dark", None,
             "Rains"]  # fmt: skip
    found = rules.predict(products(*((text, "Blue", []) for text in texts)))
    assert chosen(found) == [["Navy Blue"], ["Blue", "Rain", "Sports"], [], ["Dark"], [], ["Rain"]]
    assert set(np.unique(found.scores)) == {0.0, 1.0}


@pytest.fixture(scope="module")
def catalogue():
    rng = np.random.default_rng(0)
    words = {"Blue": "azul", "Navy Blue": "marino", "Dark": "oscuro", "": "sin"}

    def draw(count):
        rows = []
        for _ in range(count):
            colour = str(rng.choice(list(words)))
            uses = [tag for tag in ("Rain", "Sports") if rng.random() < 0.4]
            text = " ".join([words[colour], *(f"para {tag.lower()}" for tag in uses), f"ref{rng.integers(99)}"])
            rows.append((text, None if rng.random() < 0.1 else colour or [], None if rng.random() < 0.1 else uses))
        return products(*rows)

    return draw(300), draw(80)


def test_a_bag_of_words_learns_what_no_name_says(catalogue):
    train, test = catalogue
    scores = BagOfWordsBaseline([COLOUR, USES], train).predict(test).metrics()
    assert scores["colour/accuracy"] > 0.95 and scores["uses/micro_f1"] > 0.95
    assert RuleBaseline([COLOUR, USES], {}).predict(test).metrics()["colour/accuracy"] < 0.5


def test_a_tag_that_no_training_product_has_is_never_given(catalogue):
    train, test = catalogue
    found = BagOfWordsBaseline([{**COLOUR, "tags": [*COLOUR["tags"], "Unseen"]}, USES], train).predict(test)
    assert not found.chosen[:, 3].any() and not found.chosen[:, 6].any() and found.scores[:, 3].max() < 1e-9


def space_of(train, test, noise=0.3):
    """Embeddings that tell colours apart by one modality and uses by the other, of another scale each."""
    rng = np.random.default_rng(1)

    def look(items):
        text = np.array([[(tags["colour"] or ["-"])[0] == tag for tag in COLOUR["tags"]] for tags in items.tags])
        image = np.array([[tag in (tags["uses"] or ()) for tag in USES["tags"][:2]] for tags in items.tags])
        features = {"text": 100 * text + 5, "image": 0.01 * image}
        features = {name: value + noise * np.abs(value).max() * 0.3 * rng.normal(size=value.shape)
                    for name, value in features.items()}  # fmt: skip
        return features, {name: rng.random(len(items.ids)) > 0.05 for name in features}

    seen = look(train)
    space = EmbeddingSpace(*seen)
    return space(*seen), space(*look(test))


def test_neighbours_vote_and_their_number_is_chosen_on_validation(catalogue):
    train, test = catalogue
    known, asked = space_of(train, test)
    assert np.linalg.norm(known[:, :3], axis=1).round(5).tolist().count(1.0) > 250
    scores = NearestNeighbours([COLOUR, USES], train, known, 5).predict(test, asked).metrics()
    assert scores["colour/accuracy"] > 0.9 and scores["uses/micro_f1"] > 0.9
    fitted = best_neighbours([COLOUR, USES], (train, known), (test, asked), choices=(1, 5, 290))
    ways = (("embeddings",), ("words",), ("embeddings", "words"))
    tried = {(by, count): NearestNeighbours([COLOUR, USES], train, known, count, by).predict(test, asked)
             for by in ways for count in (1, 5, 290)}  # fmt: skip
    scores = {choice: found.metrics()["macro_f1"] for choice, found in tried.items()}
    assert len(set(scores.values())) > 3 and scores[fitted.by, fitted.neighbours] == max(scores.values())


def test_neighbours_are_found_by_words_where_embeddings_say_nothing(catalogue):
    train, test = catalogue
    known, asked = np.ones((300, 2), np.float32), np.ones((80, 2), np.float32)
    fitted = best_neighbours([COLOUR, USES], (train, known), (test, asked))
    assert "words" in fitted.by and fitted.predict(test, asked).metrics()["colour/accuracy"] > 0.9
    silent = products(*((None, "Blue", ["Rain"]) for _ in range(6)))
    found = NearestNeighbours([COLOUR, USES], silent, np.ones((6, 2)), 3, ("embeddings", "words"))
    assert chosen(found.predict(test, asked))[0] == ["Blue", "Rain"]


def test_a_product_like_no_other_gets_probabilities_that_stay_finite(catalogue):
    train, test = catalogue
    known, asked = space_of(train, test)
    found = NearestNeighbours([COLOUR, USES], train, known, 1).predict(test, np.zeros_like(asked))
    assert np.isfinite(found.logits).all() and (found.scores > 0).all()


def test_products_without_anything_to_see_are_left_out():
    record = {"language": "en", "kept": {}, "tags": {}}
    records = [record | {"id": "a", "text": "x", "images": [b"1"]},
               record | {"id": "b", "text": None, "images": [b"1"]},
               Refusal(3, "c", None, "no_content", "", True, ""),
               record | {"id": "d", "text": "y", "images": []}]  # fmt: skip
    assert Products.read(records).ids == ["a", "b", "d"]
    assert Products.read(records, ["image"]).ids == ["a", "d"]
    hidden = Products.read(records, ["text"])
    assert hidden.ids == ["a", "b"] and hidden.texts == [None, None] and hidden.about[0]["text"] == "x"
