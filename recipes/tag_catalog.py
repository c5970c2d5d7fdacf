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
is another one by now. With `--engine ray`, actors of Ray do the work, on this machine or a cluster (--address): one
kind of workers goes on with what another has begun. Where a photo cannot be read, the text is tagged and `error` says
why; rows that cannot be tagged at all have an error alone.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.settings import made_up
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment.storage import fetched
from hf_tagger.evaluation.settings import check_model, load_evaluation
from hf_tagger.runtime import TAGGER


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    if options.undo:
        from hf_tagger.deployment.write_back import undo

        print(f"restored: {undo(Path(options.undo), options.output)}")
        return
    model = fetched(options.model)
    if not Path(model, TAGGER).exists():
        check_model(model)
    settings = load_evaluation(options.catalogue, model, overrides, options.config).catalog
    settings.labels = None
    settings.check_paths(tags=False)
    if settings.synthetic is not None and "://" in (options.output_dir or ""):
        raise ConfigError("a made-up catalogue is written into --output_dir: name a folder on a disk")
    back = options.output is not None or options.preview is not None
    if back:
        from hf_tagger.deployment.write_back import Rules, prepare, whole_file, write

        rules = Rules(options.replace, options.only_empty, options.min_score, options.at_most)
        settings, source = whole_file(settings, options.split, options.output, options.feedback, options.preview)
    from hf_tagger.deployment import shards, storage
    from hf_tagger.deployment.bulk import Progress, open_shards, write_plain
    from hf_tagger.deployment.worker import Work
    from hf_tagger.evaluation.machine import process_state
    from hf_tagger.evaluation.progress import progress_bar
    from hf_tagger.evaluation.tables import text_table

    state = process_state()
    with state.main_process_first():
        settings = made_up(settings, Path(options.output_dir or ".", "catalog"), write=state.is_main_process)
    work = Work(options.model, settings, options.split, options.batch_size, options.num_workers)
    catalog = work.open_catalog()
    with open_workers(options, work, state) as worker:
        names, fingerprint = [entry["name"] for entry in worker.attributes], worker.fingerprint
        manifest = {"model": fingerprint, "catalogue": repr(settings.source), "split": options.split,
                    "shard_rows": options.shard_rows}
        if back:
            file, notes = prepare(settings, source, options.split, worker.attributes, rules, options.attributes,
                                  options.feedback)
            manifest["file"] = [Path(source[0]).stat().st_size, Path(source[0]).stat().st_mtime_ns]
        if options.preview is not None:
            from hf_tagger.evaluation.preview import preview

            done = preview(file, catalog.records(options.split), worker.products, options.products,
                           options.preview, Path(source[0]).name)
            print(text_table(done.table()), *done.lines("would change"), *notes, sep="\n")
            return
        with state.main_process_first():
            folder = storage.open_folder(options.output_dir or f"{options.output}.shards")
            pieces = open_shards(folder, catalog, options.split, options.shard_rows, manifest, options.resume,
                                 state.is_main_process, anew=not options.output_dir)
        start, tagged, progress = time.perf_counter(), 0, Progress(folder, pieces)
        with progress_bar(total=sum(piece.rows for piece in pieces), unit="row", disable=not state.is_main_process,
                          initial=progress.look() if state.is_main_process else 0) as bar:
            for count in worker.tag(folder, pieces):
                tagged += count
                if state.is_main_process:
                    bar.update(progress.look())
                    bar.set_postfix_str(str(progress), refresh=False)
    seconds = time.perf_counter() - start
    if back:  # the folder is about to go
        state.wait_for_everyone()
    if not state.is_main_process:
        return
    shards.tidy(folder)
    if back:
        about = {"model": fingerprint, "opened_as": options.model, "export": Path(source[0]).name}
        done = write(options.output, file, folder, about)
        if not options.output_dir:
            shutil.rmtree(folder)
        print(text_table(done.table()), *done.lines(), *notes, sep="\n")
        return
    summary = {"seconds": round(seconds, 1), "rows_per_second_of_this_process": round(tagged / seconds, 1),
               **progress.summary(names)}
    storage.write(folder / "summary.json", json.dumps(summary, indent=1))
    if options.format != "parquet":
        write_plain(folder, options.format, names)
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
    parser.add_argument("--engine", choices=["processes", "ray"], default="processes",
                        help="who tags: this process and those started beside it, or actors of Ray")
    parser.add_argument("--address", help="of a Ray cluster: auto, HOST:6379; default: RAY_ADDRESS, else this machine")
    parser.add_argument("--actors", type=int, help="how many; default: as many as there is room for")
    parser.add_argument("--num_cpus", type=float, default=1, help="of each actor")
    parser.add_argument("--num_gpus", type=float, default=0, help="of each actor")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--num_workers", type=int, default=1, help="threads that decode photos")
    options, overrides = parser.parse_known_args(arguments)
    if undo:
        return options, overrides
    if options.output is None and options.output_dir is None and options.preview is None:
        parser.error("say where the tags go: --output FILE, --output_dir FOLDER or --preview PAGE")
    if options.engine == "ray":
        if importlib.util.find_spec("ray") is None:
            parser.error("--engine ray: Ray is not installed: pip install 'hf_tagger[ray]'")
        if options.preview is not None or int(os.environ.get("WORLD_SIZE", "1")) > 1:
            parser.error("--engine ray starts its own workers: without accelerate launch, and not for --preview")
        if options.num_cpus <= 0 or options.num_gpus < 0 or (options.actors or 1) < 1:
            parser.error("--actors and --num_cpus are above 0, --num_gpus is not below")
    return options, overrides


def open_workers(options: argparse.Namespace, work, state) -> AbstractContextManager:
    """This process, or the actors of --engine ray."""
    if options.engine == "ray":
        from hf_tagger.deployment.ray_engine import Actors

        return Actors(work, options.actors, options.num_cpus, options.num_gpus, options.address)
    from hf_tagger.deployment.worker import Worker

    return nullcontext(Worker(work, state.device))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
