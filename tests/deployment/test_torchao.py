"""torchao's int8 through transformers' own quantization_config: nothing of ours stands in its way."""

import pytest
from transformers import TorchAoConfig, pipeline

from tests.deployment.test_export import PRODUCTS, bert_tagger

quantization = pytest.importorskip("torchao.quantization")


@pytest.mark.parametrize("scheme", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_linear_layers_become_int8_as_the_model_is_opened_and_the_tags_stay(tmp_path, scheme):
    model, processor = bert_tagger()
    plain = pipeline("product-tagging", model=model, processor=processor, device="cpu")
    plain.save_pretrained(tmp_path)
    config = TorchAoConfig(getattr(quantization, scheme)(version=2))
    rough = pipeline("product-tagging", model=str(tmp_path), device="cpu",
                     model_kwargs={"quantization_config": config})
    towers = [name for name, weight in rough.model.named_parameters() if type(weight.data).__name__ == "Int8Tensor"]
    assert sum(".layer." in name for name in towers) == 12  # six linear layers in each of two
    for product in PRODUCTS:
        wanted, got = (tagger(product, threshold=0.0) for tagger in (plain, rough))
        scores = {(tag["attribute"], tag["label"]): tag["score"] for tag in wanted}
        assert [tag["score"] for tag in got] == pytest.approx(
            [scores[tag["attribute"], tag["label"]] for tag in got], abs=0.05)
