"""Files and folders that are there whole or not at all: a kill or a full disk leaves nothing half-written under its own
name."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(folder: str | Path) -> Iterator[Path]:
    """A place to write files to, which come into `folder`, beside what else is there, when all of them are complete."""
    folder = Path(folder)
    aside = folder / "saving.incomplete"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    _to_disk(aside)
    for path in sorted(aside.iterdir()):
        if (folder / path.name).is_dir():  # a tag tokenizer's, which no rename replaces
            shutil.rmtree(folder / path.name)
        os.replace(path, folder / path.name)
    aside.rmdir()
    _sync(folder)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which gets its name when it is complete, in place of an earlier one of that name."""
    aside, before = (folder.with_name(f"{folder.name}.{state}") for state in ("incomplete", "before"))
    for left in (aside, before):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    _to_disk(aside)
    if folder.exists():
        folder.rename(before)
    aside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the file is complete."""
    aside = path.with_name(f"{path.name}.incomplete")
    yield aside
    _sync(aside)
    os.replace(aside, path)


def _to_disk(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
