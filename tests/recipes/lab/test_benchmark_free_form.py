import json
import time

import pytest
import yaml

from hf_tagger.catalog.synthetic.products import catalog_schema, write_catalog
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab import benchmark_free_form
from tests.tiny_tagger import tiny_model, tiny_processor
from tests.tiny_writer import add_tiny_decoder, writing_tagger


@pytest.fixture
def config(tmp_path):
    write_catalog(tmp_path / "shop", rows=60, picture_size=32)
    files = {split: str(tmp_path / "shop" / f"{split}-*.parquet") for split in ("train", "validation", "test")}
    catalog = {"source": {"files": files}, "schema": catalog_schema()}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"catalog": catalog}))
    return path


def test_it_measures_a_product_and_a_step_with_and_without_a_trie(config, tmp_path, capsys):
    model, processor = tiny_model(), tiny_processor()
    add_tiny_decoder(model, processor)
    ProductTaggingPipeline(model, processor=processor).save_pretrained(tmp_path / "model")
    arguments = [str(tmp_path / "model"), str(config), "--split", "train", "--products", "4", "--trie_tags", "200"]
    arguments += ["--batch_size", "2", "--against", str(tmp_path / "model")]
    start = time.perf_counter()
    assert benchmark_free_form.main(arguments) == 0
    elapsed = time.perf_counter() - start
    result = json.loads(capsys.readouterr().out)
    assert result["order_sensitivity"] == {"f1_range": 0.0, "agreement": 1.0}
    latency, trie = result["latency"], result["trie"]
    assert latency["products"] == 4 and 2 * latency["p50_ms"] / 1000 < elapsed and 0 < latency["encoder_share"] < 1
    weights = {name: weight.numel() for name, weight in model.named_parameters()}
    assert latency["parameters"] == sum(weights.values())
    assert latency["decoder_parameters"] == sum(size for name, size in weights.items() if name.startswith("decoder"))
    assert trie["tags"] == 200
    assert sum(5 * trie[name] for name in ("step_ms", "step_with_trie_ms", "step_with_prior_ms")) / 1000 < elapsed


def test_two_taggers_that_write_differently_do_not_pass_for_one(tmp_path):
    model, processor = writing_tagger()
    folders = [str(tmp_path / name) for name in ("learned", "dumb")]
    learned = ProductTaggingPipeline(model, processor=processor)
    learned.save_pretrained(folders[0])
    tags = [tag["label"] for tag in learned("red mug", free_form=True, threshold=1.0, min_score=0.0)]
    model.decoder.stack.embed_tokens.weight.data.zero_()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folders[1])
    records = [{"text": "red mug", "images": [], "free_form": {"keywords": tags}}]
    found = benchmark_free_form.order_sensitivity(folders, records)
    assert found["agreement"] < 1 and found["f1_range"] > 0
