import json

import pytest

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab import benchmark_tagging
from tests.tiny_tagger import tiny_model, tiny_processor

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("catalog: {synthetic: {rows: 200, picture_size: 48}}\nloader: {num_workers: 0}\n")
    return str(path)


def test_the_pipeline_is_timed_one_by_one_and_in_batches_and_evaluation_in_turns_with_it(tmp_path, config, capsys):
    ProductTaggingPipeline(tiny_model(), processor=tiny_processor()).save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), config, "--products", "10", "--repeats", "2"]
    assert benchmark_tagging.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["split"] == "test" and found["pipeline"]["products"] == 10
    assert set(found["pipeline"]["rows_per_second"]) == {"1", "32"}
    assert all(1 < speed < 100_000 for speed in found["pipeline"]["rows_per_second"].values())
    evaluation = found["evaluation"]
    assert evaluation["batch_size"] == 32 and 10 < evaluation["products"] < 160, "the whole split, and no other"
    ratio = evaluation["rows_per_second"] / evaluation["pipeline_rows_per_second"]
    assert evaluation["ratio"] == pytest.approx(ratio, rel=0.5)


def test_a_missing_model_and_a_missing_split_are_errors(tmp_path, config, capsys):
    assert benchmark_tagging.main(["runs/none", config, "--split", "tset"]) == 2
    assert "there is no split 'tset'" in capsys.readouterr().err
    assert benchmark_tagging.main([str(tmp_path / "none"), config]) == 2
    assert "there is no model folder" in capsys.readouterr().err
