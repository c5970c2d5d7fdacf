"""Tag a whole catalogue, however large: back into the shop's own file, or into parquet shards.

    hf_tagger tag runs/my-shop products_export.csv --output products_tagged.csv
    hf_tagger tag runs/my-shop products_export.csv --preview preview.html
    hf_tagger tag --undo products_tagged.csv.undo.jsonl
    hf_tagger tag runs/fashion/onnx_int8 recipes/configs/fashion.yaml --output_dir tags --split test
    hf_tagger tag runs/my-shop new_products.csv --output_dir tags --resume

MODEL is a folder that `hf_tagger export` wrote (the fastest on a CPU), a model folder, an adapter folder or a Hub id.
CATALOGUE is a YAML file with source and schema, or the path of a catalogue, read by the schema of --config or, for a
model folder, that of its training. Columns of tags are not read and need not be there. Keys of `catalog` can be
overridden as `--key.sub value`. Several processes share the work under `accelerate launch` (on CPUs:
`python -m torch.distributed.run --nproc_per_node 2`).

--output writes the file again with tags in it: same encoding, delimiter, quotes and order of columns, and every byte
that no tag changes as it was. Tags are added to those there, where the shop's system has them (`catalog.write` names
another place: `--catalog.write.colour.column Colour --catalog.write.colour.how cell`). Beside it:
OUTPUT.undo.jsonl, which --undo takes, and OUTPUT.provenance.jsonl, where each tag comes from.

--output_dir writes part-NUMBER.parquet with the columns id, tags, scores, attribute, source, error, row and photos, one
row per row of the catalogue; plan.json, which rows each is of; manifest.json; summary.json. A shard is renamed to its
name when it is complete. Any number of processes share the work: those of `accelerate launch`, or started with --resume
at any time on any machine that sees the folder; each takes what nobody has taken, also what a process that died has
left. A run that was killed goes on with --resume and as many processes as you like, unless the model or the catalogue
is another one by now. Where a photo cannot be read, the text is tagged and `error` says why; rows that cannot be tagged
at all have an error alone.
"""

