"""recipes/README.md documents every configuration key with its default, and no key that does not exist."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest
import yaml

from hf_tagger.catalog.synthetic.products import SyntheticOptions
from hf_tagger.training.arguments import DistillSettings
from hf_tagger.training.search_settings import Range, SearchSettings

README = Path(__file__).parents[2] / "recipes" / "README.md"
# Heading of a section: the dataclass whose keys it lists. DistillSettings has all keys of a run, and `distillation`.
ROOTS = {"Top level": DistillSettings, "`catalog.synthetic`": SyntheticOptions, "Search file": SearchSettings,
         "`space.KEY`": Range}
REQUIRED = object()


def settings_in(hint) -> tuple[type | None, str]:
    """The dataclass in a type hint, and what stands between its key and its own keys: "", ".NAME" (a name of the
    user's) or ".N" (a list's item)."""
    if dataclasses.is_dataclass(hint):
        return hint, ""
    for argument in typing.get_args(hint):
        found, below = settings_in(argument)
        if found:
            return found, {dict: ".NAME", list: ".N"}.get(typing.get_origin(hint), "") + below
    return None, ""


def default_of(field: dataclasses.Field):
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else REQUIRED


def sections_of(cls: type, heading: str, prefix: str, seen: set[type]):
    """(heading, dataclass) of a dataclass and of those below it; one that occurs in several places, in the first."""
    seen.add(cls)
    yield heading, cls
    for name, hint in typing.get_type_hints(cls).items():
        found, below = settings_in(hint)
        if found and found not in seen:
            yield from sections_of(found, f"`{prefix}{name}{below}`", f"{prefix}{name}{below}.", seen)


def all_sections() -> dict[str, type]:
    seen = set()
    return {heading: cls for root, settings in ROOTS.items() for heading, cls in sections_of(settings, root, "", seen)}


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, str]]:
    """{heading: {key: cell of its default}} of every section of README that has a table of keys."""
    parts = re.split(r"^### (.+)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = re.compile(r"^\| `(\w+)` \| (.+?) \|(?: .*)? \|$", re.MULTILINE)
    sections = {heading: dict(rows.findall(text)) for heading, text in zip(parts[1::2], parts[2::2], strict=True)}
    return {heading: keys for heading, keys in sections.items() if keys}


def test_readme_has_a_section_for_every_group_of_keys_and_no_other(documented):
    assert sorted(documented) == sorted(all_sections())


@pytest.mark.parametrize("heading", all_sections())
def test_readme_lists_the_keys_of_a_section_with_their_defaults(heading, documented):
    cls, keys = all_sections()[heading], documented.get(heading, {})
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    missing, unknown = fields.keys() - keys.keys(), keys.keys() - fields.keys()
    assert not missing, f"recipes/README.md, {heading}: add {', '.join(sorted(missing))}"
    assert not unknown, f"recipes/README.md, {heading}: there is no key {', '.join(sorted(unknown))}"
    hints = typing.get_type_hints(cls)
    wrong = [f"{key}: {cell}, wanted {wanted!r}" for key, cell in keys.items()
             if read_cell(cell) != (wanted := shown_default(fields[key], hints[key]))]
    assert not wrong, f"recipes/README.md, {heading}: {'; '.join(wrong)}"


def read_cell(cell: str):
    """A default in backticks as the YAML that it is; "required" and "below" as they stand."""
    return yaml.safe_load(cell.strip("`")) if cell.startswith("`") else cell


def shown_default(field: dataclasses.Field, hint):
    default = default_of(field)
    if default is REQUIRED:
        return "required"
    if default is not None and settings_in(hint)[0]:
        return "below"
    return list(default) if isinstance(default, tuple) else default
