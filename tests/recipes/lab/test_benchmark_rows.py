import time

import yaml

from hf_tagger.catalog.settings import open_catalog
from hf_tagger.training.arguments import load_run
from recipes.lab.benchmark_rows import MostOnDisk, make


def test_the_catalogue_is_one_that_finetune_reads(tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.lab.benchmark_rows.DRAWN", 60)
    make(tmp_path / "shop", 120, budget=3.0)
    settings, _ = load_run(str(tmp_path / "shop" / "my.yaml"), [])
    assert settings.budget == 3.0 and [phase.moves_towers for phase in settings.phases] == [False, True]
    records = list(open_catalog(settings.catalog, tmp_path).records("train"))
    assert 80 < len(records) < 110 and len({record["id"] for record in records}) == len(records)
    assert all(record["tags"]["line"][0] in record["text"] for record in records if record["text"])
    assert any(record["images"] for record in records)
    assert "free_form" not in yaml.safe_load((tmp_path / "shop" / "my.yaml").read_text())["catalog"]["schema"]


def test_the_most_that_lay_on_disk_is_told(tmp_path):
    (tmp_path / "large").write_bytes(bytes(3 * 2**20))
    with MostOnDisk(tmp_path, seconds=0.02) as disk:
        until = time.monotonic() + 60
        while disk.megabytes < 3 and time.monotonic() < until:
            time.sleep(0.02)
        (tmp_path / "large").unlink()
        time.sleep(0.2)
    assert disk.megabytes == 3
