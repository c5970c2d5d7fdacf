"""Whether it pays to have a decoder write several tag sets and to keep one: the best by the critic of tag sets, by the
decoder, by the heads, or the one that most of the others agree with.

    python recipes/lab/rerank_samples.py recipes/configs/food_keywords.yaml runs/food-keywords-0

The critic is trained here, on MODEL's own vectors of CONFIG's training products. Of each product the first set is
written greedily, the others drawn; every set is listed as the pipeline lists it. "best there is" is the set of highest
F1, which nobody knows. Prints F1@M of each way, alone and beside the closed tags, as one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file

from hf_tagger import cli
from hf_tagger.augmentation.judge import train_judge
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.free_form import ratios, set_counts
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.decisions import attribute_slices, best_first, list_tags, log_odds
from hf_tagger.model.decoder import FreeFormTagger
from hf_tagger.model.reranking import TagSetCritic
from hf_tagger.training.arguments import load_run
from hf_tagger.training.checkpoint import write_safetensors
from hf_tagger.training.rare_tags import tag_embeddings
from measuring import as_product, readable

BATCH = 32


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    tagger = open_tagger(options.model, process_state().device)
    with TemporaryDirectory() as folder:
        catalog = open_catalog(settings.catalog, Path(folder))
        path = Path(options.critic)
        if not path.exists():
            write_safetensors(path, trained_critic(tagger, list(readable(catalog, "train")), options.seed).state_dict())
        critic = TagSetCritic.from_tensors(load_file(path))
        found = {split: rerank(tagger, critic, list(readable(catalog, split))[:options.products], options)
                 for split in options.splits}
    print(json.dumps(found, indent=1))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config", "model")
    parser.add_argument("--critic", default="critic.safetensors", help="trained and written there if it is not there")
    parser.add_argument("--splits", nargs="*", default=["validation", "test"])
    parser.add_argument("--temperature", type=float, default=1.0, help="of drawing")
    parser.add_argument("--samples", type=int, default=4, help="sets drawn beside the greedy one")
    parser.add_argument("--products", type=int, help="the first of each split alone")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_known_args(arguments)


@torch.no_grad()
def encoded(tagger, records: Sequence[dict], memory: bool):
    """Batch by batch the records, the pooled vectors, the closed tags' probabilities and what the decoder attends to.
    """
    for start in range(0, len(records), BATCH):
        part = records[start:start + BATCH]
        batch = tagger.collate([tagger.preprocess(as_product(record)) for record in part])
        with tagger.autocast():
            output = tagger.model(**batch, output_memory=memory)
            scores = tagger.model.tag_scores(output.tag_logits, output.none_logits)
        yield part, output.pooled.float(), scores.float(), output.memory


def trained_critic(tagger, records: Sequence[dict], seed: int):
    attributes, model = tagger.model.config.attributes, tagger.model
    encode, vectors, scores, labels = TagEncoder(attributes), [], [], []
    for part, pooled, given, _ in encoded(tagger, records, memory=False):
        vectors.append(pooled.numpy())
        scores.append(given)
        labels += [encode(record["tags"]) for record in part]
    data, known = TaggedVectors(np.concatenate(vectors), np.stack(labels).astype(np.int8)), torch.cat(scores)
    place = {row.tobytes(): number for number, row in enumerate(data.vectors)}

    def own_scores(rows: torch.Tensor) -> torch.Tensor:
        return known[[place[row.tobytes()] for row in rows.numpy()]]

    return train_judge(data, attribute_slices(attributes), tag_embeddings(model, tagger.processor), own_scores, seed,
                       progress=False)


class SetWriter(FreeFormTagger):
    """Keeps the decoder's own say on each tag."""

    def _entry(self, tag, asked, scores):
        return {**super()._entry(tag, asked, scores), "log_probability": tag.log_probability}


@torch.no_grad()
def rerank(tagger, critic, records: Sequence[dict], options) -> dict[str, dict[str, float]]:
    """{way of choosing: {"written": F1@M of the set, "free": with the closed tags}} over the records whose free-form
    tags are known; "closed" is the closed tags alone."""
    records = [record for record in records if any(tags is not None for tags in record["free_form"].values())]
    writer, counts = SetWriter(tagger.model, tagger.processor), {}

    def count(way: str, kind: str, tags: list[dict], true: list[str]) -> None:
        found = set_counts([[tag["label"] for tag in tags]], [true])[0]
        counts.setdefault(way, {}).setdefault(kind, []).append(found)

    for part, pooled, scores, memory in encoded(tagger, records, memory=True):
        languages = [record["language"] for record in part]
        written = [writer(memory, languages, scores.numpy())]
        for number in range(options.samples):
            torch.manual_seed(options.seed + number)
            written.append(writer(memory, languages, scores.numpy(), do_sample=True,
                                  temperature=options.temperature))
        chosen = tagger.model.predicted_tags(scores)
        held_back = critic.keep(pooled, chosen)
        for row, (record, candidates) in enumerate(zip(part, zip(*written, strict=True), strict=True)):
            true = [tag for tags in record["free_form"].values() for tag in tags or ()]
            closed, judged = (list_tags(tagger.model.config.attributes, scores[row].tolist(), each[row].tolist())
                              for each in (chosen, held_back))
            count("closed", "free", closed, true)
            count("closed, critic removes", "free", judged, true)
            for way, values in merits(tagger, critic, pooled[row], scores[row], candidates, true).items():
                best = candidates[int(np.argmax(values))]
                count(way, "written", best, true)
                count(way, "free", best_first(closed, best), true)
    return {way: {kind: ratios(np.sum(rows, axis=0).tolist())[2] for kind, rows in kinds.items()}
            for way, kinds in counts.items()} | {"products": len(records)}


def merits(tagger, critic, pooled: torch.Tensor, scores: torch.Tensor, candidates: Sequence[list[dict]],
           true: list[str]) -> dict[str, Sequence[float]]:
    """{way of choosing: how good it finds each candidate}; the first is the greedy one."""
    named = [(attribute["name"], tag) for attribute in tagger.model.config.attributes for tag in attribute["tags"]]
    column = {name: number for number, name in enumerate(named)}
    held = torch.zeros(len(candidates), len(named))
    for row, listed in zip(held, candidates, strict=True):
        row[[column[name] for name in ((tag["attribute"], tag["label"]) for tag in listed) if name in column]] = 1
    alone, gain = (critic(pooled.expand(len(held), -1), each) for each in (torch.zeros_like(held), held))
    sets = [[tag["label"] for tag in listed] for listed in candidates]
    overlap = [[ratios(set_counts([each], [other])[0].tolist())[2] for other in sets] for each in sets]
    return {"greedy": [1, *[0] * (len(held) - 1)],
            # Each pair of tags stands in the gains of both.
            "critic": (held * (alone + gain) / 2).sum(1).tolist(),
            "critic without pairs": (held * alone).sum(1).tolist(),
            "heads": (held * torch.from_numpy(log_odds(scores.numpy()))).sum(1).tolist(),
            "decoder": [np.mean([tag["log_probability"] for tag in listed] or -np.inf) for listed in candidates],
            "agreement": np.mean(overlap, axis=1).tolist(),
            "best there is": [ratios(set_counts([each], [true])[0].tolist())[2] for each in sets]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
