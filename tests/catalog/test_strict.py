"""Configuration from plain data: right types come out, and every mistake names its key and a remedy."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
import yaml

from hf_tagger.catalog import strict
from hf_tagger.catalog.strict import ConfigError, build, override, read_yaml


@dataclass
class Phase:
    RENAMED: ClassVar[dict[str, str]] = {"rounds": "epochs"}
    REMOVED: ClassVar[dict[str, str]] = {"cycles": "write epochs", "learning_rate: 0": "leave the phase out"}

    epochs: int
    learning_rate: float = 1e-3


@dataclass
class Optimizer:
    name: Literal["adamw", "sgd"] = "adamw"
    weight_decay: float | None = None

    def __post_init__(self):
        if self.weight_decay is not None and self.weight_decay < 0:
            raise ValueError("weight_decay must not be negative")


@dataclass
class Settings:
    seed: int = 0
    bf16: bool = False
    rate: float = 0.1
    tags: list[str] = field(default_factory=list)
    optimizer: Optimizer = field(default_factory=Optimizer)
    second: Optimizer | None = None
    phases: list[Phase] = field(default_factory=list)
    named: dict[str, Phase] = field(default_factory=dict)
    text: str | list[str] = "title"


def test_nested_lists_dicts_and_optional_dataclasses():
    settings = build(
        Settings,
        {
            "optimizer": {"name": "sgd"},
            "second": {"weight_decay": 0.1},
            "phases": [{"epochs": 1}, {"epochs": 2, "learning_rate": 1}],
            "named": {"warm": {"epochs": 3}},
        },
    )
    assert settings.optimizer == Optimizer("sgd")
    assert settings.second == Optimizer(weight_decay=0.1)
    assert settings.phases == [Phase(1), Phase(2, 1.0)]
    assert settings.named == {"warm": Phase(3)}
    assert build(Settings, {"second": None}).second is None
    assert build(Settings, None) == Settings()


def test_strings_from_the_command_line_become_the_wanted_type():
    settings = build(Settings, {"seed": "3", "bf16": "true", "rate": "1e-4", "tags": [36, 37.5], "text": ["a", "b"]})
    assert (settings.seed, settings.bf16, settings.rate) == (3, True, 1e-4)
    assert settings.tags == ["36", "37.5"]
    assert settings.text == ["a", "b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"sed": 1}, 'Unknown key "sed". Did you mean "seed"?'),
        ({"optimizer": {"weight_decy": 1}}, 'Unknown key "optimizer.weight_decy". Did you mean "weight_decay"?'),
        ({"phases": [{"epochs": 1}, {"epoch": 1}]}, 'Unknown key "phases.1.epoch". Did you mean "epochs"?'),
        ({"phases": [{"rounds": 1}]}, '"phases.0.rounds" is now "phases.0.epochs".'),
        ({"phases": [{"cycles": 1}]}, '"phases.0.cycles" is no longer there: write epochs.'),
        ({"phases": [{"epochs": 1, "learning_rate": 0}]}, '"phases.0.learning_rate: 0" is no longer there'),
        ({"named": {"warm": {"lr": 1}}}, 'Unknown key "named.warm.lr"'),
        ({"phases": [{}]}, 'Missing key "phases.0.epochs"'),
        ({"seed": "three"}, "seed: "),
        ({"rate": True}, "rate: expected a number"),
        ({"optimizer": {"name": "adm"}}, "optimizer.name: "),
        ({"optimizer": {"weight_decay": -1}}, "optimizer: weight_decay must not be negative"),
        ({"tags": ["Yes", False]}, "tags.1: .*Quote it"),
        ({"phases": {"epochs": 1}}, "phases: expected a list"),
        ({"optimizer": "adamw"}, "optimizer: expected keys and values"),
    ],
)
def test_mistakes_name_the_key(data, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        build(Settings, data)


def test_override_spellings():
    data = {"optimizer": {"name": "adamw"}, "phases": [{"epochs": 1}], "second": None}
    changed = override(
        data,
        [
            *("--optimizer.name", "sgd", "--optimizer.weight_decay=1e-4", "--seed", "-1", "--bf16"),
            *("--phases.0.epochs", "5", "--tags", "[Red, 1e-2]", "--second.name=sgd", "--text", "a=b=c"),
        ],
    )
    assert changed["optimizer"] == {"name": "sgd", "weight_decay": 1e-4}
    assert changed["seed"] == -1 and changed["bf16"] is True
    assert changed["phases"] == [{"epochs": 5}]
    assert changed["tags"] == ["Red", 0.01]
    assert changed["second"] == {"name": "sgd"}
    assert changed["text"] == "a=b=c"
    assert data["optimizer"] == {"name": "adamw"}, "the given configuration is not changed"


@pytest.mark.parametrize(
    "arguments",
    [["seed", "1"], ["--seed.x", "1"], ["--phases.4.epochs", "1"], ["--tags", "[unclosed"]],
)
def test_override_mistakes(arguments):
    with pytest.raises(ConfigError):
        override({"seed": 1, "phases": []}, arguments)


def test_names_with_dots_and_numbers_are_found_where_they_are():
    data = {"named": {"No. of doors": {"epochs": 1}, "No": {"epochs": 1}, 36: {"epochs": 1}, "v1.5": None}}
    changes = [f"--named.{name}.epochs={number}" for number, name in enumerate(("No. of doors", "No", "36", "v1.5"), 2)]
    found = override(data, changes)["named"]
    assert found == {"No. of doors": {"epochs": 2}, "No": {"epochs": 3}, 36: {"epochs": 4}, "v1.5": {"epochs": 5}}


def test_text_is_read_as_it_is_written(tmp_path):
    @dataclass
    class Spec:
        tags: list[str] | None = None
        aliases: dict[str, str] = field(default_factory=dict)
        text: str | list[str] = ""
        seed: int = 0
        rate: float = 0.0

    path = tmp_path / "a.yaml"
    path.write_text("tags: [010, 1.50, 1:18, no, NO, on, 2024-01-31, 1e3, 0x1F, +5, 1_000, 12, .5]\n"
                    "aliases: {1:18: 010, 07: yes, 38.0: '38'}\ntext: 007\nseed: 010\nrate: 1e-4\n")  # fmt: skip
    for data in (read_yaml(path), yaml.load(yaml.safe_dump(read_yaml(path)), strict._Loader)):
        spec = build(Spec, data)
        assert spec.tags == "010 1.50 1:18 no NO on 2024-01-31 1e3 0x1F +5 1_000 12 .5".split()
        assert spec.aliases == {"1:18": "010", "07": "yes", "38.0": "38"} and spec.text == "007"
        assert (spec.seed, spec.rate) == (10, 1e-4)
    assert build(Spec, override({}, ["--tags", "[010, no]", "--seed", "3"])).tags == ["010", "no"]
    assert "rate: 1e-4" in yaml.safe_dump(read_yaml(path))


def test_override_then_build_reads_yaml_exponents():
    data = override(yaml.safe_load("rate: 1e-3"), ["--phases", "[{epochs: 1, learning_rate: 2e-5}]"])
    settings = build(Settings, data)
    assert settings.rate == 1e-3
    assert settings.phases == [Phase(1, 2e-5)]
