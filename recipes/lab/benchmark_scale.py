"""How the cost of every step grows with products and with tags, as a table of slopes.

    python recipes/lab/benchmark_scale.py --card model_cards/scale.md --output scale.json
    python recipes/lab/benchmark_scale.py --rows 2000 4000 --tags 250 500 --base_rows 2000 --base_tags 250
    python recipes/lab/benchmark_scale.py --words 24000 2700 --words 200000 10000
    python recipes/lab/benchmark_scale.py --words 40000 10000 --sgd_passes 3
    python recipes/lab/benchmark_scale.py --judged 200000 10000

Makes catalogues of made-up words: one attribute, its tags as frequent as 1 / rank ** ZIPF, groups of tags that share
words, words of a tag's own in two of three titles, noise, and 3 % wrong tags. Every size trains, saves and opens a
tagger in a process of its own; a step's time is the processor's, its memory the highest of the process during the
step. The text tower is a tiny untrained one, for its cost does not depend on tags. A slope is that of a cost's
logarithm over the size's, from the smallest size to the largest (and over the last two): 1 is in proportion.

`--words ROWS TAGS` fits the lexical head alone instead, and scores it on further products beside TF-IDF + logistic
regression by SGD (scikit-learn) where `--sgd_passes` is given. `--judged ROWS TAGS` calibrates a small untrained tagger
on that many products and scores it on them, with the report.
"""

import argparse
import csv
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmark_bulk import text_tagger
from hf_tagger import cli
from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.catalog.strict import build
from hf_tagger.evaluation.plots import INK, STYLE
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import LexicalHead, candidate_attributes
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.heads.lexical import SparseRows, coded_attributes, fit_lexical_head, kept_within
from hf_tagger.training.run_log import RunLog
from hf_tagger.training.settings import LexicalSettings
from measuring import conditions, in_fresh_process

SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
SYLLABLES += [first + vowel + last for first in "bdgkmnprst" for vowel in "aeio" for last in "nrs"]
NOISE_WORDS, GROUP_WORDS = 3000, 12
MARKS = ("<!-- growth -->", "<!-- end of growth -->")
RARE = (1, 5, 10, 50)  # training products of a tag, from here on
TEST_ROWS = 4000
# Below that, a step's cost is that of starting it.
SECONDS, MEGABYTES = 0.5, 50.0


@cli.recipe
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    found = {"options": vars(options), **conditions()}
    if options.words:
        found["words"] = []
        for rows, tags in options.words:
            found["words"].append(in_fresh_process(fit_words, rows, tags, options.zipf, options.sgd_passes))
            keep(found, options.output)
            cli.say(json.dumps(found["words"][-1]))
        return
    if options.judged:
        found["judged"] = []
        for rows, tags in options.judged:
            with TemporaryDirectory() as folder:
                found["judged"].append(in_fresh_process(judge, rows, tags, options.zipf, Path(folder)))
            keep(found, options.output)
            cli.say(json.dumps(found["judged"][-1]))
        return
    rows_vary = {rows: (rows, options.base_tags) for rows in sorted(options.rows)}
    tags_vary = {tags: (options.base_rows, tags) for tags in sorted(options.tags)}
    cells, tables = found.setdefault("cells", {}), []
    with TemporaryDirectory() as folder:
        for rows, tags in sorted({*rows_vary.values(), *tags_vary.values()}, key=math.prod):
            name = f"{rows} products, {tags} tags"
            cells[name] = in_fresh_process(train, rows, tags, options.zipf, Path(folder, f"{rows}-{tags}"))
            keep(found, options.output)
            cli.say(f"{name}: {cells[name]['all']}")
    for by, sizes in (("products", rows_vary), ("tags", tags_vary)):
        found[by] = growth({size: cells["{} products, {} tags".format(*cell)] for size, cell in sizes.items()})
        tables.append(table(by, found[by]))
    keep(found, options.output)
    print("\n\n".join(tables))
    if options.card:
        write_card(Path(options.card), tables)
        plot({by: found[by] for by in ("products", "tags")}, Path(options.card).with_suffix(".svg"))


def keep(found: dict, path: str | None) -> None:
    if path:
        Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def write_card(path: Path, tables: list[str]) -> None:
    """Puts the tables between the card's marks."""
    before, _, after = path.read_text(encoding="utf-8").partition(MARKS[0])
    text = "\n\n".join([MARKS[0], *tables, MARKS[1]])
    path.write_text(before + text + after.partition(MARKS[1])[2], encoding="utf-8")


