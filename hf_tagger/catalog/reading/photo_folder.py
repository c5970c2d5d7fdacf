"""A folder that holds nothing but photos: each is a product, and the folder that it lies in its class."""

import os
from collections.abc import Iterator

from hf_tagger.catalog.formats.columns import RawRow

PHOTOS = "photos"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def photos_in(folder: str) -> Iterator[str]:
    """Paths from the folder, in order of their names; hidden ones are passed over."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(_SUFFIXES) and not name.startswith("."):
                yield os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")


def read_photo_folder(folder: str) -> Iterator[RawRow]:
    """Rows with the columns id (the path without its suffix), image and class (None: it lies in no folder)."""
    for number, path in enumerate(photos_in(folder), start=1):
        yield number, {"id": path.rpartition(".")[0], "image": path, "class": path.rpartition("/")[0] or None}, None
