"""The handler that Inference Endpoints find in a model's folder, run as they run it: without hf_tagger installed."""

import base64
import io
import json
import subprocess
import sys

import pytest
from transformers import pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.model.handler import RequestError
from hf_tagger.model.products import ProductError
from tests.tiny_tagger import photo, tiny_model, tiny_processor

AS_THE_ENDPOINT_DOES = """
import importlib.util, json, sys

sys.modules["hf_tagger"] = sys.modules["ftfy"] = None  # importing them is an error from here on
folder, requests = sys.argv[1], json.loads(sys.stdin.read())
sys.path.insert(0, folder)
spec = importlib.util.spec_from_file_location("handler", folder + "/handler.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
handler = module.EndpointHandler(folder)
print(json.dumps([handler(request) for request in requests]))
"""


@pytest.fixture(scope="module")
def tagger():
    return pipeline("product-tagging", model=tiny_model().eval(), processor=tiny_processor(), device="cpu")


@pytest.fixture(scope="module")
def product():
    file = io.BytesIO()
    photo("Blue", "Dress").save(file, "JPEG")
    return {"title": "blue dress", "image": base64.b64encode(file.getvalue()).decode()}


def test_a_saved_folder_answers_requests_with_its_own_code(tagger, product, tmp_path):
    tagger.save_pretrained(tmp_path / "plain")
    assert not (tmp_path / "plain" / "handler.py").exists()
    tagger.save_pretrained(tmp_path / "model", handler=True)
    # One that is saved from that folder keeps it.
    pipeline("product-tagging", model=str(tmp_path / "model"), device="cpu").save_pretrained(tmp_path / "again")
    options = {"threshold": 0, "top_k": 3}
    requests = [{"inputs": product, "parameters": options}, {"inputs": "red mug", "parameters": options},
                {"inputs": [product, {"image": "/etc/hostname"}], "parameters": options}]
    done = subprocess.run([sys.executable, "-c", AS_THE_ENDPOINT_DOES, str(tmp_path / "again")], cwd=tmp_path,
                          input=json.dumps(requests), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = [tagger.answer(request) for request in requests]
    assert wanted[0] == tagger({**product, "image": base64.b64decode(product["image"])}, **options)
    assert "base64" in found[2].pop()["error"] and "base64" in wanted[2].pop()["error"]
    for one, other in zip([*found[:2], *found[2]], [*wanted[:2], *wanted[2]], strict=True):
        assert [tag["label"] for tag in one] == [tag["label"] for tag in other]
        assert [tag["score"] for tag in one] == pytest.approx([tag["score"] for tag in other], abs=1e-5)


@pytest.mark.parametrize(("request_", "error"), [
    ({"input": "red mug"}, RequestError),
    ("red mug", RequestError),
    ({"inputs": "red mug", "parameters": {"allow_urls": True}}, RequestError),
    ({"inputs": "red mug", "parameters": {"user_history": []}}, RequestError),
    ({"inputs": "red mug", "parameters": {"top_k": 0}}, ValueError),
    ({"inputs": {"image": "/etc/hostname"}}, ProductError),
    ({"inputs": {"image": {"path": "/etc/hostname"}}}, ProductError),
    ({"inputs": {"image": "http://127.0.0.1/"}}, ProductError),
    ({"inputs": {"title": "red mug", "audio": "/etc/hostname"}}, ProductError),
    ({"inputs": 5}, ProductError),
])
def test_what_cannot_be_answered_is_refused(tagger, request_, error):
    with pytest.raises(error):
        tagger.answer(request_)


def test_photos_of_a_product_are_counted_before_any_is_read(tagger, product):
    assert tagger.answer({"inputs": {"images": [product["image"]] * 8}})
    with pytest.raises(ProductError, match="9 photos are more than the 8"):
        tagger.answer({"inputs": {"images": [product["image"]] * 9}})
