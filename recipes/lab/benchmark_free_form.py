"""How fast a tagger writes free-form tags, and what its vocabulary mode costs, as one JSON object.

    python recipes/lab/benchmark_free_form.py runs/fashion-free-form recipes/configs/add_decoder.yaml
    python recipes/lab/benchmark_free_form.py runs/random recipes/configs/add_decoder.yaml --against runs/sorted

Run it on a machine that does nothing else. `--against` names a tagger whose targets stood in another order in training:
how much that changed what is written is reported too. Keys of the catalogue's YAML file can be overridden as
`--key.sub value`.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList

from hf_tagger import cli
from hf_tagger.evaluation.free_form import set_scores, unique
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.decoder import TagLogitsProcessor
from hf_tagger.model.generation import TagPrior, TagRules, TagTrie
from hf_tagger.model.saving import first_control_id
from measuring import as_product, complete_records, conditions, open_split

WARM_UP, MAX_NEW_TOKENS, TRIE_REPEATS = 5, 24, 5


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    found = {"model": options.model, "split": options.split, **conditions()}
    with TemporaryDirectory() as folder:
        _, catalog = open_split(options, overrides, folder)
        records = complete_records(catalog, options.split, options.products + WARM_UP, WARM_UP + 2)
        tagger = open_tagger(options.model, process_state().device)
        products = [as_product(record) for record in records]
        found |= {"latency": latency(tagger, products),
                  "trie": trie_cost(tagger, products[:options.batch_size], options.trie_tags)}
        if options.against is not None:
            found["order_sensitivity"] = order_sensitivity([options.model, options.against], records)
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--split", default="test")
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--trie_tags", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=32, help="products written side by side with the trie")
    parser.add_argument("--against", help="folder or Hub id of a tagger trained on another order of targets")
    return parser.parse_known_args(arguments)


def latency(tagger, products: Sequence[dict]) -> dict[str, Any]:
    """Milliseconds for the closed and free-form tags of one product with text and photo, photo decoded, greedy; each
    product is measured once, after `WARM_UP` others.

    Returns "p50_ms", "p95_ms", "encoder_share" (of towers and fusion, in the whole time), "parameters" and
    "decoder_parameters".
    """
    model, encoder = tagger.model, []
    # Each call of the encoder leaves the time at which it began, and takes it away again at its end.
    hooks = [model.encoder.register_forward_pre_hook(lambda *_: encoder.append(-time.perf_counter())),
             model.encoder.register_forward_hook(lambda *_: encoder.append(encoder.pop() + time.perf_counter()))]
    options = {"free_form": True, "max_new_tokens": MAX_NEW_TOKENS}
    tagger(list(products[:WARM_UP]), batch_size=1, **options)
    encoder.clear()
    seconds = []
    for product in products[WARM_UP:]:
        start = time.perf_counter()
        tagger(product, **options)
        seconds.append(time.perf_counter() - start)
    for hook in hooks:
        hook.remove()
    decoder = sum(weight.numel() for part in (model.decoder, model.decoder_memory) for weight in part.parameters())
    p50, p95 = np.percentile(seconds, [50, 95]).tolist()
    return {
        "products": len(seconds), "max_new_tokens": MAX_NEW_TOKENS, "p50_ms": round(1e3 * p50, 1),
        "p95_ms": round(1e3 * p95, 1), "encoder_share": round(sum(encoder) / sum(seconds), 3),
        "parameters": sum(weight.numel() for weight in model.parameters()), "decoder_parameters": decoder,
    }


@torch.no_grad()
def trie_cost(tagger, products: Sequence[dict], tags: int) -> dict[str, float]:
    """Seconds to build a trie of made-up tags, and milliseconds per step of generation without it, with it, and with a
    prior of its tags as well, for the products side by side."""
    model, draw = tagger.model, random.Random(0)
    batch = tagger.processor(text=[product["text"] for product in products],
                             images=[product["images"] for product in products])
    memory = model(**batch.to(model.device), output_memory=True).memory
    decoder, tokens = model.config.decoder, range(5, first_control_id(model.config.decoder))
    sequences: dict[tuple[int, ...], None] = {}
    while len(sequences) < tags:
        sequences[tuple(draw.choices(tokens, k=draw.randint(1, 6)))] = None
    start = time.perf_counter()
    trie = TagTrie(sequences)
    built = time.perf_counter() - start
    steps = decoder["max_length"] - 2
    scores = np.random.default_rng(0).random((len(products), tags), np.float32)
    prior = TagPrior(trie, scores, np.full(len(products), np.log(0.5)), np.log1p(-scores))
    seconds: dict[str, list[float]] = {"free": [], "trie": [], "prior": []}
    for _ in range(TRIE_REPEATS):
        for name, rules in (("free", TagRules(decoder)), ("trie", TagRules(decoder, trie=trie)),
                            ("prior", TagRules(decoder, trie=trie, prior=prior))):
            shape = TagLogitsProcessor(1, rules)
            start = time.perf_counter()
            # Always as many steps: otherwise a list that ends early would pass for a fast one.
            model.generate(encoder_outputs=memory, logits_processor=LogitsProcessorList([shape]), eos_token_id=-1,
                           max_new_tokens=steps)
            seconds[name].append((time.perf_counter() - start) / steps)
    free, with_trie, with_prior = (1e3 * median(values) for values in seconds.values())
    return {"tags": len(trie), "build_seconds": round(built, 2), "step_ms": round(free, 2),
            "step_with_trie_ms": round(with_trie, 2), "slowdown": round(with_trie / free - 1, 3),
            "step_with_prior_ms": round(with_prior, 2), "slowdown_with_prior": round(with_prior / free - 1, 3)}


def order_sensitivity(models: Sequence[str], records: Sequence[dict]) -> dict[str, float]:
    """How much what is written depends on the order in which the targets stood when a model was trained: "f1_range",
    the difference of F1@M between the models, and "agreement", the mean overlap (Jaccard) of what they write of one
    product."""
    references = [[tag for tags in record["free_form"].values() for tag in tags or ()] for record in records]
    written, scores = [], []
    for model in models:
        tagger = open_tagger(model, process_state().device)
        # A threshold of 1 leaves the closed tags out, and must not be that of the written ones.
        least = tagger.model.config.decoder["min_score"]
        lists = [[tag["label"] for tag in tags if tag["source"] == "generated"] for tags in
                 tagger([as_product(record) for record in records], free_form=True, threshold=1.0, min_score=least)]
        written.append([set(unique(tags)) for tags in lists])
        scores.append(set_scores(lists, references)["f1@M"])
    overlaps = [len(first & second) / len(first | second) if first | second else 1.0
                for first, second in zip(*written, strict=True)]
    return {"f1_range": max(scores) - min(scores), "agreement": sum(overlaps) / len(overlaps)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
