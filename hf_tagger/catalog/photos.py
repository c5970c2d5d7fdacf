"""The photos that a cell names: files, bytes, and URLs that fsspec opens (s3://, hf://, …)."""

import io
import os
import re
import unicodedata
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import fsspec

from hf_tagger.catalog.quarantine import Refusal, RowError

MAX_BYTES = 64 << 20
# Nothing else is ever opened for a cell, least of all a chain such as simplecache::http://…
_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory")
_PROTOCOL = re.compile(r"([^/]*?)://")


class RemoteFile(io.BytesIO):
    """A remote file, fetched when it is first read: a row that is skipped costs no request."""

    def __init__(self, url: str):
        super().__init__()
        self.url, self._fetched = url, False

    def read(self, size: int | None = -1) -> bytes:
        self._fetch()
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._fetch()
        return super().seek(offset, whence)

    def __reduce__(self):
        return type(self), (self.url,)

    def _fetch(self) -> None:
        if not self._fetched:
            self._fetched = True
            with fsspec.open(self.url, "rb") as file:
                if self.write(file.read(MAX_BYTES + 1)) > MAX_BYTES:
                    raise ValueError(f"{self.url} has more than {MAX_BYTES} bytes")
            super().seek(0)


def open_photo(value: Any, column: str, root: str, allow_urls: bool) -> Any:
    """A cell, or an item of one -> what `images.load_image` takes.

    Args:
        value: a path, a URL, bytes, or an undecoded `datasets` image {"bytes", "path"}.
        root: folder, or fsspec URL of one, that paths start from. Only a path that stands alone, written by the shop
            itself, may be an absolute one that lies elsewhere.

    Raises RowError ("wrong_type", "url_refused", "outside_root").
    """
    if isinstance(value, bytes) or (isinstance(value, dict) and isinstance(value.get("bytes"), bytes)):
        return value
    alone = not isinstance(value, dict)
    value = value if alone else value.get("bytes") or value["path"]
    if not isinstance(value, str) or (not alone and _PROTOCOL.match(value)):
        raise RowError(column, "wrong_type", f"wanted a path, bytes or an image, got {type(value).__name__}")
    value = value.strip()
    if root.startswith(("http://", "https://")) and not _PROTOCOL.match(value):
        value = f"{root}/{_inside(value, column)}"
    protocol = _PROTOCOL.match(value)
    if protocol and protocol[1].lower() in ("http", "https"):
        if not allow_urls:
            raise RowError(column, "url_refused", f"{value}: set allow_urls: true in the schema to fetch photos")
        return value
    url = value if protocol else f"{root}/{_inside(value, column)}" if "://" in root else None
    if url is None:
        return value if alone and os.path.isabs(value) and os.path.exists(value) else _file(value, column, root, alone)
    if (protocol and protocol[1].lower() not in _STORES) or "::" in url:
        raise RowError(column, "url_refused", f"{value}: a photo is a path, or a URL of http(s), {', '.join(_STORES)}")
    return RemoteFile(url)


def missing_photos(record: dict[str, Any]) -> list[Refusal]:
    """Takes the photos out of a record that are files which are not there; a refusal of each."""
    missing = [photo for photo in record["images"]
               if isinstance(photo, str) and "://" not in photo and not os.path.isfile(photo)]
    if missing:
        record["images"] = [photo for photo in record["images"] if photo not in missing]
    return [Refusal(record["number"], record["id"], "images", "not_found", f"there is no file {path!r}; check the path "
                    "and schema.image_root", fatal=not record["text"] and not record["images"], file=record["file"],
                    photos_lost=not record["images"]) for path in missing]


def _file(value: str, column: str, root: str, alone: bool) -> str:
    """The file of a path as it stands or, where there is none, as other systems write it: with a leading slash
    (Magento), backslashes, %20, accents composed otherwise (macOS), or in another case (Windows)."""
    stands = os.path.join(root, value if alone and os.path.isabs(value) else _inside(value, column))
    if os.path.exists(stands):
        return stands
    slashes = value.replace("\\", "/")
    for spelling in (value, slashes, unquote(slashes)):
        path = root
        for part in _inside(spelling, column).split("/"):
            path = os.path.join(path, part if os.path.exists(os.path.join(path, part)) else
                                _names(path).get(_folded(part), part))
        if os.path.exists(path):
            return path
    return stands


@lru_cache(maxsize=8)
def _names(folder: str) -> dict[str, str]:
    """What a folder holds, {name without regard to case and Unicode form: name}; nothing of a very large one."""
    try:
        names = os.listdir(folder)
    except (OSError, ValueError):
        return {}
    return {_folded(name): name for name in names} if len(names) < 100_000 else {}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _inside(path: str, column: str) -> str:
    """The path, taken to start from the photo folder."""
    path = path.lstrip("/\\")
    if ".." in path and os.path.normpath(path).startswith(".."):
        raise RowError(column, "outside_root", f"{path} leads out of the photo folder")
    return path
