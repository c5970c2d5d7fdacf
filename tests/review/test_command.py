import subprocess
import sys
from pathlib import Path

import pytest

from hf_tagger import cli
from hf_tagger.feedback.versions import Versions
from hf_tagger.review import command
from tests.review.conftest import write_shop


@pytest.fixture(scope="module")
def shop(tagger, tmp_path_factory):
    folder = write_shop(tmp_path_factory.mktemp("shop"))
    tagger.save_pretrained(folder / "model")
    return folder


def test_the_command_lists_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf_tagger", "--help"])
    assert cli.main() == 0
    assert "review " in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["nowhere"], "there is no model folder nowhere"),
    (["MODEL", "--split", "teest"], "there is no split 'teest'"),
    (["MODEL", "--predictions", "nowhere.parquet"], "neither predictions.parquet"),
    (["MODEL", "--feedback", "mysql://host/feedback"], "not in mysql"),
    (["MODEL", "--schema.txt", "title"], "txt"),
])  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(shop, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    model, *rest = [str(shop / "model") if given == "MODEL" else given for given in arguments]
    assert command.main([model, str(shop / "shop.yaml"), *rest]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("hf_tagger review:") and message in error


def test_verdicts_name_the_version_of_the_model(shop, tagger, tmp_path):
    name = command.model_version(str(shop / "model"), tagger)
    assert name.startswith("model@") and len(name) == len("model@") + 12
    versions = Versions(tmp_path / "shop.versions")
    versions.start(shop / "model")
    assert command.model_version(str(versions.folder / "current"), tagger) == "shop.versions/1"


def test_a_space_opens_the_page_of_its_model(shop, tmp_path):
    model, catalogue = str(shop / "model"), str(shop / "shop.yaml")
    assert command.main([model, catalogue, "--space", str(tmp_path / "space")]) == 0
    app = (tmp_path / "space" / "app.py").read_text()
    probe = app.replace("launch(app, host=None)", "print('built', type(app).__name__, os.path.exists('feedback.db'))")
    assert probe != app
    found = subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, text=True, capture_output=True, check=True,
                           env={"PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1", "PATH": ""})
    assert found.stdout.strip().endswith("built Blocks True")
    assert "hf_tagger[review,postgresql]==" in (tmp_path / "space" / "requirements.txt").read_text()
    assert command.main([model, catalogue, "--space", str(tmp_path / "space")]) == 2
