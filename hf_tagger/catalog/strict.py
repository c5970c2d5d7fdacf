"""Builds dataclasses from YAML and command-line values; unknown keys and wrong types are errors that say where."""

import copy
import dataclasses
import re
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hf_tagger import UserError
from hf_tagger.model.text import did_you_mean


class ConfigError(UserError, ValueError):
    """A configuration value is wrong: the message names the full dotted key and the remedy."""


def build(cls: type, data: Any, where: str = "") -> Any:
    """An instance of the dataclass `cls` from plain data; fields may be dataclasses, and lists and dicts of them.

    `data` is a mapping from YAML (None is empty); `where` is its dotted key in the whole configuration. Strings are
    converted to the type of a field ("1e-4" to float, "true" to bool).

    A dataclass may list old keys as `RENAMED: ClassVar = {old key: new key}`, and removed ones as
    `REMOVED: ClassVar = {"key" or "key: value": what to do instead}`. Their use is an error that says so.

    Raises ConfigError for an unknown key (naming the nearest known one), a missing key, a value of the wrong type, and
    for any ValueError of a dataclass's `__post_init__`.
    """
    if isinstance(data, cls):
        return data
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{where or cls.__name__}: expected keys and values, got {data!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    renamed, removed = getattr(cls, "RENAMED", {}), getattr(cls, "REMOVED", {})
    for key, value in data.items():
        if key in renamed:
            raise ConfigError(f'"{_join(where, key)}" is now "{_join(where, renamed[key])}".')
        for spelling in (key, f"{key}: {value}"):
            if spelling in removed:
                raise ConfigError(f'"{_join(where, spelling)}" is no longer there: {removed[spelling]}.')
        if key not in fields:
            raise ConfigError(f'Unknown key "{_join(where, key)}".{did_you_mean(key, fields)}')
    hints = _type_hints(cls)
    values = {key: convert(hints[key], value, _join(where, key)) for key, value in data.items()}
    for name, field in fields.items():
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            raise ConfigError(f'Missing key "{_join(where, name)}".')
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from error


def read_yaml(path: str | Path) -> dict:
    """The keys and values of a YAML file, {} if it is empty. Raises ConfigError if it is missing or not valid."""
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, dict | None):
        raise ConfigError(f"{path}: expected keys and values, got {data!r}.")
    return data or {}


def override(data: dict, arguments: list[str]) -> dict:
    """A copy of `data` with `--key.sub value`, `--key.sub=value` and bare `--flag` (true) arguments applied.

    Values are read as YAML. List items are addressed by index (`--phases.0.learning_rate 1e-3`); a name with dots in it
    is found where it is there already (`--catalog.schema.attributes.No. of doors.kind multi`). Raises ConfigError for a
    key below a plain value, an argument without `--` and an index past the end; `build` checks the keys.
    """
    data = copy.deepcopy(data)
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        if not argument.startswith("--") or argument == "--":
            raise ConfigError(f'Unexpected argument "{argument}": overrides are written --key.sub value.')
        key, equals, text = argument[2:].partition("=")
        if not equals:
            follows = arguments[position : position + 1]
            if follows and not follows[0].startswith("--"):
                text = follows[0]
                position += 1
            else:
                text = "true"
        assign(data, key, _parse_value(text, key))
    return data


def assign(data: dict, key: str, value: Any) -> None:
    """Sets the value of a dotted key, in place; errors as of `override`."""
    node, rest = data, key
    while (part := first_part(node, rest)) != rest:
        index = _index(node, part, key)
        if isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node, rest = node[index], rest[len(part) + 1:]
        if not isinstance(node, dict | list):
            parent = key[:len(key) - len(rest) - 1]
            raise ConfigError(f'"--{key}": "{parent}" holds {node!r}, which has no keys of its own.')
    node[_index(node, rest, key)] = value


def first_part(node: Any, key: str) -> str:
    """The first part of a dotted key below this node: a name of its own, of several the longest, else up to the dot."""
    parts = key.split(".")
    names = (".".join(parts[:count]) for count in range(len(parts), 1, -1)) if isinstance(node, dict) else ()
    return next((name for name in names if name in map(str, node)), parts[0])


