"""Tags that no short list holds: a tagger's decoder against what else could give a product such tags.

    hf_tagger finetune recipes/configs/food_keywords.yaml
    python recipes/lab/benchmark_free_form_rivals.py recipes/configs/food_keywords.yaml --models runs/food-keywords

CONFIG names free-form tags; every method learns from the training products (as they are read for CONFIG), has what it
may choose, and the score from which tags are listed, chosen on validation by F1@M, and sees test once. MODELS are
taggers trained by CONFIG, one per seed, and give four rows (`--modes`): `free` (what `free_form=True` lists: closed
tags and written ones), `written` (the decoder's alone), `vocabulary` (what it writes of closed tags alone) and `closed`
(the closed tags of its heads). Writes OUTPUT/rivals.json after every method (what is there is not computed again),
OUTPUT/rivals.md and, for a card, OUTPUT/rivals.png. Needs the extra `baselines`.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np

from hf_tagger import UserError, cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.calibration import best_threshold
from hf_tagger.evaluation.free_form import FEW, ratios, set_counts, stands_in, unique
from hf_tagger.evaluation.machine import describe_machine, process_state
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.evaluation.settings import ThresholdSettings, check_model
from hf_tagger.evaluation.tables import decimal, interval_of
from hf_tagger.training.arguments import load_run
from measuring import readable
from tag_writers import Keyphrases, NamedInText, Neighbours, Scored, Texts, TfidfRegression, embed_by

RIVALS = ("tfidf", "neighbours", "named in text", "keyphrases")
SEEN = {"unseen": (0, 0), "1-2": (1, 2), "3-9": (3, 9), "10+": (10, sys.maxsize)}  # training products of a tag
LANGUAGE_PRODUCTS = 40  # of a language's own row, at least
RESAMPLES, BATCH = 1000, 64
COLUMNS = {"F1@M": "f1@M", "F1@5": "f1@5", "precision": "precision@M", "recall": "recall@M",
           "named in the text: recall": "present/recall", "not named: recall": "absent/recall",
           **{f"recall, seen {name}" if name != "unseen" else "recall, unseen": f"{name}/recall" for name in SEEN},
           "unseen tags written: right": "unseen/precision"}


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        check_model(model)
    catalog = open_catalog(settings.catalog, folder / "catalog")
    Vocabulary.scan(catalog.records("train"), catalog.schema, catalog.names)
    train, validation, test = (Texts.of(list(readable(catalog, split))) for split in (
        "train", settings.evaluation.validation, settings.evaluation.split))
    path, found = folder / "rivals.json", {"config": options.config, "machine": describe_machine(), "methods": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    counts = Counter(tag for tags in train.tags for tag in tags)
    for name in [*options.rivals, *(f"{mode} {model}" for model in options.models for mode in options.modes)]:
        if name in found["methods"]:
            continue
        cli.say(f"{name} ...")
        write = fitted(name, options.models, train, validation)
        threshold = chosen_threshold(write(validation), validation)
        written = [[tag for tag, score in row if score >= threshold] for row in write(test)]
        found["methods"][name] = {"choice": getattr(write, "choice", ""), "threshold": threshold,
                                  "test": scores_of(written, test, counts)}
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "rivals.md").write_text(report(found), encoding="utf-8")
        plot(found, folder / "rivals.png")
    print(report(found))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--models", nargs="*", default=[], help="folders of taggers with a decoder")
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES), help="of the taggers; one "
                        "without a decoder has only its closed tags")
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=RIVALS, help="these alone")
    parser.add_argument("--output_dir", default="runs/free-form-rivals")
    return parser.parse_known_args(arguments)


def fitted(name: str, models: Sequence[str], train: Texts, validation: Texts) -> Callable[[Texts], Scored]:
    """A method: products -> their scored tags."""
    mode, _, model = name.partition(" ")
    if mode in MODES:
        tagger = open_tagger(model, process_state().device)
        return lambda products: MODES[mode](tagger, products)
    if name == "named in text":
        return NamedInText(train)
    if name == "tfidf":
        return TfidfRegression(train, validation)
    if not models:
        raise UserError(f"{name}: give a tagger, whose text tower embeds the texts, with --models")
    embed = embed_by(open_tagger(models[0], process_state().device))
    if name == "keyphrases":
        return Keyphrases(embed)
    return Neighbours(train, embed, validation, lambda scored: f1(scored, validation))


def of_tagger(tagger, products: Texts, sources: Sequence[str], **options) -> Scored:
    """The tags of a tagger's pipeline that come from one of the `sources`."""
    asked = [{"text": text, "language": language} for text, language in
             zip(products.texts, products.languages, strict=True)]
    found = []
    for start in range(0, len(asked), BATCH):
        found += tagger(asked[start:start + BATCH], batch_size=BATCH, **options)
    return [[(tag["label"], tag["score"]) for tag in tags if tag["source"] in sources] for tags in found]


MODES = {
    "free": partial(of_tagger, sources=["vocabulary", "generated"], free_form=True),
    "written": partial(of_tagger, sources=["generated"], free_form=True, threshold=1.0, min_score=0.0),
    "vocabulary": partial(of_tagger, sources=["generated"], free_form=True, constrained=True, threshold=1.0,
                          min_score=0.0),
    "closed": partial(of_tagger, sources=["vocabulary"], threshold=0.0, top_k=100),
}


