"""A run's start and its catalogue; whole runs, as real processes: tests/recipes/test_finetune.py."""

import json

import pytest
import torch

from hf_tagger.catalog.quarantine import TooManyBadRows
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.checkpoint import save_checkpoint
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from tests.catalog.files import photo, products, write_jsonl
from tests.catalog.test_sql import fill

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHIRTS = {"id": "id", "text": "title", "attributes": {"colour": {}}}


def a_run(folder, resume=False, catalog=None, **settings):
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    catalog = catalog or {"source": {"files": files}, "schema": SHIRTS}
    data = {"catalog": catalog, "output_dir": str(folder / "out")} | settings
    return start_run(build(RunSettings, data), data, resume)


@pytest.fixture
def shop(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        write_jsonl(tmp_path / f"{split}.jsonl", products(200 * number, 200 * number + 180))
    return tmp_path


@pytest.mark.parametrize(("wanted", "on"), [("bf16", True), ("no", False)])
def test_mixed_precision_is_what_was_asked_for(shop, wanted, on):
    run = a_run(shop, training={"mixed_precision": wanted})
    with run.accelerator.autocast():
        assert torch.is_autocast_enabled(run.accelerator.device.type) is on
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (torch.bfloat16 if on else torch.float32)
    assert run.accelerator.mixed_precision == wanted


def test_a_run_says_what_it_computes_with_and_keeps_its_settings_in_its_log(shop, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    threads = torch.get_num_threads()
    a_run(shop, training={"threads": threads + 1, "mixed_precision": "no"})
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    (line,) = capsys.readouterr().out.splitlines()
    log = (shop / "out" / "run.log").read_text()
    assert line.startswith(f"1 process on the CPU with {threads + 1} threads") and "in float32" in line and line in log
    kept = json.loads(log.splitlines()[0].split(" ", 2)[2])
    assert kept["settings"]["training"]["threads"] == threads + 1 and kept["versions"]["torch"]


def test_the_catalogue_is_counted_once_and_refused_rows_are_written_down(shop, capsys):
    rows = products(0, 180)
    rows[5]["title"] = None
    write_jsonl(shop / "train.jsonl", rows)
    data = read_catalog(a_run(shop))
    assert data.vocabulary.rows["total"] == 180 and data.vocabulary.rows["refused"] == 1 and data.rows == 179
    assert "180 rows: 0 with text and photo, 179 text only" in capsys.readouterr().out
    assert len((shop / "out" / "quarantine.jsonl").read_text().splitlines()) == 1

    (shop / "train.jsonl").unlink()
    write_jsonl(shop / "train.jsonl", products(0, 90))
    again = read_catalog(a_run(shop, resume=True))
    assert again.vocabulary.rows["total"] == 180, "a resumed run must keep the tags it has learned"


def test_a_databases_password_is_in_no_file_and_may_change(postgres_url, tmp_path, capsys):
    fill(postgres_url, products(0, 200))
    secret = postgres_url.replace("ana@", "ana:s3cret@")
    catalog = {"source": {"path": secret, "table": "products", "fractions": {"validation": 0.2, "test": 0.2}},
               "schema": SHIRTS}
    run = a_run(tmp_path, catalog=catalog)
    rows = read_catalog(run).rows
    assert 80 < rows < 160 and run.settings.catalog.source.path == secret
    save_checkpoint(run.checkpoints, 1, {"x": torch.zeros(1)}, {})
    catalog["source"]["path"] = secret.replace("s3cret", "s3cret2")
    assert read_catalog(a_run(tmp_path, resume=True, catalog=catalog)).rows == rows
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.log", "settings.json"} <= {path.name for path in files}
    assert "s3cret" not in capsys.readouterr().out + "".join(path.read_text(errors="replace") for path in files)


@pytest.mark.parametrize(("change", "message"), [
    ({"model": {"hidden_size": 128}}, r"model.hidden_size was \d+ and is 128"),
    ({"phases": [{"epochs": 3, "learning_rate": 0.5}]}, r"phases.0.learning_rate was .* and is 0.5"),
    ({"training": {"threads": 2, "checkpoint_steps": 7}, "phases": [{"epochs": 99}]}, None),
    ("fewer rows", "180 rows are now 90"), ("other tags", "colour: new Crimson; colour: gone Red"),
    ("another text", "ids, texts, photos or tags of some rows differ"), ({}, None),
])  # fmt: skip
def test_a_resumed_run_names_what_has_changed_before_anything_else(shop, change, message):
    settings = {"phases": [{"epochs": 3}]}
    run = a_run(shop, **settings)
    vocabulary = read_catalog(run).vocabulary
    save_checkpoint(run.checkpoints, 1, {"x": torch.zeros(1)}, {})
    rows = products(0, 90 if change == "fewer rows" else 180)
    if change == "other tags":
        rows = [row | {"colour": row["colour"].replace("Red", "Crimson")} for row in rows]
    rows[7] |= {"title": "Another shirt"} if change == "another text" else {}
    write_jsonl(shop / "train.jsonl", rows)
    again = a_run(shop, resume=True, **settings | (change if isinstance(change, dict) else {}))
    if message is None:
        assert read_catalog(again).vocabulary == vocabulary
    else:
        with pytest.raises(ConfigError, match=f"^--resume: .*{message}.* without --resume"):
            read_catalog(again)


def test_repeated_ids_are_said_at_the_start(shop, capsys):
    write_jsonl(shop / "train.jsonl", [*products(0, 100), *products(90, 110)])
    read_catalog(a_run(shop))
    assert "; 10 rows repeat the id of an earlier one" in capsys.readouterr().out


def test_a_resumed_run_judges_bad_rows_by_all_rows_and_not_by_those_read_since(shop):
    rows = products(0, 180)
    for row in rows[:8]:
        row["title"] = None
    write_jsonl(shop / "train.jsonl", rows)
    read_catalog(a_run(shop))
    again = read_catalog(a_run(shop, resume=True))
    assert (again.quarantine.rows_lost, again.quarantine.seen["rows"]) == (8, 180)
    again.quarantine.check()


@pytest.mark.parametrize("good", [0, 95])
def test_photos_that_are_not_there_are_counted_said_and_limited(shop, capsys, good):
    (shop / "photo.png").write_bytes(photo())
    rows = [row | {"photo": "photo.png" if number < good else f"lost/{number}.png"}
            for number, row in enumerate(products(0, 100))]
    rows += [{"id": "x", "title": None, "photo": "lost/x.png", "colour": "Red"}, *products(101, 110)]
    write_jsonl(shop / "train.jsonl", rows)
    files = {split: str(shop / f"{split}.jsonl") for split in ("train", "validation", "test")}
    for split in ("validation", "test"):
        write_jsonl(shop / f"{split}.jsonl", [row | {"photo": None} for row in products(200, 220)])
    settings = {"source": {"files": files}, "schema": SHIRTS | {"images": "photo"}, "max_bad_fraction": 0.06}
    run = a_run(shop, catalog=settings)
    if not good:
        with pytest.raises(TooManyBadRows, match="100 of 100 products with photos lost them all"):
            read_catalog(run)
        return
    data = read_catalog(run)
    assert "110 rows: 95 with text and photo, 14 text only, 0 photo only, 1 refused" in capsys.readouterr().out
    assert data.quarantine.totals() == "110 rows: 109 used, 1 set aside, 6 lost their photos"
    resumed = read_catalog(a_run(shop, resume=True, catalog=settings))
    assert resumed.quarantine.totals() == data.quarantine.totals()


def test_too_many_bad_rows_stop_the_run(shop):
    rows = products(0, 180)
    for row in rows[:20]:
        row["title"] = None
    write_jsonl(shop / "train.jsonl", rows)
    with pytest.raises(TooManyBadRows, match="no_content"):
        read_catalog(a_run(shop))


def test_a_synthetic_catalogue_replaces_that_of_an_earlier_run(tmp_path):
    totals = []
    for rows in (60, 40, 60):
        data = read_catalog(a_run(tmp_path, catalog={"synthetic": {"rows": rows, "picture_size": 0}}))
        totals.append(data.vocabulary.rows["total"])
    assert totals[1] < totals[0] == totals[2]
    (tmp_path / "out" / "checkpoints" / "vocabulary.json").unlink()
    (tmp_path / "out" / "catalog" / "train-00000-of-00001.parquet").write_bytes(b"half wri")
    resumed = read_catalog(a_run(tmp_path, resume=True, catalog={"synthetic": {"rows": 60, "picture_size": 0}}))
    assert resumed.vocabulary.rows["total"] == totals[0], "what a killed run had not written in full is written anew"


def test_repeat_factors_follow_the_frequencies(shop):
    rows = products(0, 100)
    for number, row in enumerate(rows):
        row["colour"] = "Rare" if number < 4 else "Common"
    write_jsonl(shop / "train.jsonl", rows)
    data = read_catalog(a_run(shop, training={"repeat_threshold": 0.16}))
    assert data.repeat_factors() == {"colour": {"Rare": pytest.approx(2.0)}}
    data.run.settings.training.repeat_threshold = 0.0
    assert data.repeat_factors() == {}


@pytest.mark.parametrize(("settings", "message"), [
    ({"evaluation": {"protocols": {"masked": {"text": ["titel"]}}}},
     r'evaluation.protocols.masked: .*no column "titel".* Did you mean "title"'),
    ({"training": {"metric": "colour/macro-f1"}},
     "training.metric: 'colour/macro-f1' is not measured. Did you mean \"colour/macro_f1\""),
])  # fmt: skip
def test_what_evaluation_lacks_is_found_before_the_training(shop, settings, message):
    with pytest.raises(ConfigError, match=message):
        read_catalog(a_run(shop, **settings))
