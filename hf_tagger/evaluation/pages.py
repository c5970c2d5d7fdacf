"""HTML pages that need nothing but themselves: templates, and photos inside them."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_tagger.model.images import ImageError, load_image


def templates(folder: Path) -> Environment:
    """The templates of a folder; values are escaped, a name that is not given is an error."""
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)


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
