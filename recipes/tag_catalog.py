"""Tag a whole catalogue, however large, into parquet shards.

    python recipes/tag_catalog.py runs/fashion/onnx_int8 recipes/configs/fashion.yaml tags --split test
    python recipes/tag_catalog.py runs/my-shop new_products.csv tags --resume

MODEL is a folder that recipes/export.py wrote (the fastest on a CPU), a model folder, an adapter folder or a Hub id.
CATALOGUE is a YAML file with source and schema, or, for a model folder, the path of a catalogue that is written like
the training one. Keys of `catalog` can be overridden as `--key.sub value`. Several processes share the work under
`accelerate launch` (on CPUs: `python -m torch.distributed.run --nproc_per_node 2`).

Written to OUT: part-RANK-NUMBER.parquet with the columns id, tags, scores, attribute, source and error, one row per row
of the catalogue; manifest.json; summary.json. A shard is renamed to its name when it is complete. A run that was killed
goes on with --resume from the last complete shards, unless the model is another one by now. Where a photo cannot be
read, the text is tagged and `error` says why; rows that cannot be tagged at all have an error alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment.bulk import open_output, opened_fingerprint, summarize, tag_shards
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.evaluation.settings import load_evaluation
from hf_tagger.runtime import TAGGER, ArtefactError, OnnxTagger, file_fingerprint


def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    try:
        settings = load_evaluation(options.catalogue, options.model, overrides)
        tagger, attributes, fingerprint = open_model(options.model, state)
        manifest = {"model": fingerprint, "catalogue": repr(settings.catalog.source), "split": options.split,
                    "processes": state.num_processes, "shard_rows": options.shard_rows}
        with state.main_process_first():
            catalog = open_catalog(settings.catalog, Path(options.output_dir, "catalog"), write=state.is_main_process)
            if options.split not in catalog.splits:
                raise ConfigError(f"there is no split {options.split!r}; the catalogue has {', '.join(catalog.splits)}")
            folder = open_output(options.output_dir, manifest, options.resume or not state.is_main_process)
    except (ConfigError, ArtefactError) as error:
        print(f"tag_catalog: {error}", file=sys.stderr)
        return 2

    def tag(products):
        return tagger(products, batch_size=options.batch_size, num_workers=options.num_workers, on_error="skip",
                      allow_urls=catalog.schema.allow_urls) if products else []

    records = catalog.records(options.split, rank=state.process_index, world_size=state.num_processes)
    rows = options.rows or catalog.row_count(options.split)
    total = None if rows is None else -(-rows // state.num_processes)
    start, tagged = time.perf_counter(), 0
    with tqdm(total=total, unit="row", disable=not state.is_main_process) as progress:
        for rows in tag_shards(folder, records, tag, options.shard_rows, state.process_index):
            progress.update(rows)
            tagged += rows
    seconds = time.perf_counter() - start
    state.wait_for_everyone()
    if state.is_main_process:
        summary = {"seconds": round(seconds, 1), "rows_per_second_of_this_process": round(tagged / seconds, 1),
                   **summarize(folder, attributes)}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
        print(json.dumps(summary, indent=1))
    return 0


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("model", help="exported folder, model folder, adapter folder or Hub id")
    parser.add_argument("catalogue", help="YAML file, or the path of a catalogue written like the training one")
    parser.add_argument("output_dir", help="folder for the shards")
    parser.add_argument("--split", default="test", help="which split to tag (a catalogue by its path has only test)")
    parser.add_argument("--resume", action="store_true", help="go on with the shards of an interrupted run")
    parser.add_argument("--shard_rows", type=int, default=4096, help="rows of a shard; what a killed run does again")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1, help="threads that decode photos")
    parser.add_argument("--rows", type=int, help="how many there are, to show the time left (parquet tells by itself)")
    return parser.parse_known_args(arguments)


def open_model(model: str, state: PartialState):
    """(tagger, its attributes' names, what tells it from others)."""
    if Path(model, TAGGER).exists():
        tagger = OnnxTagger(model, threads=torch.get_num_threads())
        return tagger, [entry["name"] for entry in tagger.attributes], file_fingerprint(Path(model, TAGGER))
    tagger = open_tagger(model, state.device)
    return tagger, [entry["name"] for entry in tagger.model.config.attributes], opened_fingerprint(model, tagger.model)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