def plot(found: dict[str, dict], path: Path) -> None:
    """{by: `growth`} as a log-log picture of the processor's time, a line per step with its slope; dotted: 1."""
    names = list(dict.fromkeys(name for steps in found.values() for name in steps))
    colours = matplotlib.color_sequences["tab20"]
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.2, 6.0), layout="constrained")
        for axes, (by, steps) in zip(figure.subplots(len(found), squeeze=False).flat, found.items(), strict=True):
            sizes = next(iter(steps.values()))["seconds"]["sizes"]
            axes.plot(sizes, [size / sizes[0] for size in sizes], ":", color=INK, linewidth=1)
            for name, costs in steps.items():
                if costs["seconds"]["slope"] is not None:
                    axes.plot(sizes, costs["seconds"]["values"], ".-", linewidth=1, color=colours[names.index(name)],
                              label=f"{name} ({costs['seconds']['slope']:.2f})")
            axes.set(xscale="log", yscale="log", xlabel=by, ylabel="seconds of the processor")
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.minorticks_off()
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2000, 4000, 8000, 16000], help="numbers of products")
    parser.add_argument("--tags", type=int, nargs="+", default=[1000, 2000, 4000, 8000], help="numbers of tags")
    parser.add_argument("--base_rows", type=int, default=16000, help="products while tags vary")
    parser.add_argument("--base_tags", type=int, default=1000, help="tags while products vary")
    parser.add_argument("--zipf", type=float, default=1.0, help="a tag's frequency is 1 / rank ** this")
    parser.add_argument("--words", type=int, nargs=2, action="append", metavar=("ROWS", "TAGS"),
                        help="only fit the lexical head, and score it")
    parser.add_argument("--judged", type=int, nargs=2, action="append", metavar=("ROWS", "TAGS"),
                        help="only calibrate and evaluate")
    parser.add_argument("--sgd_passes", type=int, default=0, help="passes of scikit-learn's SGD beside it; 0: none")
    parser.add_argument("--output", help="JSON file for all figures")
    parser.add_argument("--card", help="page whose table of growth is written anew, with a plot beside it")
    return parser.parse_args(arguments)


