"""Free-form tags of an exported tagger are those that torch writes greedily, in every mode, and torch is not needed."""

import pytest
import torch
from transformers import pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.deployment.export import export_tagger
from hf_tagger.deployment.quantize import quantize_tagger
from hf_tagger.runtime import OnnxTagger, model_fingerprint
from tests.deployment.test_export import PRODUCTS, batch_of, bert_tagger
from tests.tiny_tagger import photo
from tests.tiny_writer import add_tiny_decoder, teach_to_write

OPTIONS = [
    {"free_form": True},
    {"free_form": True, "language": "de", "max_tags": 2},
    {"free_form": True, "attributes": ["colour", "category"], "language": "en", "threshold": 1.0, "min_score": 0.0},
    {"free_form": True, "constrained": True, "threshold": 0.2},
    {"free_form": True, "constrained": True, "attributes": ["colour"], "max_tags": 1, "max_new_tokens": 20},
    {"free_form": True, "top_k": 2, "max_new_tokens": 5, "num_beams": 1, "do_sample": False},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a model that has learned to write, with its exports."""
    folder = tmp_path_factory.mktemp("writer")
    model, processor = bert_tagger()
    add_tiny_decoder(model, processor, calibration=[0.5, 1.0], min_score=0.0)
    teach_to_write(model, processor, steps=120)
    pipeline("product-tagging", model=model, processor=processor, device="cpu").save_pretrained(folder)
    export_tagger(model, processor, folder / "onnx", model_fingerprint(folder))
    exported = OnnxTagger(folder / "onnx", threads=1)
    quantize_tagger(folder / "onnx", folder / "onnx_int8", [exported.feed(**batch_of(exported, PRODUCTS))])
    return folder


@pytest.fixture(scope="module")
def plain(saved):
    tagger = pipeline("product-tagging", model=str(saved), device="cpu")
    tagger.autocast = lambda: torch.autocast("cpu", enabled=False)
    return tagger


def told(tags):
    return [(tag["label"], tag["attribute"], tag["source"]) for tag in tags]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_tags_in_the_same_order_with_the_same_scores(saved, plain, options):
    products = [*PRODUCTS, {"title": "blue mug", "language": "de", "image": photo("Blue", "Mug", seed=5)}]
    wanted = plain(products, **options)
    assert any(tag["source"] == "generated" for tags in wanted for tag in tags)
    alone = OnnxTagger(saved / "onnx", threads=1)
    backend = pipeline("product-tagging", model=str(saved), backend="onnx", device="cpu")
    for found in (alone(products, **options), backend(products, **options),
                  [alone(product, **options) for product in products]):
        assert [told(tags) for tags in found] == [told(tags) for tags in wanted]
        for got, expected in zip(found, wanted, strict=True):
            assert [tag["score"] for tag in got] == pytest.approx([tag["score"] for tag in expected], abs=1e-4)
