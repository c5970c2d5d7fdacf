"""What a server answers by `answer`, as the handler of Inference Endpoints does (without hf_tagger: test_saving.py)."""

import base64
import io

import pytest
from transformers import pipeline

import hf_tagger  # noqa: F401 (registers the pipeline)
from hf_tagger.model.handler import RequestError
from hf_tagger.model.products import ProductError
from tests.tiny_tagger import photo, tiny_model, tiny_processor


@pytest.fixture(scope="module")
def tagger():
    return pipeline("product-tagging", model=tiny_model().eval(), processor=tiny_processor(), device="cpu")


@pytest.fixture(scope="module")
def product():
    file = io.BytesIO()
    photo("Blue", "Dress").save(file, "JPEG")
    return {"title": "blue dress", "image": base64.b64encode(file.getvalue()).decode()}


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
