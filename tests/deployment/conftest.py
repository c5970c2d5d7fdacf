"""An exported tagger for all tests that only run one."""

import pytest

from hf_tagger.deployment.quantize import Quantizer
from hf_tagger.runtime import OnnxTagger
from tests.deployment.test_export import PRODUCTS, batch_of


@pytest.fixture(scope="session")
def saved(exported):
    """A model's folder with its export in float32 and in int8."""
    tagger = OnnxTagger(exported, threads=1)
    feeds = [tagger.feed(**batch_of(tagger, PRODUCTS))]
    Quantizer(exported, feeds).write(exported.with_name("onnx_int8"))
    return exported.parent