def words(count: int, draw: np.random.Generator) -> np.ndarray:
    """Different made-up words."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(draw.choice(SYLLABLES, draw.integers(2, 5)))] = None
    return np.array(list(found))


def products(rows: int, tags: int, zipf: float, seed: int = 0, every: bool = False) -> Iterator[tuple[str, int, int]]:
    """(title, its tag, the tag that it is given). `every`: each tag occurs."""
    draw = np.random.default_rng(seed)
    groups = max(2, math.isqrt(tags))
    made = words(groups * GROUP_WORDS + 2 * tags + NOISE_WORDS, draw)
    of_group, own, noise = np.split(made, [groups * GROUP_WORDS, groups * GROUP_WORDS + 2 * tags])
    of_group, own = of_group.reshape(groups, -1), own.reshape(tags, 2)
    group = draw.integers(groups, size=tags)
    typical = draw.permuted(np.tile(np.arange(GROUP_WORDS), (tags, 1)), axis=1)[:, :3]
    share = {size: (1 + np.arange(size)) ** -exponent for size, exponent in ((tags, zipf), (len(noise), 1.0))}
    tag = draw.choice(tags, rows, p=share[tags] / share[tags].sum())
    if every:
        tag[draw.permutation(rows)[:tags]] = np.arange(tags)
    given = np.where(draw.random(rows) < 0.03, draw.permutation(tag), tag)
    spoken, own_word = draw.random((rows, 3)) < 0.6, draw.random(rows)
    more = draw.choice(len(noise), (rows, 6), p=share[len(noise)] / share[len(noise)].sum())
    for row, mine in enumerate(tag):
        theirs = of_group[group[mine]]
        title = [*theirs[typical[mine][spoken[row]]], draw.choice(theirs), *noise[more[row]]]
        if own_word[row] < 0.7:
            title.append(own[mine, int(own_word[row] < 0.25)])
        yield " ".join(draw.permutation(title)), mine, given[row]


def write_products(path: Path, rows: int, tags: int, zipf: float) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "category"])
        writer.writerows([number, title, f"tag {given}"]
                         for number, (title, _, given) in enumerate(products(rows, tags, zipf, every=True)))


def train(rows: int, tags: int, zipf: float, folder: Path) -> dict[str, dict[str, float]]:
    """{step: {"seconds", "mb"}} of a whole run, and what its model costs."""
    from transformers import pipeline

    from recipes import evaluate_tagger, finetune

    folder.mkdir(parents=True)
    write_products(folder / "products.csv", rows, tags, zipf)
    data = {
        "output_dir": str(folder / "model"),
        "catalog": {"source": {"path": str(folder / "products.csv"), "fractions": {"validation": 0.1, "test": 0.1}},
                    "schema": {"id": "id", "text": ["title"], "attributes": {"category": {"kind": "single"}}}},
        "model": {"text_backbone": "scratch:bert-tiny", "vision_backbone": None, "hidden_size": 256, "max_length": 24,
                  "kernel": {"landmarks": 1000}},
        "lora": None,
        "phases": [{"name": "heads", "train": ["heads"], "cached_views": 1, "epochs": 3, "batch_size": 128,
                    "evaluate_every": 0}]}
    steps: dict[str, dict[str, float]] = {}
    of_run = RunLog.step

    @contextmanager
    def step(log, name):
        with measured(steps, name), of_run(log, name) as inner:
            yield inner

    RunLog.step = step
    with measured(steps, "all"):
        finetune.finetune(build(RunSettings, data), data)
    model = folder / "model"
    with measured(steps, "evaluation and report"):
        evaluate_tagger.main([str(model), str(model / "training_config.yaml"), "--resamples", "100"])
    with measured(steps, "opening the model"):
        tagger = pipeline("product-tagging", model=str(model), device="cpu")
    titles = [title for title, *_ in products(300, tags, zipf, seed=1)]
    tagger(titles[:50])
    with measured(steps, "1,000 products, one at a time"):
        for title in titles[50:]:
            tagger(title)
    steps["1,000 products, one at a time"]["seconds"] *= 4
    with measured(steps, "1,000 products, 32 at a time"):
        for _ in range(4):
            tagger(titles[50:], batch_size=32)
    steps["model file"] = {"seconds": 0.0, "mb": (model / "model.safetensors").stat().st_size / 1e6}
    return steps


def judge(rows: int, tags: int, zipf: float, folder: Path) -> dict[str, float]:
    """Seconds of the processor, and the highest memory of this process, of `hf_tagger evaluate --calibrate`."""
    from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
    from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
    from recipes import evaluate_tagger

    write_products(folder / "products.csv", rows, tags, zipf)
    titles = [title for title, *_ in products(2000, tags, zipf)]
    attributes = [{"name": "category", "kind": "single", "tags": [f"tag {number}" for number in range(tags)]}]
    model, processor = text_tagger(attributes, train_unigram_tokenizer(titles, 2000))
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "model")
    file = str(folder / "products.csv")
    config = {"source": {"files": {"validation": file, "test": file}},
              "schema": {"id": "id", "text": ["title"], "attributes": {"category": {"kind": "single"}}}}
    (folder / "shop.yaml").write_text(json.dumps(config), encoding="utf-8")
    steps: dict[str, dict[str, float]] = {}
    with measured(steps, "judged"):
        given = [str(folder / "model"), str(folder / "shop.yaml")]
        if evaluate_tagger.main([*given, "--calibrate", "--resamples", "100"]):
            raise RuntimeError("the evaluation has failed")
    metrics = json.loads((folder / "model" / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    scored = next(iter(metrics["protocols"].values()))
    return {"rows": rows, "tags": tags, "cpu_seconds": steps["judged"]["seconds"], "peak_mb": steps["judged"]["mb"],
            "scored": scored["products"], "remarks": [remark[:200] for remark in scored["remarks"]]}


@contextmanager
def measured(steps: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Adds the processor's time, and the highest memory of this process meanwhile."""
    forget_peak()
    start = time.process_time()
    yield
    steps[name] = {"seconds": round(time.process_time() - start, 2), "mb": round(peak_mb(), 1)}


