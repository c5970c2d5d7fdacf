"""Exports that are killed, or run out of disk: what carries its final name is whole."""

import json
import shutil
from multiprocessing import get_context

import pytest
import torch
import yaml

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import export
from tests.catalog.files import write_parquet
from tests.deployment.test_export import Traced, bert_tagger
from tests.shops import SCHEMA, shop_rows
from tests.storm.victims import KILLED, Victim, files_of


def export_again(traced, *arguments):
    """The recipe, without what takes long: the model is not traced again."""
    torch.onnx.export = lambda *_, **__: Traced(traced)
    return export.main([*map(str, arguments)])


def victim(*arguments, **moment):
    return Victim(export_again, *arguments, context=get_context("fork"), **moment)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, exported):
    """(arguments, folder, how often a file was changed) of an export that nothing befell."""
    folder = tmp_path_factory.mktemp("export")
    model, processor = bert_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "model")
    files = {split: str(write_parquet(folder / f"{split}.parquet", shop_rows(*rows)))
             for split, rows in (("train", (0, 16)), ("validation", (16, 32)), ("test", (32, 48)))}
    config = {"catalog": {"source": {"files": files}, "schema": SCHEMA},
              "training": {"loader": {"batch_size": 8, "num_workers": 0}}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    arguments = [exported, folder / "model", folder / "shop.yaml", "--int8", "--products", "0", "--output_dir"]
    run = victim(*arguments, folder / "whole", folder=folder / "whole")
    assert run.end() == 0, run.errors
    return arguments, folder / "whole", run.changes


def check(folder, reference):
    """`onnx`, where it is there, is whole, and nothing else has a name that somebody would open."""
    for path in folder.iterdir() if folder.exists() else ():
        assert path.name == "onnx" or path.name.startswith(".export-"), path
    if (folder / "onnx").exists():
        assert files_of(folder / "onnx", "parity.json") == files_of(reference / "onnx", "parity.json")
        assert json.loads((folder / "onnx" / "parity.json").read_text())["products"] == len(shop_rows(16, 32))


def then_exported(arguments, folder, reference):
    run = victim(*arguments, folder, folder=folder)
    assert run.end() == 0, run.errors
    check(folder, reference)
    assert (folder / "onnx").exists()


def test_killed_at_any_moment_it_leaves_a_whole_folder_or_none(whole, storm, tmp_path):
    arguments, reference, changes = whole
    for number in range(storm.rounds(3, 30)):
        folder = tmp_path / str(number)
        if number % 2:  # over an earlier export
            shutil.copytree(reference, folder)
        with storm.trial("exports, killed and called again"):
            run = victim(*arguments, folder, folder=folder, **storm.moment(changes))
            assert run.end() in (0, *KILLED), run.errors
            check(folder, reference)
            then_exported(arguments, folder, reference)


def test_on_a_full_disk_it_ends_in_one_line_and_leaves_what_was_there(whole, storm, tmp_path):
    arguments, reference, changes = whole
    largest = max(len(content) for content in files_of(reference).values())
    for number in range(storm.rounds(2, 16)):
        folder, full = shutil.copytree(reference, tmp_path / str(number)), storm.full_disk(changes, largest)
        with storm.trial("exports, disk full"):
            run = victim(*arguments, folder, folder=folder, **full)
            assert run.end() in (0, 2) and "Traceback" not in run.errors, f"{full}: {run.errors}"
            assert "no ONNX graph" not in run.errors, run.errors
            check(folder, reference)
            assert (folder / "onnx").exists()
            then_exported(arguments, folder, reference)