import argparse
import json
import shutil
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
    if options.undo:
        from hf_tagger.deployment.write_back import undo

        print(f"restored: {undo(Path(options.undo), options.output)}")
        return
    if not Path(options.model, TAGGER).exists():
        check_model(options.model)
    settings = load_evaluation(options.catalogue, options.model, overrides, options.config).catalog
    settings.labels = None
    settings.check_paths(tags=False)
    back = options.output is not None or options.preview is not None
    if back:
        from hf_tagger.deployment.write_back import Rules, prepare, whole_file, write

        rules = Rules(options.replace, options.only_empty, options.min_score, options.at_most)
        settings, source = whole_file(settings, options.split, options.output, options.feedback, options.preview)
    from hf_tagger.catalog.reading.pieces import PieceReader
    from hf_tagger.deployment import shards
    from hf_tagger.deployment.bulk import summarize, tag_shards, write_plain
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.progress import progress_bar
    from hf_tagger.evaluation.tables import text_table

    state = process_state()
    tagger, attributes, fingerprint = open_model(options.model, state.device)
    manifest = {"model": fingerprint, "catalogue": repr(settings.source), "split": options.split,
                "shard_rows": options.shard_rows}
    if back:
        work, notes = prepare(settings, source, attributes, rules, options.attributes, options.feedback)
        manifest["file"] = [Path(source[0]).stat().st_size, Path(source[0]).stat().st_mtime_ns]
    with state.main_process_first():
        catalog = open_catalog(settings, Path(options.output_dir or ".", "catalog"),
                               write=state.is_main_process).without_tags()
        if options.split not in catalog.splits:
            raise ConfigError(f"there is no split {options.split!r}; the catalogue has {', '.join(catalog.splits)}")
        if options.preview is None:
            folder, pieces = open_shards(options, catalog, manifest, state.is_main_process)

    def tag(products):
        return tagger(products, batch_size=options.batch_size, num_workers=options.num_workers, on_error="skip",
                      allow_urls=catalog.schema.allow_urls) if products else []

    if options.preview is not None:
        from hf_tagger.evaluation.preview import preview

        records = catalog.records(options.split)
        done = preview(work, records, tag, options.products, options.preview, Path(source[0]).name)
        print(text_table(done.table()), *done.lines("would change"), *notes, sep="\n")
        return
    read, start, tagged = PieceReader(catalog, options.split), time.perf_counter(), 0
    taken = ((shards.shard_path(folder, piece), read(piece)) for piece in shards.claimed(folder, pieces))
    # What all workers have done, those of an earlier run among them.
    with progress_bar(total=sum(piece.rows for piece in pieces), unit="row", disable=not state.is_main_process,
                      initial=sum(piece.rows for piece in shards.done(folder, pieces))) as progress:
        for count in tag_shards(taken, tag, attributes):
            progress.update(sum(piece.rows for piece in shards.done(folder, pieces)) - progress.n)
            tagged += count
    seconds = time.perf_counter() - start
    if back:  # the folder is about to go
        state.wait_for_everyone()
    if not state.is_main_process:
        return
    shards.tidy(folder)
    if back:
        about = {"model": fingerprint, "opened_as": options.model, "export": Path(source[0]).name}
        done = write(options.output, work, folder, about)
        if not options.output_dir:
            shutil.rmtree(folder)
        print(text_table(done.table()), *done.lines(), *notes, sep="\n")
        return
    summary = {"seconds": round(seconds, 1), "rows_per_second_of_this_process": round(tagged / seconds, 1),
               **summarize(folder, [entry["name"] for entry in attributes])}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    if options.format != "parquet":
        write_plain(folder, options.format, [entry["name"] for entry in attributes])
    print(text_table(summary["attributes"]))
    print(f"{summary['rows']} rows, {summary['errors']} with an error, {summary['untagged']} without a tag; "
          f"{tagged / seconds:.1f} rows a second")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    undo = any(argument.partition("=")[0] == "--undo" for argument in arguments)
    parser = cli.parser(__doc__, *() if undo else ("model", "catalogue"))
    parser.add_argument("--output", type=Path, help="file to write: the catalogue's own with tags in it")
    parser.add_argument("--output_dir", help="folder for the shards")
    parser.add_argument("--preview", type=Path, metavar="PAGE", help="HTML page of what --output would change; nothing "
                                                                     "else is written")
    parser.add_argument("--products", type=int, default=1000, help="so many are looked at for --preview")
    parser.add_argument("--undo", metavar="FILE", help="restore what --output had changed, in place or as --output")
    parser.add_argument("--config", help="YAML file whose schema reads CATALOGUE, in place of the model's")
    parser.add_argument("--replace", action="store_true", help="drop the model's own tags where it says others")
    parser.add_argument("--only_empty", action="store_true", help="write into cells that hold nothing only")
    parser.add_argument("--attributes", type=lambda names: names.split(","), help="write these only: colour,material")
    parser.add_argument("--min_score", type=float, default=0.0, help="lowest score of a tag to be written")
    parser.add_argument("--at_most", type=int, help="tags of a product and attribute, the best ones")
    parser.add_argument("--feedback", help="store of verdicts: what a person removed does not come back")
    parser.add_argument("--split", default="test", help="which split to tag (a catalogue by its path has only test)")
    parser.add_argument("--format", choices=["parquet", "jsonl", "csv"], default="parquet",
                        help="of --output_dir; others are written beside the shards, as one file")
    parser.add_argument("--resume", action="store_true", help="go on with the shards of an interrupted run")
    parser.add_argument("--shard_rows", type=int, default=4096, help="rows of a shard; what a killed run does again")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1, help="threads that decode photos")
    options, overrides = parser.parse_known_args(arguments)
    if undo:
        return options, overrides
    if options.output is None and options.output_dir is None and options.preview is None:
        parser.error("say where the tags go: --output FILE, --output_dir FOLDER or --preview PAGE")
    return options, overrides


def open_shards(options: argparse.Namespace, catalog, manifest: dict, main: bool) -> tuple:
    """The folder of the shards: --output_dir, or beside --output one of its own, which goes on where it can; and the
    pieces of the catalogue, of which the main process writes the plan."""
    from hf_tagger.catalog.reading.pieces import plan
    from hf_tagger.deployment import shards
    from hf_tagger.deployment.bulk import open_output

    folder = Path(options.output_dir or f"{options.output}.shards")
    if not main:
        return folder, shards.read_plan(folder)
    pieces = plan(catalog, options.split, options.shard_rows)
    manifest = manifest | {"content": shards.describe(pieces)}
    try:
        open_output(folder, manifest, options.resume or not options.output_dir)
    except ConfigError:
        if options.output_dir:
            raise
        shutil.rmtree(folder)  # of another model, or of the file as it was before
        open_output(folder, manifest, resume=True)
    shards.write_plan(folder, pieces)
    return folder, pieces


def open_model(model: str, device) -> tuple:
    """(tagger, its attributes, what tells it from others)."""
    if Path(model, TAGGER).exists():
        import torch

        tagger = OnnxTagger(model, threads=torch.get_num_threads())
        return tagger, tagger.attributes, file_fingerprint(Path(model, TAGGER))
    from hf_tagger.deployment.bulk import opened_fingerprint
    from hf_tagger.evaluation.protocols import open_tagger

    tagger = open_tagger(model, device)
    return tagger, tagger.model.config.attributes, opened_fingerprint(model, tagger.model)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
