"""Requests for tags as JSON, in the form of Hugging Face Inference Endpoints: {"inputs": product or [products],
"parameters": {options}}; no file is ever opened for one. `hf_tagger serve` answers such requests, and so does an
endpoint, by `EndpointHandler`: `tagger.save_pretrained(folder, handler=True)` and `tagger.push_to_hub(repository,
handler=True)` put this file into the model's repository.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

try:
    from .products import ProductError
    from .text import did_you_mean
except ImportError:  # an endpoint runs this file alone, and needs nothing but its class
    ProductError, did_you_mean = ValueError, None

BODY_KEYS = ("inputs", "parameters")
# Of a product. What else the pipeline reads may name files, or take minutes (audio): a request has none of it.
REQUEST_KEYS = ("text", "title", "description", "language", "image", "images")
CLOSED_PARAMETERS = ("top_k", "threshold", "attributes")
# Not among them: what a stranger must not decide (URLs), and what takes unbounded time (options of `generate`).
PARAMETERS = (*CLOSED_PARAMETERS, "free_form", "language", "constrained", "max_tags", "min_score")
MAX_PHOTOS = 8  # of a product
MAX_CHARACTERS = 50_000  # of a text: tokenizing one takes time in proportion


class RequestError(ValueError):
    """A request that cannot be answered as a whole: the message says what is wrong with it."""


def read_request(body: Any, parameters: tuple[str, ...] = PARAMETERS) -> tuple[list, bool, dict[str, Any]]:
    """A decoded JSON body -> (products, whether the answer is that of a single one, options). Raises RequestError for
    anything but {"inputs": ..., "parameters": {...}} with options among `parameters`; their values are not looked
    at."""
    if not isinstance(body, Mapping) or "inputs" not in body:
        raise RequestError('the body must be {"inputs": a product or a list of products, "parameters": {options}}')
    for key in body:
        if key not in BODY_KEYS:
            raise RequestError(f"unknown key {key!r:.80}.{did_you_mean(key, BODY_KEYS)}")
    options = body.get("parameters") or {}
    if not isinstance(options, Mapping):
        raise RequestError(f"parameters must be an object, got {type(options).__name__}")
    for name in options:
        if name not in parameters:
            raise RequestError(f"unknown parameter {name!r:.80}.{did_you_mean(name, parameters)}")
    inputs = body["inputs"]
    return (inputs, False, dict(options)) if isinstance(inputs, list) else ([inputs], True, dict(options))


def count_photos(product: Any) -> int:
    """How many a product of a request has, whether or not they can be read."""
    if not isinstance(product, Mapping):
        return 0
    images = product.get("images")
    return (product.get("image") is not None) + (len(images) if isinstance(images, list) else 0)


def decode_product(product: Any, allow_urls: bool = False, max_photos: int = MAX_PHOTOS) -> Any:
    """A product of a request -> one for the pipeline: photos are bytes, or URLs where these are allowed.

    Raises ProductError for a photo that is neither, more than `max_photos`, an overlong text, and a key that requests
    do not have.
    """
    if isinstance(product, str):
        product = {"text": product}
    if not isinstance(product, Mapping):
        return product  # `read_product` says what is wrong with it
    for name, value in product.items():
        if name not in REQUEST_KEYS:
            raise ProductError(f"unknown key {name!r:.80}.{did_you_mean(name, REQUEST_KEYS)}")
        if isinstance(value, str) and not name.startswith("image") and len(value) > MAX_CHARACTERS:
            raise ProductError(f"{name} has {len(value)} characters, more than {MAX_CHARACTERS}; shorten it")
    if (count := count_photos(product)) > max_photos:
        raise ProductError(f"{count} photos are more than the {max_photos} that a product may have; send the best ones")
    decoded = dict(product)
    if product.get("image") is not None:
        decoded["image"] = _photo(product["image"], "image", allow_urls)
    if isinstance(product.get("images"), list | tuple):
        decoded["images"] = [_photo(photo, f"image {number}", allow_urls)
                             for number, photo in enumerate(product["images"])]
    return decoded


def _photo(photo: Any, name: str, allow_urls: bool) -> bytes | str:
    if isinstance(photo, bytes):
        return photo
    if not isinstance(photo, str):
        raise ProductError(f"{name} must be a base64 string, got {type(photo).__name__}")
    if photo.lower().startswith(("http://", "https://")):
        if not allow_urls:
            raise ProductError(f"{name} is a URL, and this server fetches none; send the photo itself, in base64")
        return photo
    data = photo.partition(",")[2] if photo.startswith("data:") else photo
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProductError(f"{name} is not base64 ({error}); send the photo's bytes in base64, no path") from error


def answer_request(tagger, body: Any) -> list:
    """What a tagger (`ProductTaggingPipeline`) says to a decoded JSON body: a product's tags, or for a list of products
    a list of these, with {"error": message} in place of one that cannot be read.

    Raises RequestError, ProductError for a single product, and what the tagger raises for options of wrong values.
    """
    products, single, options = read_request(body)
    if single:
        return tagger(decode_product(products[0]), **options)
    decoded = [_decoded(product) for product in products]
    whole = [product for product in decoded if not isinstance(product, ProductError)]
    tagged = iter(tagger(whole, on_error="skip", **options) if whole else ())
    return [{"error": str(product)} if isinstance(product, ProductError) else next(tagged) for product in decoded]


def _decoded(product: Any) -> Any:
    try:
        return decode_product(product)
    except ProductError as error:
        return error


class EndpointHandler:
    def __init__(self, path=""):
        from transformers import pipeline

        # The code is that of the folder this file was itself run from.
        self.tagger = pipeline("product-tagging", model=path, trust_remote_code=True)

    def __call__(self, data):
        """A decoded request -> the tags of its product, or for a list of products a list of these, or {"error": ...}.

        Raises ValueError or TypeError, which the endpoint answers with status 400, for a request that cannot be
        understood.
        """
        return self.tagger.answer(data)


__all__ = ["EndpointHandler", "RequestError", "answer_request", "decode_product", "read_request"]
