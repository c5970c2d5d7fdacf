"""Rows of a made-up shop that `tests.tiny_tagger` can read, and configurations of tiny runs."""

from pathlib import Path

import yaml

from hf_tagger.catalog.synthetic.pictures import encode_jpeg
from tests.catalog.files import write_parquet
from tests.tiny_tagger import photo

SCHEMA = {
    "id": "sku", "text": ["title"], "images": ["image"], "language_column": "language",
    "attributes": {"colour": {}, "category": {}, "features": {"kind": "multi", "format": "list"}},
}  # fmt: skip
LOADER = {"batch_size": 8, "shuffle_buffer": 40, "bucket_batches": 2, "num_workers": 0}


def shop_rows(start, stop):
    """Red and blue mugs and dresses, waterproof or handmade; now and then a teal one, which no tagger here knows."""
    rows = []
    for number in range(start, stop):
        colour, category = ["Red", "Blue"][number % 2], ["Mug", "Dress"][number // 2 % 2]
        features = [tag for place, tag in ((2, "Waterproof"), (3, "Handmade")) if number >> place & 1]
        title = " ".join([colour, category, *features]).lower()
        rows.append({
            "sku": f"p{number:03d}", "title": title if number % 8 else None, "language": "en" if number % 3 else "de",
            "brand": "Acme" if number % 4 else None, "features": features,
            "colour": "Teal" if number % 20 == 7 else colour, "category": category if number % 9 else None,
            "image": encode_jpeg(photo(colour, category, seed=number)) if number % 7 else None,
        })  # fmt: skip
    return [row for row in rows if row["title"] or row["image"]]


def write_splits(folder: Path) -> dict[str, str]:
    """{split: parquet file} of a shop."""
    return {split: str(write_parquet(folder / f"{split}.parquet", shop_rows(*rows)))
            for split, rows in {"train": (0, 160), "validation": (160, 200), "test": (200, 260)}.items()}


def write_config(path: Path, catalog: dict, **changes) -> Path:
    """A configuration of recipes/finetune.py; what is a section in `changes` is put into that section."""
    data = {"catalog": catalog, "seed": 3, "lora": None}
    data["model"] = {"text_backbone": "scratch:lstm", "vision_backbone": "scratch:test_resnet", "image_size": [32, 32],
                     "hidden_size": 32, "max_length": 24, "lexical": {"buckets": 512}}  # fmt: skip
    data["training"] = {"loader": LOADER, "metric": "micro_f1",
                        "text_augmentation": {"word_dropout": 0.1, "label_masking": 0.3}, "gradient_accumulation": 2,
                        "checkpoint_steps": 3}  # fmt: skip
    for name, value in changes.items():
        data[name] = data[name] | value if isinstance(data.get(name), dict) else value
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path
