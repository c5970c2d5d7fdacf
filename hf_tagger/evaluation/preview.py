"""What tags would change in a shop's file: a page with photos, and the counts. Nothing of the file is written."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hf_tagger.catalog.editing.policy import Change
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.deployment.bulk import product_rows, tag_rows
from hf_tagger.deployment.write_back import WriteBack, Written
from hf_tagger.evaluation.pages import embedded_photo, templates
from hf_tagger.evaluation.tables import decimal

SHOWN, PHOTO_SIDE, MAX_TEXT, AT_ONCE = 200, 160, 300, 256


def preview(work: WriteBack, records: Iterable[Record | Refusal], tag: Callable[[list[dict]], list], products: int,
            page: Path, title: str) -> Written:
    """Writes the page about the first so many `products` of a file; those shown are the first with a change. `tag`: as
    `bulk.tag_rows` takes it."""
    cards: list[dict[str, Any]] = []
    contents: dict[int, dict] = {}  # {row: what the model sees}, of products that may be shown

    def tagged() -> Iterator[dict]:
        rows = islice(product_rows(records), products)
        while chunk := list(islice(rows, AT_ONCE)):
            if len(cards) < SHOWN:
                contents.update({row["row"]: row["product"] for row in chunk if row["product"]})
            yield from tag_rows(chunk, tag)

    def seen(product: dict, row: Any, changes: list[Change]) -> None:
        content = contents.pop(product["row"], None)
        if len(cards) < SHOWN and any(change.what in ("added", "dropped", "refused") for change in changes):
            content = content or {"text": "", "images": []}
            photos = [photo for photo in content["images"] if not (isinstance(photo, str) and "://" in photo)]
            spoken = {change.attribute for change in changes}
            cards.append({"id": product["id"], "row": product["row"], "text": (content["text"] or "")[:MAX_TEXT],
                          "photo": embedded_photo(photos, PHOTO_SIDE), "error": product["error"], "changes": changes,
                          "abstained": [entry["name"] for entry in work.attributes if entry["name"] not in spoken]})

    for _ in work.patches(work.tagged(tagged()), seen):
        pass
    environment = templates(Path(__file__).parent)
    environment.filters["decimal"] = decimal
    html = environment.get_template("preview.html.jinja").render(
        title=title, table=work.done.table(), cards=cards, lines=work.done.lines("would change"))
    page.write_text(html, encoding="utf-8")
    return work.done
