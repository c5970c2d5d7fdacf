"""HTML pages in a single file: templates, and photos inside them."""

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.model.images import ImageError, load_image


def templates(folder: Path) -> Environment:
    """The templates of a folder; values are escaped, a name that is not given is an error."""
    made = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)
    made.filters["csp_hash"] = csp_hash
    return made


def csp_hash(script: str) -> str:
    """The source of a Content-Security-Policy that lets a page run this script of its own, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def first_records(records: Iterable[Record | Refusal], wanted: Iterable[str]) -> Iterator[Record]:
    """The first record of each of the wanted ids; ends when all are found."""
    missing = set(wanted)
    for record in records if missing else ():
        if not isinstance(record, Refusal) and record["id"] in missing:
            missing.remove(record["id"])
            yield record
        if not missing:
            return


def embedded_photo(images: list, side: int, allow_urls: bool = False) -> str | None:
    """The first photo that can be read, of at most `side` pixels a side, as a data URI."""
    for source in images:
        try:
            photo = load_image(source, min_size=(side, side), allow_urls=allow_urls)
        except ImageError:
            continue
        photo.thumbnail((side, side))
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return None
