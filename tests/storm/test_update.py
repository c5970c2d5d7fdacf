"""Updates of a model that are killed, or run out of disk: what was in use stays in use, whole."""

import json
import os
import shutil

import pytest

from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict, fingerprint
from tests.shops import write_config
from tests.storm.victims import KILLED, Victim, files_of

SHOP = {"rows": 150, "picture_size": 0, "languages": ["en"], "label_noise": 0.0, "unknown": 0.0}
MODEL = {"text_backbone": "scratch:gru", "vision_backbone": None, "lexical": {"buckets": 0, "name_match": False}}
TOLD = ("lineage.json", "provenance.json", "training_config.yaml", "run.log", "README.md")  # say when and where


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder with model, configuration and feedback, arguments, {file: content} of both versions, how often a file was
    changed) of an update that nothing befell."""
    folder = tmp_path_factory.mktemp("update")
    config = write_config(folder / "config.yaml", {"synthetic": SHOP}, model=MODEL,
                          phases=[{"train": ["heads"], "cached_views": 1, "epochs": 1, "batch_size": 32}])
    run = Victim("finetune", config, "--output_dir", folder / "start" / "model", folder=folder / "train")
    assert run.end() == 0, run.errors
    catalog = open_catalog(CatalogSettings(synthetic=SHOP), folder / "catalog")
    with FeedbackStore(folder / "feedback.db") as store:
        for record in catalog.records("train"):
            for tag in record["tags"]["category"] or ():
                store.add(Verdict(record["id"], fingerprint(record), "category", tag, "add", "ana", "1"))
    arguments = [config, folder / "feedback.db", "--tolerance", "1"]
    shutil.copytree(folder / "start", folder / "whole")
    run = Victim("update", folder / "whole" / "model", *arguments, folder=folder / "whole")
    assert run.end() == 0, run.errors
    versions = folder / "whole" / "model.versions"
    return folder / "start", arguments, {n: files_of(versions / n, *TOLD) for n in ("1", "2")}, run.changes


def check(versions, known) -> str | None:
    """The version in use. Every folder that carries a version's number is whole; none but the first two differ."""
    if not versions.exists():
        return None
    for folder in versions.iterdir():
        if folder.name.isdecimal() and not folder.is_symlink():
            assert json.loads((folder / "lineage.json").read_text())["version"] == int(folder.name)
            assert files_of(folder, *TOLD) == known[min(folder.name, "2")], folder
    current = versions / "current"
    if not current.is_symlink():
        return None
    assert (current / "model.safetensors").exists()
    return os.readlink(current)


def then_updated(start, arguments, folder, known):
    """A further call ends with the version that the undisturbed one made."""
    current = check(folder / "model.versions", known)
    if current in (None, "1"):
        run = Victim("update", folder / "model", *arguments, folder=folder)
        assert run.end() == 0, run.errors
        current = check(folder / "model.versions", known)
    assert current in ("2", "3")
    assert files_of(folder / "model") == files_of(start / "model")


def test_killed_at_any_moment_what_is_in_use_stays_whole(whole, storm, tmp_path):
    start, arguments, known, changes = whole
    for number in range(storm.rounds(2, 20)):
        folder = shutil.copytree(start, tmp_path / str(number))
        with storm.trial("updates, killed and called again"):
            run = Victim("update", folder / "model", *arguments, folder=folder, **storm.moment(changes))
            assert run.end() in (0, *KILLED), run.errors
            then_updated(start, arguments, folder, known)


def test_on_a_full_disk_it_ends_in_one_line_and_what_is_in_use_stays_whole(whole, storm, tmp_path):
    start, arguments, known, changes = whole
    largest = max(len(content) for content in known["2"].values())
    for number in range(storm.rounds(1, 8)):
        folder, full = shutil.copytree(start, tmp_path / str(number)), storm.full_disk(changes, largest)
        with storm.trial("updates, disk full"):
            run = Victim("update", folder / "model", *arguments, folder=folder, **full)
            assert run.end() in (0, 2) and "Traceback" not in run.errors, f"{full}: {run.errors}"
            then_updated(start, arguments, folder, known)
