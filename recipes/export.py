"""Export a tagger to ONNX, in float32 and in int8, and prove that it still says the same.

    hf_tagger export runs/fashion recipes/configs/fashion.yaml

MODEL is a model folder, an adapter folder or a Hub id. CATALOGUE is a YAML file with source and schema (the one the
model was trained by will do), or the path of a catalogue that is written like the training one. Keys of `catalog` and
`evaluation` can be overridden as `--key.sub value`. The columns of tags need not be there: macro-F1 is then left out.

Written: OUT/onnx and OUT/onnx_int8 (OUT: the output folder). Each has `parity.json`: the largest difference of logits
on the validation split, macro-F1 of the model and of the export, products per second, p50 and p95 in milliseconds at
batch 1 and 32, and size; where the model has a decoder, which is exported with it, also how often the same free-form
tags are written, and the times with them. Products that cannot be read are passed over, and counted. The vision tower
computes in int8 only where that is quicker. Layers that int8 harms are found on the validation split and left in
float32, until at most --int8_changes of the decisions differ; the decoder and the heads always stay in float32.

A folder gets its name when all of it has been written and compared. One that must not be used gets none, and the status
is 1: where float32 logits differ by more than 1e-4 and by more than the model's own do between batches, where in
float32 over 1 % of the products get other free-form tags, or where int8 loses more than 0.5 points of macro-F1 beyond
what chance explains (a paired bootstrap over the products). Then
`pipeline("product-tagging", model=OUT, backend="onnx_int8")`, or, without torch,
`hf_tagger.runtime.OnnxTagger("OUT/onnx_int8")`.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hf_tagger import cli
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.settings import EvaluateSettings, load_checked_evaluation

PARTS = ("text", "vision")  # that `deployment.quantize` knows how to bring to int8
JUDGED_BATCHES, WRITTEN_PRODUCTS = 16, 300
MEASURED_AT_ONCE = 4  # products: onnxruntime holds all activations of a batch while their ranges are measured


@cli.recipe
def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    import torch

    from hf_tagger.evaluation.parity import both_predictions, written_parity
    from hf_tagger.evaluation.protocols import open_tagger

    tagger = open_tagger(options.model, torch.device("cpu"))
    out = Path(options.output_dir or options.model)
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export-", dir=out) as work:
        catalog = open_catalog(settings.catalog, Path(work, "catalog"))
        catalog = catalog.with_tags_if_any(settings.evaluation.validation)
        folders, exported = export(tagger, catalog, settings, options, Path(work))
        cli.say(f"comparing on {settings.evaluation.validation}")
        split = batches(tagger, catalog, settings, settings.evaluation.validation)
        (reference, *found), noise = both_predictions(tagger, list(exported.values()), split)
        tagger.autocast = lambda: torch.autocast("cpu", enabled=False)  # the comparison is with eager float32
        written, writes = {}, tagger.model.decoder is not None
        products = first_products(tagger, catalog, settings, max(options.products, WRITTEN_PRODUCTS * writes))
        if writes:
            cli.say("comparing free-form tags")
            written = written_parity(tagger, exported, products[:WRITTEN_PRODUCTS])
        timed = speed(options.model, folders, products[:options.products], writes)
        predictions = dict(zip(folders, found, strict=True))
        status = report(options.model, out, folders, exported, reference, predictions, noise, written, timed)
        print(catalog.totals())
        return status


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--output_dir", help="folder for what is written (default: MODEL)")
    parser.add_argument("--int8", nargs="*", choices=list(PARTS),
                        help="parts that compute in int8, the others stay float32 (none: no int8 export; "
                             "default: text, and vision where it gains)")
    parser.add_argument("--int8_changes", type=float, default=0.005, metavar="SHARE",
                        help="decisions, one per product and attribute, that int8 may change (1: all; default: 0.005)")
    parser.add_argument("--calibration_batches", type=int, default=4,
                        help="batches of `loader.batch_size` that int8 scales are measured on")
    parser.add_argument("--products", type=int, default=64, help="products that are timed (0: none)")
    return parser.parse_known_args(arguments)


def export(tagger, catalog, settings: EvaluateSettings, options: argparse.Namespace, work: Path) -> tuple[dict, dict]:
    """{name: folder in `work`} and {name: tagger} of what is exported: onnx, and onnx_int8 unless --int8 names no
    part."""
    import torch

    from hf_tagger.deployment.export import export_tagger
    from hf_tagger.deployment.quantize import parts_that_gain, quantize_within
    from hf_tagger.runtime import OnnxTagger, model_fingerprint

    cli.say("exporting in float32")
    fingerprint = model_fingerprint(tagger.model.name_or_path)
    folders = {"onnx": export_tagger(tagger.model, tagger.processor, work / "onnx", fingerprint)}
    exported = {"onnx": OnnxTagger(folders["onnx"], threads=torch.get_num_threads())}
    if options.int8 != []:
        few = replace(settings, loader=replace(settings.loader, batch_size=MEASURED_AT_ONCE))
        measured = -(-options.calibration_batches * settings.loader.batch_size // MEASURED_AT_ONCE)
        wanted = [(few, "train", measured), (settings, settings.evaluation.validation, JUDGED_BATCHES)]
        scaled, judged = ([exported["onnx"].feed(**batch)
                           for batch in islice(arrays(batches(tagger, catalog, each, split)), count)]
                          for each, split, count in wanted)
        parts = options.int8 or parts_that_gain(folders["onnx"])
        cli.say(f"int8: {', '.join(parts)}")
        folders["onnx_int8"] = quantize_within(folders["onnx"], work / "onnx_int8", scaled, judged, parts,
                                               options.int8_changes, cli.say)
        exported["onnx_int8"] = OnnxTagger(folders["onnx_int8"], threads=torch.get_num_threads())
    return folders, exported


def report(model: str, out: Path, folders: dict[str, Path], exported: dict, reference, predictions: dict, noise,
           written: dict, timed: dict) -> int:
    """Writes parity.json of every exported folder, and moves it to `out` if it may be used. Returns 1 where one must
    not."""
    from hf_tagger.deployment.export import size_mb
    from hf_tagger.evaluation.machine import describe_machine
    from hf_tagger.evaluation.parity import failure, parity
    from hf_tagger.evaluation.tables import text_table

    status, shown = 0, {}
    if not any(any(tags.values()) for tags in reference.tags):
        cli.say("no product of the validation split has tags: macro-F1 is not compared, changed tags are")
    for name, folder in folders.items():
        found = {"model": model, "machine": describe_machine(), "size_mb": round(size_mb(folder), 1),
                 **parity(reference, predictions[name], noise),
                 "speed": {size: {which: rows[which] for which in ("torch", name)} for size, rows in timed.items()}}
        if written:
            found["written"] = written[name]
        (folder / "parity.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        shown[name] = {"MB": found["size_mb"], "largest difference of logits": found["max_logit_difference"],
                       "changed tags": found["changed_tags"], "macro-F1": found["macro_f1"].get("mean"),
                       "of the model": found["macro_f1_of_the_model"].get("mean")}
        shown[name] |= {f"ms a product, {size}": rows[name]["p50_ms"] for size, rows in timed.items()}
        reason = failure(exported[name].description["precision"], found)
        if reason is not None:
            cli.say(f"{out / name} is not written, for it must not be used: {reason}")
            status = 1
            continue
        if (out / name).exists():
            (out / name).rename(folder.with_name(f"{name}_before"))
        folder.rename(out / name)
    print(text_table(shown))
    return status


def batches(tagger, catalog, settings: EvaluateSettings, split: str):
    from hf_tagger.catalog.batching.collate import Collator
    from hf_tagger.catalog.batching.loader import CatalogLoader

    collator = Collator(tagger.processor, tagger.model.config.attributes, allow_urls=catalog.schema.allow_urls)
    return CatalogLoader(catalog, split, collator, settings.loader).epoch()


def arrays(batches: Iterable[dict]) -> Iterator[dict[str, np.ndarray]]:
    """What the model reads of each batch; those without a product are passed over."""
    from hf_tagger.catalog.batching.collate import model_inputs

    for batch in batches:
        if batch["ids"] and (inputs := model_inputs(batch, "cpu")):
            yield {name: tensor.numpy() for name, tensor in inputs.items()}


def first_products(tagger, catalog, settings: EvaluateSettings, count: int) -> list[dict]:
    """The first products of the validation split that can be read, as the pipeline takes them."""
    products, unreadable = [], 0
    for record in catalog.records(settings.evaluation.validation):
        if len(products) == count:
            break
        product = {} if isinstance(record, Refusal) else {name: record[name] for name in ("text", "images", "language")}
        if not product or "error" in tagger.preprocess(product, on_error="skip"):
            unreadable += 1
        else:
            products.append(product)
    if unreadable:
        cli.say(f"passed over {unreadable} products that cannot be read")
    return products


def speed(model: str, folders: dict[str, Path], products: list[dict], writes: bool) -> dict[str, dict]:
    """{"batch 1", "batch 32"} and, of a model with a decoder, the same "with free-form tags": the torch pipeline in
    float32 and each export, in turns, photos decoded from bytes."""
    from hf_tagger.evaluation.inference import time_in_turns

    taggers = {"torch": model, **folders}
    timed = time_in_turns(taggers, products, 3)
    if writes:
        timed |= {f"{size} with free-form tags": times
                  for size, times in time_in_turns(taggers, products, 3, free_form=True).items()}
    return timed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