def forget_peak() -> None:
    """Lets Linux measure this process's highest memory from now on; see proc_pid_clear_refs(5)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def growth(cells: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict]:
    """Of each step, {"seconds" and "mb": {"values", "slope", "last"}}, a slope being None where costs are those of
    starting."""
    found = {}
    for name in next(iter(cells.values())):
        found[name] = {}
        for cost, least in (("seconds", SECONDS), ("mb", MEGABYTES)):
            values = [steps.get(name, {}).get(cost, 0.0) for steps in cells.values()]
            points = [(size, value) for size, value in zip(cells, values, strict=True) if value >= least]
            slopes = [round(math.log(high / low) / math.log(large / small), 2)
                      for (small, low), (large, high) in (*([(points[0], points[-1])] if len(points) > 1 else []),
                                                          *list(itertools.pairwise(points))[-1:])]
            found[name][cost] = {"sizes": list(cells), "values": values, "slope": slopes[0] if slopes else None,
                                 "last": slopes[1] if slopes else None}
    return found


def table(by: str, steps: dict[str, dict]) -> str:
    sizes = next(iter(steps.values()))["seconds"]["sizes"]
    lines = ["| step | " + " | ".join(f"{size:,} {by}" for size in sizes) + " | slope of time | slope of memory |",
             "|---|" + "---|" * (len(sizes) + 2)]
    for name, costs in steps.items():
        cells = [f"{seconds:.1f} s, {mb:,.0f} MB"
                 for seconds, mb in zip(costs["seconds"]["values"], costs["mb"]["values"], strict=True)]
        slopes = ["–" if costs[cost]["slope"] is None else f"{costs[cost]['slope']:.2f} ({costs[cost]['last']:.2f})"
                  for cost in ("seconds", "mb")]
        lines.append("| " + " | ".join([name, *cells, *slopes]) + " |")
    return "\n".join(lines)


def fit_words(rows: int, tags: int, zipf: float, sgd_passes: int) -> dict:
    """Fits a lexical head on made-up titles and scores it on others; memory is that of the whole process."""
    made = list(products(rows + TEST_ROWS, tags, zipf))
    training, test = made[:rows], made[rows:]
    attributes = [{"name": "category", "kind": "single", "tags": [f"tag {number}" for number in range(tags)]}]
    settings = LexicalSettings(name_match=False)
    config = TaggerConfig(
        attributes=attributes, text_config=RecurrentTextConfig(vocab_size=10, hidden_size=8),
        lexical_buckets=settings.buckets, tag_codes=coded_attributes(attributes, settings) or None)
    head, features, encode = LexicalHead(config), LexicalFeatures(**config.lexical_features), TagEncoder(attributes)
    forget_peak()
    start, processor = time.perf_counter(), time.process_time()
    texts = ((title, encode({"category": [f"tag {given}"]})) for title, _, given in training)
    report = fit_lexical_head(head, features, attributes, texts, settings)
    found = {"rows": rows, "tags": tags, "threads": torch.get_num_threads(),
             "seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(time.process_time() - processor, 1),
             "peak_mb": round(peak_mb()), "kept": kept_within(attributes, settings, report),
             "head_mb": round(sum(tensor.nbytes for tensor in head.state_dict().values()) / 1e6, 1), **report}
    counts = np.bincount([given for *_, given in training], minlength=tags)
    truth = np.array([tag for _, tag, _ in test])
    says = []
    with torch.no_grad():
        for first in range(0, len(test), 256):
            read = features([title for title, *_ in test[first:first + 256]])
            logits, _ = head(*map(torch.from_numpy, read.values()), torch.ones(len(read["lexical_ids"]), dtype=bool),
                             candidate_attributes(config.attributes))
            says.append(logits[:, :tags].argmax(1).numpy())
    found["ours"] = recalls(np.concatenate(says), truth, counts)
    if sgd_passes:
        found["sgd"] = by_sgd(training, test, features, attributes, sgd_passes, counts)
    return found


def by_sgd(training: list, test: list, features: LexicalFeatures, attributes: list[dict], passes: int,
           counts: np.ndarray) -> dict:
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import SGDClassifier

    encode = TagEncoder(attributes)
    nothing = encode({"category": None})
    rows = SparseRows.of_texts(features, attributes, ((title, nothing) for title, *_ in (*training, *test)))
    ends = np.concatenate([[0], rows.terms.numpy().cumsum()])
    matrix = csr_matrix((rows.value.numpy(), rows.bucket.numpy(), ends), shape=(len(ends) - 1, features.buckets))
    start = time.process_time()
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=passes, tol=None, random_state=0)
    model.fit(matrix[:len(training)], [given for *_, given in training])
    seconds = time.process_time() - start
    said = np.concatenate([model.predict(matrix[first:first + 256])
                           for first in range(len(training), len(ends) - 1, 256)])
    return {"passes": passes, "cpu_seconds": round(seconds, 1),
            **recalls(said, np.array([tag for _, tag, _ in test]), counts)}


def recalls(said: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Accuracy, and the mean recall of tags by their number of training products."""
    right, found = said == truth, {"accuracy": round(float((said == truth).mean()), 4)}
    for low, high in itertools.pairwise((*RARE, np.inf)):
        tags = [tag for tag in np.unique(truth) if low <= counts[tag] < high]
        if tags:
            found[f"recall_{low}+"] = round(float(np.mean([right[truth == tag].mean() for tag in tags])), 4)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
