"""Folders on a disk or in an object store: whatever fsspec opens by a URL, such as s3://, gs:// and hf://.

Nothing is seen before it is whole: on a disk a file is renamed when it is complete, and an object store shows what has
been uploaded. Where the store has conditional writes (S3, Google), `create` is atomic there, too.
"""

import atexit
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import fsspec

from hf_tagger.catalog.strict import ConfigError


def open_folder(path: str | Path) -> Path:
    """A folder, or one of a store, which has the methods of a `Path` and its file system as `fs`."""
    if "://" not in str(path):
        return Path(path)
    try:
        from upath import UPath

        folder = UPath(path)
        folder.fs  # noqa: B018 (imports what opens it)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{path}: {error} (pip install 'hf_tagger[stores]')") from error
    return folder


def is_store(path: Path) -> bool:
    return hasattr(path, "fs")


def is_repository(path: Path) -> bool:
    """Whether every file that is written there is a commit."""
    return is_store(path) and "hf" in path.fs.protocol


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A file to write, which gets its name where nothing is raised, and else goes."""
    if is_store(path):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, path.name)
            yield part
            path.fs.put_file(str(part), path.path)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, text: str) -> None:
    with unfinished(path) as part:
        part.write_text(text, encoding="utf-8")


def create(path: Path, text: str) -> None:
    """Raises FileExistsError where it is there already. (Stores without conditional writes may let two create it.)"""
    if is_store(path):
        path.fs.invalidate_cache()
        path.fs.pipe_file(path.path, text.encode(), mode="create")
        return
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)


def touch(path: Path) -> None:
    if is_store(path):
        path.fs.pipe_file(path.path, path.fs.cat_file(path.path))
    else:
        os.utime(path)


def age(path: Path) -> float:
    """Seconds since it was written or touched."""
    if is_store(path):
        path.fs.invalidate_cache()
        return time.time() - path.fs.modified(path.path).timestamp()
    return time.time() - path.stat().st_mtime


def exists(path: Path) -> bool:
    """As it is now, whatever a listing of before said."""
    if is_store(path):
        path.fs.invalidate_cache()
    return path.exists()


def names(folder: Path) -> set[str]:
    """Of the files in it."""
    if is_store(folder):
        folder.fs.invalidate_cache()
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def remove_folder(folder: Path) -> None:
    """With all that is in it, if it is there."""
    if not is_store(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif exists(folder):
        with suppress(FileNotFoundError):  # another removes it, too
            folder.fs.rm(folder.path, recursive=True)


@cache
def fetched(folder: str) -> str:
    """Where a folder of a store has been copied to, until this process ends; any other path as it is.

    Raises ConfigError where there is none.
    """
    if "://" not in folder:
        return folder
    copy = tempfile.mkdtemp(prefix="hf_tagger-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    try:
        fs, path = fsspec.core.url_to_fs(folder)
        fs.get(path.rstrip("/") + "/", copy, recursive=True)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise ConfigError(f"{folder}: {error}") from error
    return copy