def chosen_threshold(scored: Scored, products: Texts) -> float:
    """The score from which F1@M is highest."""
    scores, right, true = [], [], sum(map(len, products.tags))
    for row, tags in zip(scored, products.tags, strict=True):
        best: dict[str, float] = {}
        for tag, score in row:
            best.setdefault(unique([tag])[0], score)
        scores += best.values()
        right += [tag in tags for tag in best]
    given = np.array(right, bool)
    return best_threshold(np.array(scores), given, true - int(given.sum()), ThresholdSettings("f1"))[0]


def f1(scored: Scored, products: Texts) -> float:
    threshold = chosen_threshold(scored, products)
    written = [[tag for tag, score in row if score >= threshold] for row in scored]
    return ratios(set_counts(written, products.tags).sum(0).tolist())[2]


def scores_of(written: list[list[str]], products: Texts, counts: Counter) -> dict[str, dict]:
    """{metric: {"value", "low", "high"}}, with 95 % bootstrap intervals over products."""
    stands = stands_in(products.texts)
    found = {"M": set_counts(written, products.tags), str(FEW): set_counts(written, products.tags, limit=FEW)}
    scores = {f"{ratio}@{name}": interval(counted, place) for name, counted in found.items()
              for place, ratio in enumerate(("precision", "recall", "f1"))}
    parts = {"present": stands, "absent": lambda row, tag: not stands(row, tag)}
    parts |= {name: lambda row, tag, low=low, high=high: low <= counts[tag] <= high
              for name, (low, high) in SEEN.items()}
    parts |= {f"language {language}": lambda row, tag, language=language: products.languages[row] == language
              for language, number in Counter(products.languages).most_common() if number >= LANGUAGE_PRODUCTS}
    for name, keep in parts.items():
        counted = set_counts(written, products.tags, keep)
        scores |= {f"{name}/{ratio}": interval(counted, place) for place, ratio in
                   enumerate(("precision", "recall", "f1"))} | {f"{name}/right": {"value": int(counted[:, 0].sum())}}
    return scores


def interval(counts: np.ndarray, place: int) -> dict[str, float]:
    draw = np.random.default_rng(0)
    sums = [counts[draw.integers(0, len(counts), len(counts))].sum(0).tolist() for _ in range(RESAMPLES)]
    low, high = np.quantile([ratios(total)[place] for total in sums], [0.025, 0.975]).tolist()
    return {"value": ratios(counts.sum(0).tolist())[place], "low": low, "high": high}


def averaged(found: dict) -> dict[str, dict]:
    """{method: its scores}, those of a tagger's modes as the mean of all seeds."""
    groups: dict[str, list[dict]] = {}
    for name, result in found["methods"].items():
        mode = name.partition(" ")[0]
        groups.setdefault(mode if mode in MODES else name, []).append(result["test"])
    return {name: {metric: {key: mean(each[metric][key] for each in results) for key in results[0][metric]}
                   for metric in results[0]} for name, results in groups.items()}


def report(found: dict) -> str:
    """The table of all methods, and F1@M of each language."""
    methods, machine = averaged(found), found["machine"]
    lines = [f"Written by `python recipes/lab/benchmark_free_form_rivals.py {found['config']}`, on {machine['cpu']} "
             f"with {machine['cores']} cores; 95 % bootstrap intervals over test products.", "",
             "| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, scores in methods.items():
        cells = [decimal(scores[metric]["value"]) + (interval_of(scores[metric]) if metric.startswith("f1") else "")
                 for metric in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    languages = [metric for metric in next(iter(methods.values()), ()) if metric.startswith("language") and
                 metric.endswith("/f1")]
    lines += ["", "F1@M by language:", "", "| method | " + " | ".join(
        metric.removeprefix("language ").removesuffix("/f1") for metric in languages) + " |",
        "|---" * (len(languages) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(decimal(scores[metric]["value"]) for metric in languages) + " |"
              for name, scores in methods.items()]
    chosen = "; ".join(f"{name}: {result['choice']}" for name, result in found["methods"].items() if result["choice"])
    return "\n".join([*lines, "", f"Chosen on validation: {chosen}." if chosen else ""]).rstrip() + "\n"


def plot(found: dict, path: Path) -> None:
    """Recall by the training products of a tag, and F1@M by language, a line per method."""
    from hf_tagger.evaluation.plots import Panel, png

    methods = averaged(found)
    languages = [metric for metric in next(iter(methods.values())) if metric.startswith("language")
                 and metric.endswith("/f1")]

    def lines(metrics: Sequence[str], names: Sequence[str], ylabel: str) -> Callable:
        def draw(axes) -> None:
            for name, scores in methods.items():
                axes.plot(range(len(metrics)), [scores[metric]["value"] for metric in metrics], marker="o",
                          markersize=3, linewidth=2.4 if name == "free" else 1.0, label=name)
            axes.set(ylim=(0, 1), ylabel=ylabel)
            axes.set_xticks(range(len(metrics)), names)
            axes.legend(frameon=False, fontsize=6)
        return draw

    png([Panel("Recall by training products of the tag", "recall of tags seen so often in training",
               lines([f"{name}/recall" for name in SEEN], list(SEEN), "recall")),
         Panel("F1@M by language", "F1 of the written set by the product's language",
               lines(languages, [metric.split()[1].removesuffix("/f1") for metric in languages], "F1@M"))],
        path, columns=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
