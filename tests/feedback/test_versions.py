import json
import os

import pytest

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.versions import Versions


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text('{"tag": "old"}')
    return folder


def made(versions, name):
    pending = versions.pending()
    pending.mkdir()
    (pending / "config.json").write_text(json.dumps({"tag": name}))
    return pending


def test_versions_are_numbered_kept_and_rolled_back(tmp_path, model):
    versions = Versions(tmp_path / "model.versions")
    assert versions.current is None and versions.list() == []
    versions.start(model)
    versions.start(model)
    assert versions.current == 1 and not (versions.path(1) / "checkpoints").exists()
    scores = {"before": {"macro_f1": 0.5}, "after": {"macro_f1": 0.6}}
    versions.add(made(versions, "new"), "heads", verdicts=7, scores=scores, added_tags={"colour": ["Teal"]})
    current = versions.folder / "current"
    assert versions.current == 2 and json.loads((current / "config.json").read_text()) == {"tag": "new"}
    versions.use(1)
    assert json.loads((current / "config.json").read_text()) == {"tag": "old"}
    versions.add(made(versions, "other"), "calibrate")
    found = versions.list()
    assert [(lineage.version, lineage.parent, lineage.made_by) for lineage in found] == [
        (1, None, "copy of model"), (2, 1, "heads"), (3, 1, "calibrate")]
    assert (found[1].verdicts, found[1].scores, found[1].added_tags) == (7, scores, {"colour": ["Teal"]})
    assert (model / "config.json").read_text() == '{"tag": "old"}' and not (model / "lineage.json").exists()


def test_the_link_points_somewhere_even_if_the_folder_is_moved(tmp_path, model):
    Versions(tmp_path / "model.versions").start(model)
    os.rename(tmp_path / "model.versions", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "current" / "config.json").is_file()


def test_what_is_not_there_is_an_error(tmp_path, model):
    versions = Versions(tmp_path / "model.versions")
    with pytest.raises(ConfigError, match="no model folder"):
        versions.start(tmp_path)
    versions.start(model)
    with pytest.raises(ConfigError, match="no version 7 .* there are: 1"):
        versions.use(7)
    assert versions.current == 1
