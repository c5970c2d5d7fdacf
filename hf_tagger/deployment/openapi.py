"""How `hf_tagger serve` describes itself: the OpenAPI schema of a request for tags and of its answer."""

from typing import Any

from hf_tagger.deployment.limits import Limits
from hf_tagger.model.handler import MAX_CHARACTERS

_TEXT = {"type": "string", "maxLength": MAX_CHARACTERS}
_PHOTO = {"type": "string", "description": "base64 of a JPEG, PNG, WebP ...; a URL where the server allows these"}
_TEXTS = {"text": {**_TEXT, "description": "in place of title and description"}, "title": _TEXT, "description": _TEXT,
          "language": {"type": "string", "description": "the one that free-form tags are wanted in"}}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "top_k": {"type": "integer", "minimum": 1, "description": "at most so many tags per product"},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1,
                  "description": "lowest score listed, in place of the model's own thresholds"},
    "attributes": {"type": "array", "items": {"type": "string"}, "description": "attributes wanted"},
    "free_form": {"type": "boolean", "description": "also list tags that the model's decoder writes"},
    "language": {"type": "string", "description": "what written tags are written in"},
    "constrained": {"type": "boolean", "description": "write closed tags only"},
    "max_tags": {"type": "integer", "minimum": 1, "description": "at most so many written tags per product"},
    "min_score": {"type": "number", "minimum": 0, "maximum": 1, "description": "lowest score of a written tag"},
}
_TAGS = {
    "type": "array",
    "description": "sorted by score",
    "items": {
        "type": "object",
        "required": ["label", "score", "attribute", "source"],
        "properties": {
            "label": {"type": "string"},
            "score": {"type": "number"},
            "attribute": {"type": ["string", "null"], "description": "null: a free-form tag"},
            "source": {"enum": ["vocabulary", "generated"]},
        },
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_ANSWER = {"oneOf": [_TAGS, {"type": "array", "items": {"oneOf": [_TAGS, _ERROR]}}]}
_STATUSES = {
    400: "not JSON, or a damaged form", 401: "the token is missing, where the server asks for one",
    408: "the request came too slowly", 413: "too large a body, or too many products", 415: "another content type",
    422: "a request, option or single product that cannot be understood",
    429: "too many requests of this client, where the server counts them; Retry-After", 431: "too long headers",
    500: "tagging a single product failed", 503: "too much is waiting; Retry-After says when to try again",
}


def describe_tags(parameters: tuple[str, ...], limits: Limits) -> dict[str, Any]:
    """Keywords of `FastAPI.post` for the route that answers with tags, given the options that a request may have."""
    photos = {"type": "array", "items": _PHOTO, "maxItems": limits.photos}
    product = {"type": "object", "additionalProperties": False,
               "properties": {**_TEXTS, "image": _PHOTO, "images": photos}}
    kinds = [{"type": "string", "description": "the text"}, product]
    options = {"type": "object", "additionalProperties": False,
               "properties": {name: _PARAMETERS[name] for name in parameters}}
    body = {"type": "object", "required": ["inputs"], "additionalProperties": False, "properties": {
        "inputs": {"oneOf": [*kinds, {"type": "array", "items": {"oneOf": kinds}, "maxItems": limits.products}]},
        "parameters": options}}
    form = {"type": "object", "properties": {
        **_TEXTS, "image": photos | {"items": {"type": "string", "format": "binary"}},
        "parameters": {"type": "string", "description": "JSON, as in an application/json body"}}}
    content = {"application/json": {"schema": body}, "multipart/form-data": {"schema": form}}
    responses = {status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
                 for status, text in _STATUSES.items()}
    responses[200] = {"description": "one product's tags, or for a list of products a list of these, with an error in "
                                     "place of a product that cannot be tagged",
                      "content": {"application/json": {"schema": _ANSWER}}}
    return {"summary": "Tags of a product, or of a list of products", "responses": responses,
            "openapi_extra": {"requestBody": {"required": True, "content": content}}}
