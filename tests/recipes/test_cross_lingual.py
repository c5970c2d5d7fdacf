"""The recipe with two tiny encoders: what is left out is left out, and both tables agree."""

import json

import numpy as np
import pytest

from hf_tagger.catalog.synthetic.products import generate
from hf_tagger.training.refit import RefittedHeads
from recipes import cross_lingual
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHOP = {"rows": 240, "picture_size": 0, "languages": ["en", "zh"], "label_noise": 0.0}


def config(folder, **synthetic):
    return write_config(folder / "config.yaml", {"synthetic": SHOP | synthetic}, output_dir=str(folder / "out"),
                        model={"vision_backbone": None, "lexical": {"buckets": 4096}},
                        phases=[{"train": ["heads"], "cached_views": 1, "epochs": 2, "batch_size": 32}],
                        training={"loader": {"num_workers": 0}})  # fmt: skip


ENCODERS = ["--encoder", "scratch:gru", "", "--encoder", "scratch:bert-tiny", "query: "]


def test_a_language_is_scored_with_and_without_it_in_training(tmp_path, capsys, monkeypatch):
    fits, fit = [], RefittedHeads.fit
    language_of = {row["id"]: row["language"] for row in generate(**SHOP)}

    def watched(heads, rows):
        fits.append({heads.split_of[row] for row in rows} | {language_of[heads.ids[row]] for row in rows})
        return fit(heads, rows)

    monkeypatch.setattr(RefittedHeads, "fit", watched)
    arguments = [str(config(tmp_path)), *ENCODERS, "--metric", "category/accuracy"]
    assert cross_lingual.main(arguments) == 0
    scores = json.loads((tmp_path / "out" / "cross_lingual.json").read_text())
    assert list(scores) == ["scratch:gru", "scratch:bert-tiny"] and set(scores["scratch:gru"]) == {"en", "zh"}
    assert [sorted(each - {"train"}) for each in fits[:1]] == [["en", "zh"]]
    left_out = [next(iter({"en", "zh"} - each)) for each in fits[1:3]]
    assert left_out == list(scores["scratch:gru"]) and all("test" not in each for each in fits)
    # Untrained encoders know nothing; words do, and those of Chinese are learned from Chinese products alone.
    chinese = scores["scratch:gru"]["zh"]
    assert chinese["all languages"]["category/accuracy"] > chinese["left out"]["category/accuracy"] + 0.1
    table = (tmp_path / "out" / "cross_lingual.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[4:]]
    assert [row[0] for row in rows] == [*scores["scratch:gru"], "mean"]
    numbers = np.array([[float(value) for value in row[1:]] for row in rows])
    assert numbers.shape == (3, 6) and np.allclose(numbers[:2].mean(0), numbers[2], atol=1e-3)
    first = next(iter(scores["scratch:gru"].values()))
    assert numbers[0, 0] == pytest.approx(first["all languages"]["category/accuracy"], abs=1e-3)


def test_one_language_is_nothing_to_leave_out(tmp_path, capsys):
    assert cross_lingual.main([str(config(tmp_path, languages=["en"])), *ENCODERS[:3]]) == 2
    assert "products in at least two languages" in capsys.readouterr().err
