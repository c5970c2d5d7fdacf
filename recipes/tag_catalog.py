"""Tag a whole catalogue, however large, into parquet shards.

    hf_tagger tag runs/fashion/onnx_int8 recipes/configs/fashion.yaml --output_dir tags --split test
    hf_tagger tag runs/my-shop new_products.csv --output_dir tags --resume

MODEL is a folder that `hf_tagger export` wrote (the fastest on a CPU), a model folder, an adapter folder or a Hub id.
CATALOGUE is a YAML file with source and schema, or, for a model folder, the path of a catalogue that is written like
the training one. Columns of tags are not read and need not be there. Keys of `catalog` can be overridden as
`--key.sub value`.

Written to the output folder: part-NUMBER.parquet with the columns id, tags, scores, attribute, source and error, one
row per row of the catalogue; plan.json, which rows each is of; manifest.json; summary.json. A shard is renamed to its
name when it is complete. Any number of processes share the work: under `accelerate launch` (on CPUs:
`python -m torch.distributed.run --nproc_per_node 2`), or started with --resume at any time on any machine that sees
the folder. Each takes what nobody has taken, also what a process that died has left. A run that was killed goes on with
--resume and as many processes as you like, unless the model or the catalogue is another one by now. Where a photo
cannot be read, the text is tagged and `error` says why; rows that cannot be tagged at all have an error alone.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.settings import check_model, load_evaluation
from hf_tagger.runtime import TAGGER, OnnxTagger, file_fingerprint


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    if not Path(options.model, TAGGER).exists():
        check_model(options.model)
    settings = load_evaluation(options.catalogue, options.model, overrides)
    settings.catalog.labels = None
    settings.catalog.check_paths(tags=False)
    from tqdm import tqdm

    from hf_tagger.catalog.pieces import PieceReader
    from hf_tagger.deployment import shards
    from hf_tagger.deployment.bulk import summarize, tag_shards
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.tables import text_table

    state = process_state()
    tagger, attributes, fingerprint = open_model(options.model, state.device)
    manifest = {"model": fingerprint, "catalogue": repr(settings.catalog.source), "split": options.split,
                "shard_rows": options.shard_rows}
    with state.main_process_first():
        catalog = open_catalog(settings.catalog, Path(options.output_dir, "catalog"),
                               write=state.is_main_process).without_tags()
        if options.split not in catalog.splits:
            raise ConfigError(f"there is no split {options.split!r}; the catalogue has {', '.join(catalog.splits)}")
        folder, pieces = open_plan(options, catalog, manifest, state.is_main_process)

    def tag(products):
        return tagger(products, batch_size=options.batch_size, num_workers=options.num_workers, on_error="skip",
                      allow_urls=catalog.schema.allow_urls) if products else []

    read, start, tagged = PieceReader(catalog, options.split), time.perf_counter(), 0
    work = ((shards.shard_path(folder, piece), read(piece)) for piece in shards.claimed(folder, pieces))
    with tqdm(total=sum(piece.rows for piece in pieces), unit="row", disable=not state.is_main_process) as progress:
        # What all workers have done, those of an earlier run among them.
        progress.initial = progress.n = sum(piece.rows for piece in shards.done(folder, pieces))
        for rows in tag_shards(work, tag):
            tagged += rows
            progress.update(sum(piece.rows for piece in shards.done(folder, pieces)) - progress.n)
    seconds = time.perf_counter() - start
    if state.is_main_process:  # all is done, whoever has done it
        shards.tidy(folder)
        summary = {"seconds": round(seconds, 1), "rows_per_second_of_this_process": round(tagged / seconds, 1),
                   **summarize(folder, attributes)}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
        print(text_table(summary["attributes"]))
        print(f"{summary['rows']} rows, {summary['errors']} with an error, {summary['untagged']} without a tag; "
              f"{tagged / seconds:.1f} rows a second")


def open_plan(options: argparse.Namespace, catalog, manifest: dict, main: bool):
    """The output folder and the pieces of the catalogue, of which the main process writes the plan."""
    from hf_tagger.catalog.pieces import plan
    from hf_tagger.deployment import shards
    from hf_tagger.deployment.bulk import open_output

    if not main:
        return Path(options.output_dir), shards.read_plan(Path(options.output_dir))
    pieces = plan(catalog, options.split, options.shard_rows)
    folder = open_output(options.output_dir, manifest | {"content": shards.describe(pieces)}, options.resume)
    shards.write_plan(folder, pieces)
    return folder, pieces


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--output_dir", required=True, help="folder for the shards")
    parser.add_argument("--split", default="test", help="which split to tag (a catalogue by its path has only test)")
    parser.add_argument("--resume", action="store_true", help="go on with the shards of an interrupted run")
    parser.add_argument("--shard_rows", type=int, default=4096, help="rows of a shard; what a killed run does again")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1, help="threads that decode photos")
    return parser.parse_known_args(arguments)


def open_model(model: str, device):
    """(tagger, its attributes' names, what tells it from others)."""
    if Path(model, TAGGER).exists():
        import torch

        tagger = OnnxTagger(model, threads=torch.get_num_threads())
        return tagger, [entry["name"] for entry in tagger.attributes], file_fingerprint(Path(model, TAGGER))
    from hf_tagger.deployment.bulk import opened_fingerprint
    from hf_tagger.evaluation.protocols import open_tagger

    tagger = open_tagger(model, device)
    return tagger, [entry["name"] for entry in tagger.model.config.attributes], opened_fingerprint(model, tagger.model)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
