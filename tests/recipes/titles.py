"""A catalogue of titles alone, which tell colour and type."""

COLOURS, TYPES = ("Red", "Blue", "Green"), ("Mug", "Dress", "Bag")
SCHEMA = {"id": "id", "text": ["title"], "attributes": {
    "colour": {"kind": "single", "tags": list(COLOURS)}, "type": {"kind": "single", "tags": list(TYPES)}}}  # fmt: skip


def rows(count, labelled=True):
    for number in range(count):
        colour, kind = COLOURS[number % 3], TYPES[number // 3 % 3]
        yield {"id": f"{labelled}{number}", "title": f"{colour.lower()} {kind.lower()} {number}",
               "colour": colour if labelled else None, "type": kind if labelled else None}  # fmt: skip


def catalogue(folder, train):
    files = {"train": str(folder / f"{train}.parquet"), "validation": str(folder / "validation.parquet")}
    return {"source": {"files": files}, "schema": SCHEMA}
