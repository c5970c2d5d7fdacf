"""Predictions and references to score, drawn at random."""

import numpy as np

from hf_tagger.evaluation.predict import Predictions

COLOUR = {"name": "colour", "kind": "single", "tags": ["a", "b", "c"]}
USES = {"name": "uses", "kind": "multi", "tags": ["u", "v", "rare"]}
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": list("abcdef"), "counts": [400, 150, 60, 30, 9, 1]},
    {"name": "uses", "kind": "multi", "tags": list("uvwx"), "counts": [90, 80, 70, 3]},
]


def a_split(rows, seed, overconfident=3.0):
    """Tags drawn from known probabilities; the model's logits are those probabilities', too large by a factor."""
    rng = np.random.default_rng(seed)
    colour = rng.normal(size=(rows, 4))
    uses = rng.normal(size=(rows, 3)) - [0.0, 1.5, 3.5]
    odds = np.exp(colour) / np.exp(colour).sum(1, keepdims=True)
    drawn = [rng.choice(4, p=row) for row in odds]
    given = rng.random((rows, 3)) < 1 / (1 + np.exp(-uses))
    tags = [{"colour": [] if colour == 3 else ["abc"[colour]],
             "uses": [tag for tag, there in zip(USES["tags"], row, strict=True) if there]}
            for colour, row in zip(drawn, given, strict=True)]  # fmt: skip
    logits = np.concatenate([colour[:, :3], uses, colour[:, 3:], np.zeros((rows, 1))], axis=1) * overconfident
    found = Predictions([COLOUR, USES], [str(row) for row in range(rows)], tags, logits=logits.astype(np.float32))
    return found.decided([COLOUR, USES])


def some_predictions(rows=200, seed=0, skill=0.6):
    """Tags drawn at random, some unknown, some the model never learned; scores that mostly favour the right ones."""
    rng = np.random.default_rng(seed)
    tags, scores = [], np.zeros((rows, 10), np.float32)
    for row in range(rows):
        colour, uses = rng.choice(list("abcdefz")), [tag for tag in "uvwxy" if rng.random() < 0.3]
        tags.append({"colour": None if rng.random() < 0.1 else [] if rng.random() < 0.1 else [str(colour)],
                     "uses": None if rng.random() < 0.2 else uses})  # fmt: skip
        logits = rng.normal(size=10)
        for column, tag in enumerate("abcdefuvwx"):
            named = (tags[-1]["colour"] or []) + (tags[-1]["uses"] or [])
            logits[column] += 3 * (tag in named and rng.random() < skill)
        scores[row, :6] = np.exp(logits[:6]) / (np.exp(logits[:6]).sum() + 2)
        scores[row, 6:] = 1 / (1 + np.exp(-logits[6:]))
    about = [{"text": "t", "language": "de" if row % 3 else "en", "photos": row % 2, "kept": {}} for row in range(rows)]
    found = Predictions(ATTRIBUTES, [str(row) for row in range(rows)], tags, scores, about=about)
    return found.decided(ATTRIBUTES)


def random_attribute(seed, kind, rows=300, vocabulary=6, never_trained=2, unknown_rate=0.2):
    """References [rows, C], predictions and scores [rows, vocabulary]; tag 3 occurs in no reference."""
    rng = np.random.default_rng(seed)
    columns = vocabulary + never_trained
    if kind == "single":
        references = np.eye(columns, dtype=int)[rng.integers(0, columns, rows)]
        references[rng.random(rows) < 0.1] = 0  # none applies
        references[rng.random(rows) < unknown_rate] = -100
        predictions = np.eye(vocabulary, dtype=int)[rng.integers(0, vocabulary, rows)]
        agrees = rng.random(rows) < 0.5
        predictions[agrees] = np.maximum(references[agrees, :vocabulary], 0)
    else:
        references = (rng.random((rows, columns)) < 0.3).astype(int)
        references[rng.random(references.shape) < unknown_rate] = -100
        predictions = (rng.random((rows, vocabulary)) < 0.4).astype(int)
    references[:, 3] = np.minimum(references[:, 3], 0)
    scores = np.round(rng.random((rows, vocabulary)) + 0.3 * predictions, 1)  # rounded: many ties
    return references, predictions, scores
