"""The recipe on a made-up catalogue with planted errors, and its corrections taken up by a training run."""

import json
import re

import pyarrow.parquet as pq
import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.catalog.synthetic.products import true_tags
from hf_tagger.training.arguments import load_run
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from recipes import find_label_issues, finetune
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

NOISY = {"rows": 300, "picture_size": 32, "languages": ["en"], "label_noise": 0.15, "missing_modality": 0.2,
         "unsaid": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    AcceleratorState._reset_state(True)
    folder = tmp_path_factory.mktemp("labels")
    config = write_config(folder / "shop.yaml", {"synthetic": NOISY}, output_dir=str(folder / "out"),
                          phases=[{"train": ["heads"], "cached_views": 1, "epochs": 4, "batch_size": 32}])  # fmt: skip
    arguments = [str(config), "--folds", "3", "--most", "20", "--min_positives", "4",
                 "--training.loader.num_workers", "0"]  # fmt: skip
    assert find_label_issues.main(arguments) == 0
    return config, folder / "out"


def test_suspects_are_mostly_planted_errors_even_with_untrained_towers(found):
    _, folder = found
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("category", "colour"):
        # One label in seven is wrong: guessing would be right that often.
        assert summary["planted"][name]["precision_at_recall"]["0.25"] > 0.6
    planted = {name: each["planted"] for name, each in summary["planted"].items()}
    assert planted.pop("all") == sum(planted.values())
    assert all(0 < each["judged"] <= 240 for each in summary["attributes"].values())


def test_precision_of_the_shortest_list_that_reaches_a_recall():
    precisions = find_label_issues.precision_at_recall([True, False, True, True, False], planted=4)
    assert precisions == {0.25: 1.0, 0.5: pytest.approx(2 / 3), 0.75: 0.75, 0.9: None}


def test_the_parquet_file_holds_every_suspect_in_order(found):
    _, folder = found
    rows = pq.read_table(folder / "suspects.parquet").to_pylist()
    assert len(rows) == json.loads((folder / "summary.json").read_text())["suspects"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert all(row["given"] != row["suggested"] for row in rows)


def test_the_page_needs_nothing_but_itself(found):
    _, folder = found
    page = (folder / "review.html").read_text()
    assert page.count("<article") == 20
    assert not re.search(r"""(src|href)=["'](?!data:)""", page) and "http:" not in page and "https:" not in page
    assert page.count("data:image/jpeg;base64,") >= 10


def test_corrections_are_taken_up_by_a_training_run(found, tmp_path, capsys):
    config, folder = found
    truth = true_tags(**NOISY)
    rows = pq.read_table(folder / "suspects.parquet").to_pylist()[:10]
    corrected = tmp_path / "corrected.jsonl"
    corrections = [{name: row[name] for name in ("id", "attribute")} | {"tags": truth[row["id"]][row["attribute"]]}
                   for row in rows]  # fmt: skip
    corrected.write_text("".join(json.dumps(correction) + "\n" for correction in corrections))
    settings, data = load_run(config, ["--output_dir", str(tmp_path / "out"), "--catalog.labels", str(corrected)])
    catalogue = read_catalog(start_run(settings, data))
    assert f"labels: 10 corrections of {len({row['id'] for row in rows})} products" in capsys.readouterr().out
    given = {record["id"]: record["tags"] for record in catalogue.records("train")}
    for row in rows:
        assert given[row["id"]][row["attribute"]] == truth[row["id"]][row["attribute"]]


def test_a_misspelt_correction_stops_the_training_before_it_starts(found, tmp_path, capsys):
    config, folder = found
    row = pq.read_table(folder / "suspects.parquet").to_pylist()[0]
    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text(json.dumps({"id": row["id"], "attribute": "colour", "tags": ["Balck"]}) + "\n")
    arguments = [str(config), "--output_dir", str(tmp_path / "out"), "--labels", str(corrected)]
    assert finetune.main(arguments) == 2
    assert "'Balck', which no product of the training split has. Did you mean \"Black\"?" in capsys.readouterr().err


def test_folds_that_cannot_be_cut_are_an_error(found, tmp_path, capsys):
    config, _ = found
    data = yaml.safe_load(config.read_text())
    data["catalog"]["synthetic"]["rows"] = 20
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(data | {"output_dir": str(tmp_path / "out")}))
    assert find_label_issues.main([str(small), "--folds", "99", "--training.loader.num_workers", "0"]) == 2
    assert "99 folds of" in capsys.readouterr().err