def _index(node: dict | list, part: str, key: str) -> str | int:
    if isinstance(node, dict):
        return next((name for name in node if str(name) == part), part)  # YAML reads 36 as a number
    if part.isdigit() and int(part) < len(node):
        return int(part)
    raise ConfigError(f'"--{key}": "{part}" must be an index below {len(node)} of this list.')


def _parse_value(text: str, key: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f'"--{key}": {text!r} is not valid YAML ({error}). Quote it.') from error


class _Written:
    """A number that keeps how it was written, for where text is wanted: the tags 010, 1.50 and 1e3."""

    text: str

    def __str__(self) -> str:
        return self.text


class _WrittenInt(_Written, int):
    pass


class _WrittenFloat(_Written, float):
    pass


class _Loader(yaml.SafeLoader):
    """YAML 1.2: `no`, `1:18` and dates are text, `1e-4` is a number."""

    yaml_implicit_resolvers = {}

    def number(self, node: yaml.ScalarNode) -> int | float:
        text, whole = node.value, node.tag.endswith("int")
        value = int(text, 0 if text[:2] in ("0o", "0x") else 10) if whole else float(text.replace(".inf", "inf")
                                                                                    .replace(".nan", "nan"))
        if str(value) == text:
            return value
        written = (_WrittenInt if whole else _WrittenFloat)(value)
        written.text = text
        return written


for _tag, _pattern, _first in (
    ("null", "~|null|Null|NULL|", "~nN"), ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"), ("merge", "<<", "<"),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"),
                                  [*_first, *([""] if _tag == "null" else [])])
    if _tag in ("int", "float"):
        _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.number)
# PyYAML would write an exponent without a dot as "!!float '1e-4'".
yaml.SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"),
                                      list("-+0123456789"))
for _class, _tag in ((_WrittenInt, "int"), (_WrittenFloat, "float")):
    yaml.SafeDumper.add_representer(_class, lambda dumper, value, tag=_tag: dumper.represent_scalar(
        f"tag:yaml.org,2002:{tag}", value.text))


def convert(hint: Any, value: Any, where: str) -> Any:
    """Plain data as a value of this type; errors as of `build`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if not _holds_dataclass(hint):
        return _check_leaf(hint, value, where)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        arms = [arm for arm in arguments if _holds_dataclass(arm)]
        plain = [arm for arm in arguments if arm not in arms and arm is not type(None)]
        if isinstance(value, dict | list) or not plain:
            return convert(arms[0], value, where)
        return _check_leaf(typing.Union[tuple(plain)], value, where)  # noqa: UP007
    if origin is list:
        if not isinstance(value, list):
            raise ConfigError(f"{where}: expected a list, got {value!r}.")
        return [convert(arguments[0], item, f"{where}.{index}") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected keys and values, got {value!r}.")
        return {
            _check_leaf(arguments[0], key, where): convert(arguments[1], item, _join(where, key))
            for key, item in value.items()
        }
    raise TypeError(f"{where}: strict.build does not know the type {hint}")


def _check_leaf(hint: Any, value: Any, where: str) -> Any:
    if isinstance(value, bool) and hint in (int, float, int | None, float | None):
        raise ConfigError(f"{where}: expected a number, got {value!r}.")
    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"] if not str(part).startswith("function"))])
        remedy = " Quote it: it is true or false in YAML." if isinstance(first["input"], bool) else ""
        raise ConfigError(f"{place}: {first['msg']}, got {first['input']!r}.{remedy}") from error


def _holds_dataclass(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) or any(_holds_dataclass(argument) for argument in typing.get_args(hint))


@cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@cache
def _adapter(hint: Any) -> TypeAdapter:
    # Shoe sizes and years are written as numbers in YAML where tags are strings.
    return TypeAdapter(hint, config=ConfigDict(coerce_numbers_to_str=True, arbitrary_types_allowed=True))


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
