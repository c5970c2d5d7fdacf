"""Reviewers who know the truth of a made-up catalogue judge a model's tags: verdicts to try recipes/update.py on.

    python recipes/lab/simulate_reviews.py runs/noisy runs/noisy/training_config.yaml feedback.db --products 200

Of so many products of the training split, drawn at random or asked for by a strategy of
hf_tagger/feedback/strategies.py, every tag that the model gives is accepted or rejected, and every true tag that it
does not give is added. A reviewer errs at the rate --error.
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.synthetic.products import true_tags
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.protocols import Evaluator, open_tagger
from hf_tagger.evaluation.settings import load_evaluation
from hf_tagger.feedback import strategies
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict, fingerprint
from measuring import readable


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_evaluation(options.catalogue, options.model, overrides)
    if settings.catalog.synthetic is None:
        raise ConfigError("only of a made-up catalogue is the truth known: give one with catalog.synthetic")
    state = process_state()
    tagger = open_tagger(options.model, state.device)
    catalog = open_catalog(settings.catalog, Path(options.model) / "catalog")
    evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.loader, state)
    seen = evaluator.predict("train", settings.evaluation.first_protocol)
    rows = choose(seen, options.strategy, options.products, options.seed)
    prints = {record["id"]: fingerprint(record) for record in readable(catalog, "train")}
    verdicts = judge(seen, rows, true_tags(**settings.catalog.synthetic), prints, options)
    with FeedbackStore(options.feedback, tagger.model.config.attributes) as store:
        store.add(verdicts)
    wrong = sum(verdict.decision != "accept" for verdict in verdicts)
    print(f"{len(verdicts)} verdicts on {len(rows)} products, {wrong} of them rejected or added a tag")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model")
    parser.add_argument("catalogue", help="the training configuration, with catalog.synthetic")
    parser.add_argument("feedback", help="path or URL of the feedback store")
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--strategy", choices=("random", "margin", "entropy", "rare_tags"), default="random")
    parser.add_argument("--error", type=float, default=0.0, help="rate of verdicts that are wrong")
    parser.add_argument("--reviewer", default="simulated")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_known_args(arguments)


def choose(seen: Predictions, strategy: str, count: int, seed: int) -> np.ndarray:
    """Rows [count] of the products to be judged."""
    values = np.random.default_rng(seed).random(len(seen.ids))
    if strategy != "random":
        values = getattr(strategies, strategy)(seen.attributes, seen.scores)
    return strategies.queue(values, np.zeros(len(seen.ids), bool), count)


def judge(seen: Predictions, rows: np.ndarray, truth: dict, prints: dict[str, str],
          options: argparse.Namespace) -> list[Verdict]:
    verdicts, errs = [], random.Random(options.seed)
    columns = [(entry["name"], tag) for entry in seen.attributes for tag in entry["tags"]]
    for row in rows:
        product = seen.ids[row]
        for place, (attribute, tag) in enumerate(columns):
            given, true = bool(seen.chosen[row, place]), tag in truth[product][attribute]
            if given and errs.random() < options.error:
                true = not true
            if given or true:
                decision = "add" if not given else "accept" if true else "reject"
                verdicts.append(Verdict(product, prints[product], attribute, tag, decision, options.reviewer,
                                        Path(options.model).name, float(seen.scores[row, place]) if given else None))
    return verdicts


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
