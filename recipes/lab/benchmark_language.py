"""In which language a tagger writes, asked for each that it knows, and what that costs.

    python recipes/lab/benchmark_language.py recipes/configs/food_keywords.yaml runs/food-keywords-0

A language identifier (logistic regression of letters) is fitted on phrases of the training products' texts by the
product's language. A tag that training products of three languages have is of no language ("common"), and so are other
tags in the language (`--common`) that such tags are written in. "identifier" says how often it errs: on every fifth of
the common tags, had it not learned them, and on the texts of the split; "people" what it says of the tags that people
gave. Prints, for the products' own language ("own") and for each language asked for, the shares of written tags in that
language, common, and in another one, and F1@M. What is right in another language is known of a made-up catalogue alone;
elsewhere F1@M compares with what the products have. Needs the extra `baselines`.
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.synthetic.products import generate
from hf_tagger.evaluation.free_form import ratios, set_counts, unique
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.decisions import fold
from hf_tagger.training.arguments import load_run
from measuring import as_product, readable

LANGUAGES_OF_COMMON, EVERY = 3, 5
LANGUAGE_PRODUCTS = 40  # of a language that is asked for, at least, in training
PHRASES = 12  # of one text


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    with TemporaryDirectory() as folder:
        catalog = open_catalog(settings.catalog, Path(folder))
        train = list(readable(catalog, "train"))
        records = [record for record in readable(catalog, options.split) if record["language"] and
                   tags_of(record, options.attributes)][:options.products]
        common = Counter(record["language"] for record in train if record["language"] not in (None, "und"))
        identifier = Identifier(train, [name for name, products in common.items() if products >= LANGUAGE_PRODUCTS],
                                options.attributes, options.common)
        records = [record for record in records if record["language"] in identifier.languages]
        tagger = open_tagger(options.model, process_state().device)
        true, own = [tags_of(each, options.attributes) for each in records], [each["language"] for each in records]
        found = {"products": len(records), "identifier": identifier.errors(records),
                 "people": identifier.shares(true, own)}
        for asked in (None, *identifier.languages):
            written = write(tagger, records, options.attributes, asked)
            wanted, languages = true, own
            if asked is not None:
                wanted = translated(settings.catalog.synthetic, records, asked, options.attributes)
                languages = [asked] * len(records)
            found[asked or "own"] = {**identifier.shares(written, languages),
                                     "f1@M": ratios(set_counts(written, wanted).sum(0).tolist())[2],
                                     "tags": sum(map(len, written)) / len(written)}
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config", "model")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--products", type=int, help="the first of the split that have a language and tags")
    parser.add_argument("--attributes", nargs="*", help="ask for these, each on its own")
    parser.add_argument("--common", default="en", help="language of the tags that products of all languages have")
    return parser.parse_known_args(arguments)


def tags_of(record: dict, attributes: Sequence[str] | None) -> list[str]:
    return unique([tag for name, tags in record["free_form"].items() for tag in tags or ()
                   if attributes is None or name in attributes])


def translated(options: dict | None, records: Sequence[dict], language: str,
               attributes: Sequence[str] | None) -> list[list[str]]:
    """The tags of the products, with the keywords in another language where the catalogue is a made-up one."""
    options = {name: value for name, value in (options or {}).items() if name != "rows_per_shard"}
    rows = {row["id"]: row["keywords"] for row in generate(**options | {"languages": (language,)})} if options else {}
    return [tags_of({"free_form": record["free_form"] | ({"keywords": rows[record["id"]]} if rows else {})}, attributes)
            for record in records]


def write(tagger, records: Sequence[dict], attributes: Sequence[str] | None, language: str | None) -> list[list[str]]:
    """The labels that the decoder writes of each product."""
    products = [{**as_product(record), "language": record["language"]} for record in records]
    options = {"attributes": attributes} if attributes else {}
    options |= {"language": language} if language else {}
    found = tagger(products, free_form=True, threshold=1.0, min_score=tagger.model.config.decoder["min_score"],
                   **options)
    return [[tag["label"] for tag in tags if tag["source"] == "generated"] for tags in found]


def phrases(record: dict, draw: random.Random) -> list[str]:
    """Up to four words from each part of a text."""
    found = []
    for part in re.split(r"[\W\d]*[^\w\s'-][\W\d]*|\d+", record["text"] or "")[:PHRASES]:
        words = part.split()
        start = draw.randrange(len(words)) if words else 0
        found += unique([" ".join(words[start:start + draw.randint(1, 4)])]) if words else []
    return found


class Identifier:
    """The language of a short text."""

    def __init__(self, train: Sequence[dict], languages: Sequence[str], attributes: Sequence[str] | None, common: str):
        self.languages, self.common, seen = sorted(languages), common, {}
        for record in train:
            for tag in tags_of(record, attributes):
                seen.setdefault(tag, set()).add(record["language"])
        shared = sorted(tag for tag, given in seen.items() if len(given & set(languages)) >= LANGUAGES_OF_COMMON)
        random.Random(0).shuffle(shared)
        self.shared, learned = set(shared), [tag for place, tag in enumerate(shared) if place % EVERY]
        self.held_out, draw = shared[::EVERY], random.Random(0)
        texts, names = learned, [common] * len(learned)
        for record in train:
            if record["language"] in languages:
                texts += phrases(record, draw)
                names += [record["language"]] * (len(texts) - len(names))
        self.model = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True, min_df=2),
                                   LogisticRegression(max_iter=300, class_weight="balanced"))
        self.model.fit(texts, names)

    def __call__(self, texts: Sequence[str]) -> list[str]:
        return self.model.predict([fold(text) for text in texts]).tolist() if texts else []

    def errors(self, records: Sequence[dict]) -> dict[str, float]:
        """How often it errs: on common tags, and on phrases of each language."""
        found, draw = {}, random.Random(1)
        if self.held_out:
            found["common"] = mean(name != self.common for name in self(self.held_out))
        for language in self.languages:
            texts = [phrase for record in records if record["language"] == language for phrase in phrases(record, draw)]
            if texts:
                found[language] = mean(name != language for name in self(texts))
        return found

    def shares(self, rows: Sequence[Sequence[str]], languages: Sequence[str]) -> dict[str, float]:
        """Of the tags of products, which are wanted in these languages."""
        counts: Counter[str] = Counter()
        for tags, wanted in zip(rows, languages, strict=True):
            for tag, name in zip(tags, self(tags), strict=True):
                common = fold(tag) in self.shared or name == self.common != wanted
                counts["common" if common else "asked" if name == wanted else "other"] += 1
        return {name: counts[name] / max(counts.total(), 1) for name in ("asked", "common", "other")}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
