"""What a saved model and the code that opens it agree on: the format, the decoder's first token ids, and which files of
code a folder carries. Standard library only, for the exported runtime agrees, too.

With a class transformers saves every sibling that its file imports by `from .x import`, and brings them into its module
cache again; these words count wherever they stand in the file. What only some models use (decoder, shoppers,
speech, Inference Endpoints) is therefore imported at run time, by `part`, and `carry` adds such imports to the end of a
saved file, of what its model uses.
"""

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType

FORMAT = 3
ENDED = {1: "0.2", 2: "0.2"}  # the release of hf_tagger from which on an older format is no longer read
TRAIN_AGAIN = "train it again with its training_config.yaml"
LISTED = "\n\nif False:  # what stands here makes transformers bring it along: see saving.py\n"

# The first ids of every tag tokenizer; the controls (languages, attributes) are its last.
PAD, UNK, BOS, EOS, SEPARATOR = range(5)


class FormatError(ValueError):
    """What was saved by another edition of hf_tagger; the message says what to do."""


def check_format(found: int | None, place: str | os.PathLike, remedy: str) -> None:
    """Raises FormatError where `place` was not saved in this format. `found`: the format that it names; None, as the
    first hf_tagger did not name any, is 1. `remedy`: what to do about an older one."""
    found = 1 if found is None else found
    if found == FORMAT:
        return
    if found in ENDED:
        raise FormatError(f"{place} was saved in format {found}, by an hf_tagger before {ENDED[found]}, and this one "
                          f"reads format {FORMAT}: {remedy}, or install 'hf_tagger<{ENDED[found]}'")
    raise FormatError(f"{place} was saved in format {found!r}, and this hf_tagger reads format {FORMAT}: "
                      "pip install --upgrade hf_tagger")


def part(name: str, user: str) -> ModuleType:
    """A file of this folder that not every saved model carries. Raises ImportError, which names the `user`, where a
    saved folder, opened without hf_tagger, does not have it."""
    module = f"{__package__}.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f"{user} needs {name}.py, which was not saved with this model: pip install hf_tagger",
                          name=module) from error


def carry(saved: object, folder: str | os.PathLike, parts: list[str]) -> None:
    """Saves the file of an object's class into a folder, with all that it imports, and the `parts` that it uses."""
    from transformers.dynamic_module_utils import custom_object_save, get_relative_import_files

    copies = custom_object_save(saved, folder)
    if not copies:  # of a class made in __main__, which transformers does not save
        return
    files = [Path(__file__).with_name(f"{name}.py") for name in parts]
    files = [file for file in files if file.exists()]  # without hf_tagger there is only what the folder opened carries
    for file in files:
        for needed in (file, *map(Path, get_relative_import_files(file))):
            shutil.copyfile(needed, Path(folder, needed.name))
    text = copies[0].read_text(encoding="utf-8").partition(LISTED)[0]
    listed = "".join(f"    from .{file.stem} import *  # noqa: F403\n" for file in files)
    copies[0].write_text(text + (LISTED + listed if files else ""), encoding="utf-8")


def let_others_read(*files: str | os.PathLike) -> None:
    """Gives files the mode that new ones get, by the umask: safetensors writes for the owner alone, and a server often
    runs as somebody else."""
    for file in map(Path, files):
        probe = file.with_name(f".{file.name}.mode")
        probe.touch()
        file.chmod(probe.stat().st_mode & 0o777)
        probe.unlink()


def first_control_id(decoder: dict) -> int:
    """Token ids from here on are controls: they are asked with, never written. `decoder`: as in `TaggerConfig`."""
    return decoder["vocab_size"] - len(decoder["attributes"]) - len(decoder["languages"])


def control_id(decoder: dict, language: str | None = None, attribute: str | None = None) -> int:
    """The token that asks the decoder for a language, or for an attribute.

    Raises ValueError for one that it was not trained on, listing those it was.
    """
    kind, name = ("language", language) if attribute is None else ("attribute", attribute)
    known = decoder[f"{kind}s"]
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ValueError(f"the decoder was not trained on the {kind} {name!r}; it knows: {listed}")
    first = first_control_id(decoder) + (0 if kind == "language" else len(decoder["languages"]))
    return first + known.index(name)
