"""Programs as real processes: what is asked or misspelt is answered before anything is imported that takes seconds."""

import json
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from hf_tagger import cli
from tests.catalog.files import write_jsonl

ROOT = Path(__file__).parents[1]
# Each costs a start of a second or more. (matplotlib: figures; sklearn, optuna, sqlalchemy: extras.)
HEAVY = ("accelerate", "datasets", "matplotlib", "optuna", "pyarrow", "sklearn", "sqlalchemy", "timm", "torch",
         "transformers")
# What programs say and import, one after the other in a process that has imported nothing: a line of JSON each.
WATCHED = """
import contextlib, io, json, os, runpy, sys, time
heavy, runs = json.load(sys.stdin)
for folder, program, arguments in runs:
    os.chdir(folder)
    before = set(sys.modules)
    sys.argv, begun, printed, said, status = [program, *arguments], time.monotonic(), io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            status = end.code
    print(json.dumps({"status": status, "printed": printed.getvalue(), "said": said.getvalue().splitlines(),
                      "imported": sorted((set(heavy) & sys.modules.keys()) - before),
                      "seconds": time.monotonic() - begun}))
"""
GENEROUS = 20  # seconds, for a machine with much else to do; on an idle one an answer takes a third of a second
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
MISSPELT = [
    (["mine.yaml"], "there is no configuration file mine.yaml"),
    (["my.yaml", "--bad.key", "1"], 'Unknown key "bad". Known: catalog, start_from, '),
    (["my.yaml", "--training.metrik", "f1"], 'Unknown key "training.metrik". Did you mean "metric"'),
    (["my.yaml", "--catalog.source.path", "prodcts.jsonl"], "No catalogue file at prodcts.jsonl"),
    (["my.yaml", "--labels", "corected.csv"], "catalog.labels: there is no file corected.csv"),
    (["my.yaml", "--start_from", "runs/nothing/here"], "there is no model folder runs/nothing/here"),
    (["--catalog.synthetic.row", "100"], 'Unknown key "catalog.synthetic.row". Did you mean "rows"'),
]
NO_MODEL = ["evaluate", "export", "prune-vocabulary", "fit-personalization", "tag"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a catalogue and my.yaml, its configuration."""
    folder = tmp_path_factory.mktemp("shop")
    write_jsonl(folder / "products.jsonl", [{"id": "1", "title": "Red dress", "colour": "Red"}])
    schema = {"text": "title", "attributes": {"colour": {}}}
    catalog = {"source": {"path": str(folder / "products.jsonl")}, "schema": schema}
    (folder / "my.yaml").write_text(yaml.safe_dump({"catalog": catalog}), encoding="utf-8")
    return folder


def program(recipe):
    return str(ROOT / "recipes" / f"{recipe}.py")


def without_a_model(command):
    """(program, arguments) of a command whose model is not there."""
    recipe = next(group[command] for group in cli.COMMANDS.values() if command in group)
    needed = {"fit-personalization": ["clicks.parquet"]}.get(command, ["--output_dir", "out"])
    return program(recipe), ["runs/nothing/here", "my.yaml", *needed]


@pytest.fixture(scope="module")
def answer(shop):
    """(program, arguments) -> what it answered in the folder of the shop."""
    runs = [*((program(recipe), ["--help"]) for recipe in RECIPES),
            *((program("finetune"), arguments) for arguments, _ in MISSPELT), *map(without_a_model, NO_MODEL)]
    done = subprocess.run([sys.executable, "-c", WATCHED], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
                          input=json.dumps([HEAVY, [[str(shop), *run] for run in runs]]), capture_output=True)
    assert done.returncode == 0, done.stderr
    answers = list(map(json.loads, done.stdout.splitlines()))
    assert all(answer["seconds"] < GENEROUS for answer in answers)
    return lambda *run: answers[runs.index(run)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_is_the_docstring_and_imports_nothing_heavy(answer, recipe):
    found = answer(program(recipe), ["--help"])
    first_line = (ROOT / "recipes" / f"{recipe}.py").read_text(encoding="utf-8").split("\n")[0].strip('"')
    assert found["status"] == 0 and first_line in found["printed"]
    assert not found["said"] and not found["imported"]


@pytest.mark.parametrize(("arguments", "told"), MISSPELT)
def test_a_misspelt_path_or_key_is_told_in_one_line(answer, arguments, told):
    found = answer(program("finetune"), arguments)
    (line,) = found["said"]
    assert found["status"] == 2 and line.startswith(f"finetune: {told}")
    assert {"torch", "transformers", "datasets"}.isdisjoint(found["imported"])


@pytest.mark.parametrize("command", NO_MODEL)
def test_a_misspelt_model_is_told_in_one_line(answer, command):
    found = answer(*without_a_model(command))
    assert found["said"] == [f"{command}: there is no model folder runs/nothing/here"]
    assert found["status"] == 2 and "torch" not in found["imported"]


def hf_tagger(*arguments, package=ROOT, cwd=None):
    """The finished `hf_tagger` command of the package in the folder `package`."""
    environment = os.environ | {"PYTHONPATH": str(package), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", "hf_tagger.cli", *map(str, arguments)], cwd=cwd, env=environment,
                          capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder into which a wheel of this checkout is unpacked."""
    pytest.importorskip("hatchling")
    built, folder = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(built)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(built / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(folder)
    return folder


def test_the_commands_are_listed_in_groups_with_what_each_does():
    listed = hf_tagger("--help").stdout
    assert "Train:\n  finetune             Fine-tune a product tagger on a catalogue.\n" in listed
    assert "Use:\n  tag                  Tag a whole catalogue, however large: back into the shop's own " in listed
    programs = [program for group in cli.COMMANDS.values() for program in group.values()]
    assert sorted(programs) == sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
    assert hf_tagger().stdout == listed


def test_an_unknown_command_is_an_error():
    process = hf_tagger("finetun")
    assert process.returncode == 2 and process.stderr.startswith("hf_tagger: there is no command 'finetun'")


@pytest.mark.parametrize("command", ["finetune", "find-label-issues", "serve", "review", "configs", "copy"])
def test_a_command_has_help_under_its_name(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hf_tagger", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0 and capsys.readouterr().out.startswith(f"usage: hf_tagger {command} ")


def test_a_users_error_has_no_traceback_after_it(shop):
    process = hf_tagger("finetune", "my.yaml", "--bad.key", "1", cwd=shop)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith('finetune: Unknown key "bad".') and process.stderr.count("\n") == 1


def test_a_wheel_carries_recipes_configurations_and_card_template(wheel, shop, tmp_path):
    listed = hf_tagger("configs", package=wheel, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert names == sorted(path.relative_to(cli.CONFIGS).as_posix() for path in cli.CONFIGS.rglob("*.yaml"))
    help_of_finetune = hf_tagger("finetune", "--help", package=wheel, cwd=tmp_path)
    assert help_of_finetune.returncode == 0 and "usage: hf_tagger finetune" in help_of_finetune.stdout
    told = hf_tagger("finetune", "my.yaml", "--bad.key", "1", package=wheel, cwd=shop).stderr
    assert told.startswith('finetune: Unknown key "bad".')
    recipe = runpy.run_path(str(wheel / "hf_tagger" / "recipes" / "evaluate_tagger.py"), run_name="evaluate_tagger")
    assert recipe["TEMPLATE"].is_relative_to(wheel) and recipe["TEMPLATE"].is_file()


def test_a_configuration_is_copied_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def copy(*arguments):
        monkeypatch.setattr(sys, "argv", ["hf_tagger", "copy", *arguments])
        return cli.main(), capsys.readouterr().err

    assert copy("fashion.yaml") == (0, "")
    assert (tmp_path / "fashion.yaml").read_text() == (cli.CONFIGS / "fashion.yaml").read_text()
    (tmp_path / "fashion.yaml").write_text("mine")
    status, said = copy("fashion.yaml")
    assert status == 2 and "fashion.yaml is there already" in said
    assert (tmp_path / "fashion.yaml").read_text() == "mine"
    assert copy("search/quickstart.yaml", "new/space.yaml") == (0, "")
    assert (tmp_path / "new" / "space.yaml").read_text() == (cli.CONFIGS / "search" / "quickstart.yaml").read_text()
    status, said = copy("fasion.yaml")
    assert status == 2 and "there is no fasion.yaml. Did you mean \"fashion.yaml\"?" in said


def test_a_console_that_cannot_print_a_tag_prints_something_else():
    code = "from hf_tagger import cli\n@cli.recipe\ndef main(arguments):\n    print('tags:', 'シャツ, Größe')\n" \
           "raise SystemExit(main([]))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT,
                         env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)})
    assert (run.returncode, run.stdout.decode("cp1252").strip()) == (0, "tags: ???, Größe"), run.stderr


@pytest.mark.parametrize("said", ["[Errno 28] No space left on device: 'a'", "9216 requested and 7995 written"])
def test_a_full_disk_is_said_in_one_line_whoever_finds_it(said, capsys):
    def main(arguments):
        raise OSError(said)

    assert cli.recipe(main, "export")([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: the disk is full") and said in line
