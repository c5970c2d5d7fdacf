import re
import runpy
import sys
import time

import pytest

from hf_tagger import cli
from hf_tagger.feedback.versions import Versions
from hf_tagger.review import app, page
from recipes import review
from recipes.example import write_example
from tests.review.shop import write_shop


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
    (["MODEL", "--catalog.schema.txt", "title"], 'Unknown key "catalog.schema.txt". Did you mean "text"'),
])  # fmt: skip
def test_what_does_not_fit_is_told_in_one_line(shop, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    model, *rest = [str(shop / "model") if given == "MODEL" else given for given in arguments]
    assert review.main([model, str(shop / "shop.yaml"), *rest]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("review:") and message in error


@pytest.mark.parametrize(("people", "arguments", "message"), [
    (None, ["--host", "0.0.0.0"], "give --auth FILE, or say --open_to_all"),
    (None, ["--host", "192.0.2.1"], "give --auth FILE, or say --open_to_all"),
    ("", [], "names nobody"),
    ("ana:long enough\nben", [], "people.txt, line 2: write NAME:PASSWORD"),
    ("ana:short", [], "people.txt, line 1: "),
    ("ana:long enough\nana:long enough", [], "people.txt, line 2: "),
])
def test_who_may_log_in_is_said_before_anything_starts(shop, tmp_path, capsys, people, arguments, message):
    if people is not None:
        (tmp_path / "people.txt").write_text(people)
        arguments = ["--host", "0.0.0.0", "--auth", str(tmp_path / "people.txt")]
    assert review.main([str(shop / "model"), str(shop / "shop.yaml"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_stores_password_is_not_printed(shop, monkeypatch, capsys):
    launched = []
    monkeypatch.setattr(app, "build_app", lambda *_, **__: None)
    monkeypatch.setattr(page, "launch", lambda *given: launched.append(given))
    url = "postgresql://ana:s3cret@127.0.0.1/feedback"
    assert review.main([str(shop / "model"), str(shop / "shop.yaml"), "--feedback", url]) == 0
    printed = capsys.readouterr()
    assert "127.0.0.1/feedback" in printed.out and "s3cret" not in printed.out + printed.err
    assert launched == [(None, "127.0.0.1", None, None, None, "")]


def test_products_that_nobody_has_tagged_are_reviewed_and_counted(shop, tmp_path, monkeypatch, capsys):
    path = tmp_path / "products.csv"
    path.write_text("sku,title,language,photo\nP1,red mug,en,\nP2,,,\nP3,blue dress,en,\n")
    page = app.build_app(str(shop / "model"), str(shop / "shop.yaml"), str(tmp_path / "feedback.db"),
                             overrides=["--catalog.source.path", str(path)], split="train")
    assert page is not None
    until, printed = time.monotonic() + 60, ""
    while "set aside" not in printed:
        assert time.monotonic() < until, printed
        time.sleep(0.2)  # what is printed while the output is taken may be lost
        printed += capsys.readouterr().out
    assert "train: 3 rows: 2 used, 1 set aside" in printed


@pytest.mark.parametrize("system", ["shopify", "woocommerce", "google"])
def test_exports_of_shop_systems_are_reviewed_as_they_are(shop, tmp_path, capsys, system):
    for export in write_example(system, tmp_path / system, 20):
        app.build_app(str(shop / "model"), str(export), str(tmp_path / f"{export.name}.db"))
        until, printed = time.monotonic() + 60, ""
        while "set aside" not in printed:
            assert time.monotonic() < until, printed
            time.sleep(0.2)
            printed += capsys.readouterr().out
        assert re.search(r"test: (\d+) rows: \1 used, 0 set aside", printed), printed


def test_verdicts_name_the_version_of_the_model(shop, tagger, tmp_path):
    name = app.model_version(str(shop / "model"), tagger)
    assert name.startswith("model@") and len(name) == len("model@") + 12
    versions = Versions(tmp_path / "shop.versions")
    versions.start(shop / "model")
    assert app.model_version(str(versions.folder / "current"), tagger) == "shop.versions/1"


def test_a_space_opens_the_page_of_its_model(shop, tmp_path, monkeypatch):
    arguments = [str(shop / "model"), str(shop / "shop.yaml"), "--space", str(tmp_path / "space")]
    assert review.main(arguments) == 0
    assert review.main(arguments) == 2  # nothing is written over
    secret = ["postgresql://ana:s3cret@host/db", "--space", str(tmp_path / "other")]
    assert review.main([arguments[0], *secret]) == 2 and not (tmp_path / "other").exists()
    launched = []
    monkeypatch.setattr(page, "launch", lambda app, **options: launched.append((app, options)))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(tmp_path / "space" / "app.py"))
    ((launched_app, options),) = launched
    assert launched_app.title == page.TITLE and options == {"host": None}
    assert (tmp_path / "feedback.db").is_file()
    assert "hf_tagger[review,postgresql]==" in (tmp_path / "space" / "requirements.txt").read_text()


def test_a_space_reads_its_catalogue_by_the_config_and_the_keys_that_the_command_names(shop, tmp_path, monkeypatch):
    catalogue, config = tmp_path / "other.csv", tmp_path / "other.yaml"
    catalogue.write_text("nummer;bezeichnung\n1;red mug\n2;blue dress\n3;blue mug\n")
    config.write_text("schema: {id: nummer, text: bezeichnung, attributes: {colour: {}}}")
    arguments = [str(shop / "model"), str(catalogue), "--space", "space", "--config", str(config)]
    monkeypatch.chdir(tmp_path)
    secret = ["--catalog.labels", "https://ana:s3cret@host/labels.csv"]
    assert review.main([*arguments, *secret]) == 2 and not (tmp_path / "space").exists()
    assert review.main([*arguments, "--catalog.schema.max_chars", "100"]) == 0
    opened = []
    monkeypatch.setattr(app, "choose_split", lambda catalog, split: opened.append(catalog) or catalog.splits[0])
    monkeypatch.setattr(page, "launch", lambda app, **options: None)
    runpy.run_path("space/app.py")
    (catalog,) = opened
    assert catalog.schema.text == ["bezeichnung"] and catalog.schema.max_chars == 100
    assert f"`{catalogue}` and `{config}` here too" in (tmp_path / "space" / "README.md").read_text()


def test_a_space_has_the_options_of_the_page_and_refuses_those_that_it_has_settings_for(shop, tmp_path, monkeypatch,
                                                                                       capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [str(shop / "model"), str(shop / "shop.yaml"), "--space", "space"]
    for refused in (["--feedback", "mine.db"], ["--host", "0.0.0.0"], ["--port", "1"], ["--auth", "f"],
                    ["--open_to_all"], ["--trusted_proxy", "10.0.0.1"]):
        with pytest.raises(SystemExit):
            review.main([*arguments, *refused])
        assert f"{refused[0]}: in a Space" in capsys.readouterr().err and not (tmp_path / "space").exists()
    assert review.main([*arguments, "--predictions", "predictions.parquet", "--products", "7", "--reviewer", "ana",
                         "--split", "train"]) == 0
    built = []
    monkeypatch.setattr(app, "build_app", lambda *given, **options: built.append(options))
    monkeypatch.setattr(page, "launch", lambda app, **options: None)
    runpy.run_path("space/app.py")
    assert built == [{"split": "train", "predictions": "predictions.parquet", "most": 7, "reviewer": "ana",
                      "speech": None, "config": None, "overrides": []}]
    assert "and `predictions.parquet` here too" in (tmp_path / "space" / "README.md").read_text()
