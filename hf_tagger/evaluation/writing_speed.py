"""How long free-form tags take: one product at a time, and what a trie adds to a step."""

import random
import time
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessorList, pipeline

from hf_tagger.model.decoder import TagLogitsProcessor
from hf_tagger.model.generation import TagPrior, TagRules, TagTrie


def writing_latency(model: str, products: Sequence[dict], max_new_tokens: int = 24, warm_up: int = 5) -> dict[str, Any]:
    """Milliseconds for the closed and free-form tags of one product with text and photo, read photo included, greedy.

    Args:
        model: folder or Hub id of a tagger with a decoder.
        products: as the pipeline takes them; each is measured once, after `warm_up` others.

    Returns "p50_ms", "p95_ms", "encoder_share" (of towers and fusion, in the whole time),
    "parameters" and "decoder_parameters".
    """
    tagger = pipeline("product-tagging", model=model)
    network, spent = tagger.model, {"encoder": 0.0, "started": 0.0}

    def start(*_):
        spent["started"] = time.perf_counter()

    def stop(*_):
        spent["encoder"] += time.perf_counter() - spent["started"]

    hooks = [network.encoder.register_forward_pre_hook(start), network.encoder.register_forward_hook(stop)]
    options = {"free_form": True, "max_new_tokens": max_new_tokens}
    tagger(list(products[:warm_up]), batch_size=1, **options)
    spent["encoder"], seconds = 0.0, []
    for product in products[warm_up:]:
        begin = time.perf_counter()
        tagger(product, **options)
        seconds.append(time.perf_counter() - begin)
    for hook in hooks:
        hook.remove()
    decoder = sum(weight.numel() for part in (network.decoder, network.decoder_memory) for weight in part.parameters())
    return {
        "products": len(seconds), "max_new_tokens": max_new_tokens,
        "p50_ms": round(1000 * median(seconds), 1), "p95_ms": round(1000 * quantiles(seconds, n=20)[-1], 1),
        "encoder_share": round(spent["encoder"] / sum(seconds), 3),
        "parameters": sum(parameter.numel() for parameter in network.parameters()), "decoder_parameters": decoder,
    }  # fmt: skip


@torch.no_grad()
def trie_cost(model, memory, tags: int = 100_000, repeats: int = 5) -> dict[str, float]:
    """Seconds to build a trie of made-up tags, and milliseconds per step of generation without it, with it, and with a
    prior of its tags as well.

    Args:
        model: a `TaggerModel` with a decoder; memory: of B products, which are written side by side.
    """
    decoder, draw = model.config.decoder, random.Random(0)
    tokens = range(5, model.config.first_control_id)
    sequences: dict[tuple[int, ...], None] = {}
    while len(sequences) < tags:
        sequences[tuple(draw.choices(tokens, k=draw.randint(1, 6)))] = None
    start = time.perf_counter()
    trie = TagTrie(sequences)
    built = time.perf_counter() - start
    products, steps = len(memory.last_hidden_state), decoder["max_length"] - 2
    beliefs = np.random.default_rng(0).random((products, tags), np.float32)
    prior = TagPrior(trie, beliefs, np.full(products, 0.5))
    seconds: dict[str, list[float]] = {"free": [], "trie": [], "prior": []}
    for _ in range(repeats):
        for name, rules in (("free", TagRules(decoder)), ("trie", TagRules(decoder, trie=trie)),
                            ("prior", TagRules(decoder, trie=trie, prior=prior))):
            shape = TagLogitsProcessor(1, rules)
            start = time.perf_counter()
            # Always as many steps: otherwise a list that ends early would pass for a fast one.
            model.generate(encoder_outputs=memory, logits_processor=LogitsProcessorList([shape]), eos_token_id=-1,
                           max_new_tokens=steps)
            seconds[name].append((time.perf_counter() - start) / steps)
    free, with_trie, with_prior = (1000 * median(values) for values in seconds.values())
    return {"tags": len(trie), "build_seconds": round(built, 2), "step_ms": round(free, 2),
            "step_with_trie_ms": round(with_trie, 2), "slowdown": round(with_trie / free - 1, 3),
            "step_with_prior_ms": round(with_prior, 2), "slowdown_with_prior": round(with_prior / free - 1, 3)}
