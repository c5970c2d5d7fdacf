"""Byte ranges of a file that are replaced, and the file that puts them back."""

import base64
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fsspec

from hf_tagger import UserError

FORMAT = 1
_AT_ONCE = 1 << 20


class Patch(NamedTuple):
    """The bytes from `start` up to `stop` of a file become `new`."""

    start: int
    stop: int
    new: bytes


class Unwritable(ValueError):
    """A value that a file cannot take: nothing of its row is changed. `reason`: in a few words, to count by."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class UndoError(UserError):
    """An undo file does not fit, or is not whole: the message says what to do."""


class Digest(io.RawIOBase):
    """Writes through to a file (None: nowhere), and knows the SHA-256 and number of the bytes."""

    def __init__(self, file: BinaryIO | None):
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        data = bytes(data)  # pyarrow hands over buffers of its own
        self.sha256.update(data)
        self.size += len(data)
        if self.file is not None:
            self.file.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size


def apply(patches: Iterable[Patch], source: BinaryIO, original: Digest,
          changed: Digest) -> Iterator[tuple[int, bytes, int]]:
    """Copies `source` to `changed` with the patches, which rise and do not overlap; `original` gets what was read.

    Yields of each patch what undoes it: its place in `changed`, the bytes that were there, and how many stand there
    now.
    """
    place = 0
    for patch in patches:
        if not place <= patch.start <= patch.stop:
            raise ValueError(f"a patch at {patch.start} to {patch.stop} after byte {place}")
        _copy(source, patch.start - place, original, changed)
        was = source.read(patch.stop - patch.start)
        original.write(was)
        yield changed.size, was, len(patch.new)
        changed.write(patch.new)
        place = patch.stop
    _copy(source, None, original, changed)


def _copy(source: BinaryIO, size: int | None, *outputs: Digest) -> None:
    while size is None or size > 0:
        data = source.read(_AT_ONCE if size is None else min(size, _AT_ONCE))
        if not data:
            if size:
                raise UserError("the file has become shorter while it was read: begin again")
            return
        for output in outputs:
            output.write(data)
        size = None if size is None else size - len(data)


def write_patched(path: str, patches: Iterable[Patch], original: Digest, changed: Digest) -> Iterator[dict[str, Any]]:
    """As `apply`, of a file, with lines of the undo file."""
    with fsspec.open(path, "rb", compression="infer") as source:
        for at, was, length in apply(patches, source, original, changed):
            yield {"at": at, "length": length, **_written(was)}


class PatchedFile(ABC):
    """A shop's file of which some bytes are replaced. Its rows have the numbers that they have in the catalogue.

    Attributes: `header`, its columns; `new`, those that are added; `kept`, what stays, in words.
    """

    kept = "every other byte as it was"
    header: list[str]
    encoding = "utf-8"

    def __init__(self, path: str):
        self.path = path
        self.new: Any = []

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        """{column: whether its values are lists}; those that the file does not have yet are added."""
        self.new += [name for name in columns if name not in (*self.header, *self.new)]

    def header_patches(self) -> list[Patch]:
        """What adds them; comes before the rows. Nothing where a row names its own columns."""
        return []

    @abstractmethod
    def rows(self) -> Iterator[Any]:
        """Objects with a `number`."""

    @abstractmethod
    def value(self, row: Any, column: str) -> str | None:
        """None where the row, or the file, has no such cell."""

    @abstractmethod
    def patches(self, row: Any, values: Mapping[str, str]) -> list[Patch]:
        """What puts {column: value} into a row.

        Raises Unwritable where the row cannot take it, and then nothing of it is to be changed.
        """

    def holds_lists(self, column: str) -> bool:
        """Whether a value of the column is a list of the file's own; `value` and `patches` have it as JSON."""
        return False

    def takes(self, text: str) -> bool:
        """Whether the file has all characters of a text."""
        try:
            self.encoded(text)
        except Unwritable:
            return False
        return True

    def encoded(self, text: str) -> bytes:
        """Raises Unwritable for a character that the encoding lacks."""
        try:
            return text.encode(self.encoding)
        except UnicodeEncodeError as error:
            raise Unwritable(f"{text[error.start]!r} is not in {self.encoding}") from None

    def write(self, patches: Iterable[Patch], original: Digest, changed: Digest) -> Iterator[dict[str, Any]]:
        """As `write_patched`."""
        return write_patched(self.path, patches, original, changed)


def write_undo(path: Path, steps: Iterable[dict[str, Any]], original: Digest, changed: Digest,
               about: dict[str, Any]) -> int:
    """Writes what `PatchedFile.write` yields: first a line about the file, then one per patch, last the fingerprints of
    both files. Returns the number of patches."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"undo": FORMAT} | about, ensure_ascii=False) + "\n")
        for step in steps:
            number += 1
            file.write(json.dumps(step, ensure_ascii=False) + "\n")
        file.write(json.dumps({"patches": number, "original": original.sha256.hexdigest(),
                               "changed": changed.sha256.hexdigest()}) + "\n")
    return number


def read_undo(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last line of an undo file.

    Raises UndoError if it is none, or not whole.
    """
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline())
            file.seek(max(0, path.stat().st_size - 4096))
            last = json.loads(file.read().splitlines()[-1])
        if first["undo"] != FORMAT or "changed" not in last:
            raise ValueError("it does not end as it should")
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UndoError(f"{path} is no whole undo file ({error}): `hf_tagger tag --output` writes one beside what it "
                        "writes") from None
    return first, last


def undo_patches(path: Path) -> Iterator[Patch]:
    with path.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            step = json.loads(line)
            if "at" in step:
                was = base64.b64decode(step["base64"]) if "base64" in step else step["was"].encode()
                yield Patch(step["at"], step["at"] + step["length"], was)


def _written(was: bytes) -> dict[str, str]:
    try:
        return {"was": was.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(was).decode()}
