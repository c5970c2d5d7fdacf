"""An exported tagger for all tests that only run one: exporting takes a third of a minute of computing."""

import fcntl
import os

import pytest
from transformers import pipeline

from hf_tagger.deployment.export import export_tagger
from hf_tagger.deployment.quantize import Quantizer
from hf_tagger.runtime import TAGGER, OnnxTagger, model_fingerprint
from tests.deployment.test_export import PRODUCTS, batch_of, bert_tagger


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The folder `onnx` in that of its model. Of the processes that run tests, the first to ask makes it for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "exported_tagger"
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "onnx" / TAGGER).exists():
            model, processor = bert_tagger()
            pipeline("product-tagging", model=model, processor=processor, device="cpu").save_pretrained(folder)
            export_tagger(model, processor, folder / "onnx", model_fingerprint(folder))
    return folder / "onnx"


@pytest.fixture(scope="session")
def saved(exported):
    """A model's folder with its export in float32 and in int8."""
    tagger = OnnxTagger(exported, threads=1)
    feeds = [tagger.feed(**batch_of(tagger, PRODUCTS))]
    Quantizer(exported, feeds).write(exported.with_name("onnx_int8"))
    return exported.parent
