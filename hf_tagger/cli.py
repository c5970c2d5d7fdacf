"""The `hf_tagger` command, and what every recipe does alike: its arguments, how it speaks and how it ends.

Nothing here imports torch. A recipe, too, reads its arguments and its configuration first, and imports what takes
seconds inside its functions: what is misspelt is answered at once.
"""

import argparse
import errno
import functools
import io
import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from hf_tagger import UserError
from hf_tagger.catalog.strict import did_you_mean

# A wheel carries the recipes inside the package; in a checkout they stand beside it.
_IN_WHEEL = Path(__file__).parent / "recipes"
RECIPES = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[1] / "recipes"
CONFIGS = RECIPES / "configs"
# {group: {command: its recipe}}
COMMANDS = {
    "Start": {"init": "init", "example": "example"},
    "Train": {"finetune": "finetune", "search": "search", "update": "update",
              "fit-personalization": "fit_personalization"},
    "Judge": {"evaluate": "evaluate_tagger", "baselines": "baselines", "cross-lingual": "cross_lingual",
              "find-label-issues": "find_label_issues"},
    "Make smaller": {"distill": "distill", "prune": "prune", "prune-vocabulary": "prune_vocabulary"},
    "Use": {"tag": "tag_catalog", "export": "export", "serve": "serve", "review": "review",
            "verdicts": "verdicts"},
}
ARGUMENTS = {
    "config": "a YAML file of `hf_tagger finetune`",
    "model": "model folder, adapter folder or Hub id",
    "catalogue": "YAML file, or the path of a catalogue written like the training one",
}
# What errors of Python, Rust, C++ and torch repeat where there is no room to write; the last is all that numpy says.
NO_ROOM = re.compile("|".join([*map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
                               r"\d requested and \d+ written"]))


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    programs = {command: program for group in COMMANDS.values() for command, program in group.items()}
    command = name.replace("_", "-")
    if name in ("-h", "--help"):
        print(overview())
        return 0
    if command in ("configs", "copy"):
        return recipe({"configs": list_configs, "copy": copy_config}[command], command)(arguments)
    if command not in programs:
        print(f"hf_tagger: there is no command {name!r}; hf_tagger --help lists them", file=sys.stderr)
        return 2
    # As `python recipes/NAME.py` runs it: processes that a recipe starts find its functions, too.
    sys.argv[1:] = arguments
    runpy.run_path(str(RECIPES / f"{programs[command]}.py"), run_name="__main__")
    return 0


def overview() -> str:
    """All commands in groups, each with the first line of its program's docstring."""
    lines = ["usage: hf_tagger COMMAND ...      (hf_tagger COMMAND --help says more)"]
    for group, commands in COMMANDS.items():
        lines += ["", f"{group}:"]
        lines += [f"  {command:20} {_first_line(RECIPES / (program + '.py'))}" for command, program in commands.items()]
    lines += ["", "Configurations:", "  configs              List those that come with hf_tagger.",
              "  copy                 Copy one of them, to edit it.", "",
              "One process each. On several GPUs: accelerate launch recipes/finetune.py my.yaml"]
    return "\n".join(lines)


def list_configs(arguments: list[str]) -> None:
    """List the configurations that come with hf_tagger, each with its first comment line: how it is launched."""
    parser(list_configs.__doc__, prog="hf_tagger configs").parse_args(arguments)
    for name in config_names():
        print(f"{name:24} {_first_line(CONFIGS / name)}")


def copy_config(arguments: list[str]) -> None:
    """Copy a configuration that comes with hf_tagger, to edit it."""
    copying = parser(copy_config.__doc__, prog="hf_tagger copy")
    copying.add_argument("name", metavar="NAME", help="as `hf_tagger configs` lists it, such as fashion.yaml")
    copying.add_argument("destination", metavar="DEST", nargs="?", default=".", type=Path,
                         help="file or folder (default: here, under the same name)")
    options = copying.parse_args(arguments)
    if options.name not in config_names():
        raise UserError(f"there is no {options.name}.{did_you_mean(options.name, config_names())}")
    to = options.destination / Path(options.name).name if options.destination.is_dir() else options.destination
    if to.exists():
        raise UserError(f"{to} is there already, and is not written over")
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CONFIGS / options.name, to)
    print(f"copied to {to}")


def config_names() -> list[str]:
    return sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))


def recipe(main: Callable[[list[str]], int | None], name: str | None = None) -> Callable[[list[str]], int]:
    """Decorates a recipe's `main`, which then returns an exit status: 0 (or its own), 2 for a `UserError`, 130 for an
    interruption. Either is told in one line on stderr."""
    file = Path(main.__code__.co_filename).stem
    name = name or _command(file) or file

    @functools.wraps(main)
    def ended(arguments: list[str]) -> int:
        _print_anything()
        try:
            return main(arguments) or 0
        except UserError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return error.exit_status
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            return 130
        except Exception as error:
            if not NO_ROOM.search(str(error)):
                raise
            print(f"{name}: the disk is full ({error}): make room, and start it again, with --resume where it has that "
                  "option", file=sys.stderr)
            return 2

    return ended


def _print_anything() -> None:
    """Output appears at once, in a file or pipe, too, with "?" for what a console's encoding (cp1252) does not have."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")


def parser(description: str, *positional: str, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose --help is the docstring of a recipe as it stands. `positional`: those of `ARGUMENTS` to take."""
    command = _command(Path(sys.argv[0]).stem)
    prog = prog or (f"hf_tagger {command}" if command else None)
    made = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in positional:
        made.add_argument(name, metavar=name.upper(), help=ARGUMENTS[name])
    return made


def say(text: str) -> None:
    """Progress, apart from results: on stderr."""
    print(text, file=sys.stderr)


def _command(file: str) -> str | None:
    """The command that runs recipes/`file`.py; None of one that has none (recipes/lab)."""
    return next((command for group in COMMANDS.values() for command, program in group.items() if program == file), None)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return next(lines).strip('"# \n')


if __name__ == "__main__":
    sys.exit(main())
