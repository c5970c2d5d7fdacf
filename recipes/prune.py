"""Cut layers, attention heads and neurons out of a tagger's text tower, and let it recover.

    hf_tagger prune runs/fashion recipes/configs/fashion.yaml --output_dir runs/fashion-pruned --layers 8 --neurons 768

MODEL is a model folder, CONFIG the training configuration that it came from (keys can be overridden as `--key.sub
value`). What matters least goes: importance is the mean size of the loss's slope by a gate on the part, over
`--products` of the training split (hf_tagger/deployment/pruning.py). Then heads and text tower are fine-tuned for
`--epochs` (0: not at all) and kernel head, logit fusion and calibration fitted again, as in any training. What is
written to the output folder is really smaller, and opens like any other model.

Prints parameters, macro-F1 on the validation split under every protocol, and milliseconds of the text tower, and writes
them to pruning.json there.
"""

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.settings import check_model
from hf_tagger.training.arguments import PhaseSettings, RunSettings, load_run

TOKENS = 16


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    check_model(options.model)
    settings, data = load_run(options.config, overrides)
    settings.check_paths()
    from hf_tagger.catalog.batching.collate import Collator
    from hf_tagger.catalog.batching.loader import CatalogLoader
    from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
    from hf_tagger.training.build import load_model
    from hf_tagger.training.whole import written_whole

    model, processor = load_model(options.model)
    out = options.output_dir
    catalog = open_catalog(settings.catalog, Path(out, "catalog"))
    collator = Collator(processor, model.config.attributes, allow_urls=catalog.schema.allow_urls)
    found = {"before": described(model, collator, catalog, settings)}
    whole, _ = load_model(options.model)
    cut(model, options, CatalogLoader(catalog, "train", collator, settings.training.loader, shuffle=True), settings)
    found["pruned"] = described(model, collator, catalog, settings)
    with written_whole(out) as folder:
        ProductTaggingPipeline(model, processor=processor).save_pretrained(folder)
    if options.epochs:
        recover(settings, data, out, options)
        model, _ = load_model(out)
        found["recovered"] = described(model, collator, catalog, settings)
    found["text_tower_ms"] = text_tower_ms({"before": whole, "pruned": model})
    Path(out, "pruning.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    print(catalog.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "config")
    parser.add_argument("--output_dir", required=True, help="folder for the pruned model")
    parser.add_argument("--layers", type=int, help="layers to keep (default: all)")
    parser.add_argument("--heads", type=int, help="attention heads to keep in each layer (default: all)")
    parser.add_argument("--neurons", type=int, help="feed-forward neurons to keep in each layer (default: all)")
    parser.add_argument("--products", type=int, default=1024, help="training products that importance is measured on")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning afterwards")
    options, overrides = parser.parse_known_args(arguments)
    if options.layers is options.heads is options.neurons is None:
        parser.error("say what to keep: --layers, --heads or --neurons")
    return options, overrides


def cut(model, options: argparse.Namespace, train, settings: RunSettings) -> None:
    from hf_tagger.deployment.pruning import measure_importance, prune_text_tower
    from hf_tagger.training.losses import TaggingLoss

    loss = TaggingLoss(model.config.attributes, settings.training.loss).to(model.device)
    tags = model.config.num_tags

    def summed(outputs, batch):
        logits = outputs.encoder_logits
        return loss(logits[:, :tags], logits[:, tags:], batch["tag_labels"].to(model.device)).total

    batches = islice(train.epoch(), -(-options.products // train.settings.batch_size))
    importance = measure_importance(model, batches, summed)
    kept = prune_text_tower(model, importance, options.layers, options.heads, options.neurons)
    print(f"layers kept: {', '.join(map(str, kept))} (importance of all: "
          f"{', '.join(f'{value:.3f}' for value in importance.layers.tolist())})")


def recover(settings: RunSettings, data: dict, out: str, options: argparse.Namespace) -> None:
    """The pruned model goes on from `out`, and the trained one takes its place."""
    from hf_tagger.training.batches import Batches
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.frozen_heads import fit_kernel_head, fit_logit_fusion
    from hf_tagger.training.phases import start_training, train_phases
    from hf_tagger.training.report import calibrate
    from hf_tagger.training.saving import save_run
    from hf_tagger.training.starting_model import starting_model

    phase = PhaseSettings(name="recovery", train=["heads", "text"], epochs=options.epochs, tower_learning_rate=1e-4,
                          learning_rate=3e-4)
    kernel = settings.model.kernel
    settings = settings.going_on(out, out, [phase])
    # The text of each landmark has changed for the tower: the kernel head is fitted anew.
    settings.model.kernel = kernel
    run = start_run(settings, data)
    catalogue = read_catalog(run)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    training = start_training(run, batches)
    train_phases(run, training)
    fit_kernel_head(run, training)
    fit_logit_fusion(run, training)
    calibrate(run, batches)
    save_run(run, training)


def described(model, collator, catalog, settings: RunSettings) -> dict:
    from hf_tagger.catalog.batching.loader import CatalogLoader
    from hf_tagger.evaluation.parity import macro_f1
    from hf_tagger.evaluation.protocols import predict_protocols, seen_through

    def read(protocol):
        seen = seen_through(catalog, protocol)
        return CatalogLoader(seen, settings.evaluation.validation, collator, settings.training.loader).epoch()

    found = predict_protocols(model, settings.evaluation.protocols, read)
    scores = {name: round(macro_f1(predictions)["mean"], 4) for name, predictions in found.items()}
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()), "macro_f1": scores,
            "text": {key: getattr(model.config.text_config, key) for key in ("num_hidden_layers", "intermediate_size")}
            | {"heads": model.config.text_heads or model.config.text_config.num_attention_heads}}


def table(found: dict) -> str:
    """Parameters and macro-F1 per protocol of every stage, and the towers' times."""
    stages = [name for name in found if name != "text_tower_ms"]
    rows = {"million parameters": [f"{found[stage]['parameters'] / 1e6:.2f}" for stage in stages]}
    rows |= {f"macro-F1, {name}": [f"{found[stage]['macro_f1'][name]:.4f}" for stage in stages]
             for name in found["before"]["macro_f1"]}
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{stage:>11}" for stage in stages)]
    lines += [f"{label:<{width}}" + "".join(f"{cell:>11}" for cell in cells) for label, cells in rows.items()]
    lines += [f"text tower, {size}: {times['before']} ms before, {times['pruned']} ms now"
              for size, times in found["text_tower_ms"].items()]
    return "\n".join(lines)


def text_tower_ms(models: dict, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Median milliseconds of the text towers alone on 1 and 32 texts of `TOKENS` tokens, in turns."""
    import torch

    found = {}
    for size in (1, 32):
        ids = torch.full((size, TOKENS), 3)
        times = {name: [] for name in models}
        for _ in range(rounds):
            for name, model in models.items():
                start = time.perf_counter()
                with torch.no_grad():
                    model.eval().encoder.text_tower(input_ids=ids, attention_mask=torch.ones_like(ids))
                times[name].append(1e3 * (time.perf_counter() - start))
        found[f"batch {size}"] = {name: round(float(np.median(values)), 2) for name, values in times.items()}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
