"""README stays short, and what it and the pages behind it name is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import build, read_yaml
from hf_tagger.training.arguments import RunSettings
from recipes import example, init

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "hf_tagger").rglob("README.md")),
         *sorted(page for page in (ROOT / "model_cards").glob("*.md") if page.name != "template.md")]
NAMED = re.compile(r"(?<![\w./-])(?:recipes|model_cards|hf_tagger)/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def merged(base: dict, more: dict) -> dict:
    return base | {key: merged(base[key], value) if isinstance(value, dict) and key in base else value
                   for key, value in more.items()}


def test_readme_has_at_most_250_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_links_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    missing = [name for name in NAMED.findall(LINK.sub("]", text)) if not (ROOT / name).exists()]
    for name, anchor in LINK.findall(text):
        if "://" in name:
            continue
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(f"{name}#{anchor}")
    assert not missing, f"{page.name} names {', '.join(missing)}"


def test_every_recipe_and_every_configuration_is_listed():
    listed = set(NAMED.findall((ROOT / "recipes" / "README.md").read_text(encoding="utf-8")))
    files = [*(ROOT / "recipes").glob("*.py"), *(ROOT / "recipes" / "configs").rglob("*.yaml")]
    assert not {str(file.relative_to(ROOT)) for file in files} - listed


def test_the_configurations_in_readme_are_valid():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    mine, free_form = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", readme, flags=re.DOTALL))
    assert build(RunSettings, mine).output_dir == "runs/my-shop"
    assert build(RunSettings, merged(mine, free_form)).model.decoder.layers == 3


def test_the_way_from_an_export_to_a_configuration_works_as_written(tmp_path, monkeypatch):
    """Without the training, which takes minutes."""
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own catalogue\n")[2].partition("\n## ")[0]
    commands = [shlex.split(line, comments=True) for line in re.findall(r"^    (hf_tagger .+)$", section, re.MULTILINE)]
    names = [command[1] for command in commands]
    assert names[:4] == ["example", "init", "finetune", "tag"]
    for (_, name, *arguments), recipe in zip(commands, (example, init), strict=False):
        assert recipe.main(arguments) == 0, name
    (trained,) = commands[2][2:]
    settings = build(RunSettings, read_yaml(trained))
    assert commands[3][2] == settings.output_dir
    catalog = open_catalog(settings.catalog, tmp_path)
    records = [record for split in ("train", "validation", "test") for record in catalog.records(split)]
    assert len(records) == 200 and all(isinstance(record, dict) for record in records)
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)[0])["catalog"]["schema"]
    assert shown["attributes"].keys() < settings.catalog.schema.attributes.keys()
    assert {shown["id"], *shown["text"], *shown["images"]} <= settings.catalog.schema.columns().keys()
