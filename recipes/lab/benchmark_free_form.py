"""How fast a tagger writes free-form tags, and what its vocabulary mode costs, as one JSON object.

    python recipes/lab/benchmark_free_form.py recipes/configs/add_decoder.yaml --model runs/fashion-free-form
    python recipes/lab/benchmark_free_form.py recipes/configs/add_decoder.yaml --model runs/random --against runs/sorted

The configuration says where the catalogue is. Run it on a machine that does nothing else. `--against` names a tagger
whose targets stood in another order in training: how much that changed what is written is reported too.
"""

import json
import sys
from itertools import islice

from transformers import pipeline

from hf_tagger import cli
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.free_form import OrderSensitivity
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.writing_speed import trie_cost, writing_latency
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.arguments import load_run


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--model", required=True, help="folder or Hub id of a tagger with a decoder")
    parser.add_argument("--products", type=int, default=100)
    parser.add_argument("--trie_tags", type=int, default=100_000)
    parser.add_argument("--batch_size", type=int, default=32, help="products written side by side with the trie")
    parser.add_argument("--against", help="folder or Hub id of a tagger trained on another order of targets")
    options, overrides = parser.parse_known_args(arguments)
    settings, _ = load_run(options.config, overrides)
    if settings.catalog.source is None:
        raise ConfigError(f"{options.config}: the benchmark needs a catalogue with a source")
    catalog = Catalog(settings.catalog.source, settings.catalog.schema)
    split = settings.evaluation.split if settings.evaluation.split in catalog.splits else "train"
    records = (item for item in catalog.records(split) if not isinstance(item, Refusal))
    whole = (item for item in records if item["text"] and item["images"])
    chosen = list(islice(whole, options.products + 5))
    model, processor = TaggerModel.from_pretrained(options.model), TaggerProcessor.from_pretrained(options.model)
    products = [{"text": item["text"], "images": item["images"]} for item in chosen]
    side_by_side = products[:options.batch_size]
    batch = processor(text=[item["text"] for item in side_by_side], images=[item["images"] for item in side_by_side])
    memory = model.eval()(**batch, output_memory=True).memory
    result = {"config": options.config, "model": options.model, "machine": describe_machine(),
              "latency": writing_latency(options.model, products), "trie": trie_cost(model, memory, options.trie_tags)}
    if options.against is not None:
        result["order_sensitivity"] = order_sensitivity([options.model, options.against], chosen)
    print(json.dumps(result, indent=1, ensure_ascii=False))


def order_sensitivity(models: list[str], records: list[dict]) -> dict[str, float]:
    runs = []
    for model in models:
        tagger = pipeline("product-tagging", model=model)
        # A threshold of 1 leaves the closed tags out, and must not be that of the written ones.
        least = tagger.model.config.decoder["min_score"]
        products = [{"text": item["text"], "images": item["images"]} for item in records]
        runs.append([[tag["label"] for tag in tags if tag["source"] == "generated"]
                     for tags in tagger(products, free_form=True, threshold=1.0, min_score=least)])
    references = [[tag for tags in item["free_form"].values() for tag in tags or ()] for item in records]
    predictions = [list(written) for written in zip(*runs, strict=True)]
    return OrderSensitivity().compute(predictions=predictions, references=references)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
