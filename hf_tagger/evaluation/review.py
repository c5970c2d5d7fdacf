"""The suspects of `label_issues` for a person to check: a parquet file, and an HTML page with photos that works
offline. On the page corrections are chosen and saved as a file for `catalog.labels`."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.evaluation.label_issues import LabelIssues, tag_path
from hf_tagger.evaluation.pages import embedded_photo, first_records, templates

PHOTO_SIDE = 240
MAX_TEXT = 600
SCHEMA = pa.schema([
    ("id", pa.string()), ("attribute", pa.string()), ("given", pa.list_(pa.string())),
    ("suggested", pa.list_(pa.string())), ("score", pa.float32()), ("rank", pa.int32()),
])


def write_suspects(path: Path, issues: LabelIssues, ids: list[str]) -> None:
    """All suspects as parquet: id, attribute, given and suggested tags ([] is none), score, rank from 1."""
    rows = [{"id": ids[suspect.row], "attribute": suspect.attribute, "given": suspect.given,
             "suggested": suspect.suggested, "score": suspect.score, "rank": rank}
            for rank, suspect in enumerate(issues.suspects, 1)]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)


def write_review(
    path: Path, issues: LabelIssues, ids: list[str], attributes: list[dict], records: Iterable, most: int, title: str,
    allow_urls: bool = False,
) -> None:
    """Writes the page of the `most` suspicious ones; a photo takes about 10 kB of it.

    Args:
        ids: product ids by the suspects' rows.
        records: of the split the suspects are from; read once, for texts and photos.
    """
    shown = issues.suspects[:most]
    products = {record["id"]: {"text": (record["text"] or "")[:MAX_TEXT], "language": record["language"] or "",
                               "photo": embedded_photo(record["images"], PHOTO_SIDE, allow_urls)}
                for record in first_records(records, [ids[suspect.row] for suspect in shown])}
    page = templates(Path(__file__).parent).get_template("review.html.jinja").render(
        title=title,
        cards=[vars(suspect) | products[ids[suspect.row]] | {"number": number, "id": ids[suspect.row]}
               for number, suspect in enumerate(shown)],
        attributes={entry["name"]: {"kind": entry["kind"], "tags": tag_path(entry, entry["tags"])}
                    for entry in attributes},
        issues=issues,
        total=len(issues.suspects),
    )
    path.write_text(page, encoding="utf-8")
