"""A made-up catalogue as many shops export theirs: CSV files, lists with a delimiter, a folder of photos."""

import csv

from hf_tagger.catalog.synthetic.products import SPLITS, catalog_schema, generate


def write_csv_shop(folder, **options) -> dict:
    """Writes train.csv, validation.csv, test.csv and photos/; returns the `catalog` section that reads them."""
    (folder / "photos").mkdir(parents=True)
    rows = list(generate(**options))
    for row in rows:
        if row["image"] is not None:
            path = f"photos/{row['id']}.jpg"
            (folder / path).write_bytes(row["image"])
            row["image"] = path
        if row["features"] is not None:
            row["features"] = "|".join(row["features"]) or "Basic"
        row["keywords"] = "|".join(row["keywords"] or ()) or None
    files = {split: folder / f"{split}.csv" for split in SPLITS}
    for split, path in files.items():
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [name for name in rows[0] if name != "split"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in rows if row["split"] == split)
    schema = catalog_schema()
    schema["attributes"]["features"] = {"kind": "multi", "format": "delimited", "delimiter": "|",
                                        "none_values": ["Basic"]}  # fmt: skip
    schema["free_form"]["columns"]["keywords"] = {"format": "delimited", "delimiter": "|"}
    return {"source": {"files": {split: str(path) for split, path in files.items()}}, "schema": schema}
