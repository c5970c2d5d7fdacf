"""What training costs on catalogues of very different sizes, within one budget.

    python recipes/lab/benchmark_rows.py --rows 10000 1000000 --budget 20

Makes catalogues up (texts in six languages, photos of 24 x 24, the quickstart's attributes and `line`, one of 500 tags
as frequent as 1 / rank; from 50,000 products on, these again and again with other ids and lines) and trains each by
`hf_tagger finetune`: the default's encoders, heads on stored features, then one pass in which LoRA moves both towers;
`--budget` minutes limit all of it. Every run is a process of its own, measured from outside: minutes, minutes of CPU,
the highest memory of its largest process, and the most that it had on disk. Prints a table, and what each run said of
its budget. `--key.sub value` overrides keys of both runs.
"""

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from hf_tagger import cli
from hf_tagger.catalog.synthetic.products import SPLITS, catalog_schema, write_catalog
from hf_tagger.evaluation.tables import text_table
from measuring import HF_TAGGER, measured

PHOTO_SIZE, LINES = 24, 500
DRAWN = 50_000  # products that are made up; of more, all are copied, under other ids and with other lines
PHASES = [{"name": "heads", "train": ["heads"], "cached_views": 1, "epochs": 10, "batch_size": 128,
           "evaluate_every": 0},
          {"name": "towers", "train": ["heads", "text", "vision"], "epochs": 1, "batch_size": 32,
           "learning_rate": 3e-4, "tower_learning_rate": 3e-4, "evaluate_every": 0}]  # fmt: skip


@cli.recipe
def main(arguments: list[str]) -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="products of all splits")
    parser.add_argument("--budget", type=float, default=20, help="minutes")
    parser.add_argument("--output_dir", default="runs/rows")
    options, overrides = parser.parse_known_args(arguments)
    costs, said = {}, []
    for rows in options.rows:
        folder = Path(options.output_dir, str(rows))
        if not (folder / "my.yaml").exists():
            cli.say(f"making up {rows:,} products")
            make(folder, rows, options.budget)
        with MostOnDisk(folder / "model") as disk:
            spent = measured([*HF_TAGGER, "finetune", str(folder / "my.yaml"), *overrides])
        costs[f"{rows:,} products"] = {"minutes": spent["seconds"] / 60, "of CPU": spent["cpu_seconds"] / 60,
                                       "memory, MiB": spent["peak_mb"], "disk, MiB": disk.megabytes}
        log = (folder / "model" / "run.log").read_text(encoding="utf-8")
        said += [f"{rows:,}: {line.split(' ', 2)[-1]}" for line in log.splitlines() if "budget of" in line]
    print(text_table(costs))
    print("\n".join(said))


def make(folder: Path, rows: int, budget: float) -> None:
    """Writes the catalogue and `my.yaml`, which trains on it."""
    copies = max(1, round(rows / DRAWN))
    write_catalog(folder / "drawn", rows_per_shard=5000, rows=rows // copies, picture_size=PHOTO_SIZE)
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, LINES + 1)
    for path in sorted((folder / "drawn").glob("*.parquet")):
        table = pq.read_table(path)
        for copy in range(copies):
            drawn = random.choice(LINES, len(table), p=share / share.sum())
            lines = pa.array([f"line {number:03d}" for number in drawn])
            changed = {name: pc.binary_join_element_wise(table[name], str(copy), "-") for name in ("id", "product")}
            changed["title"] = pc.binary_join_element_wise(table["title"], lines, ", ")  # null stays null
            written = table.append_column("line", lines)
            for name, column in changed.items():
                written = written.set_column(written.schema.get_field_index(name), name, column)
            pq.write_table(written, folder / f"{path.stem}-{copy:03d}.parquet", row_group_size=500, compression="zstd")
    shutil.rmtree(folder / "drawn")
    schema = catalog_schema()
    del schema["free_form"]
    schema["attributes"]["line"] = {"kind": "single"}
    files = {split: f"{folder}/{split}-*.parquet" for split in SPLITS}
    settings = {"output_dir": str(folder / "model"), "catalog": {"source": {"files": files}, "schema": schema},
                "budget": budget, "lora": {"rank": 8}, "phases": PHASES}
    (folder / "my.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


class MostOnDisk:
    """MiB of a folder's files, looked at every so many `seconds`; `megabytes` has the most."""

    def __init__(self, folder: Path, seconds: float = 1.0):
        self.folder, self.seconds, self.megabytes, self._ended = folder, seconds, 0, threading.Event()

    def __enter__(self) -> "MostOnDisk":
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._ended.wait(self.seconds):
            held = 0
            for path in self.folder.rglob("*"):
                try:
                    held += path.stat().st_size if path.is_file() else 0
                except FileNotFoundError:  # removed meanwhile
                    continue
            self.megabytes = max(self.megabytes, round(held / 2**20))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
