"""The HTTP side of `hf_tagger serve`: what comes in is checked and bounded, what goes out is the pipeline's contract.

FastAPI on uvicorn with `Batcher`, in one process.
"""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from hf_tagger.deployment.batcher import Batcher, Overloaded, Place
from hf_tagger.deployment.engines import Engine
from hf_tagger.deployment.limits import Limits
from hf_tagger.deployment.openapi import describe_tags
from hf_tagger.deployment.protection import Protection
from hf_tagger.deployment.rate_limit import RateLimit
from hf_tagger.deployment.server_metrics import ServerMetrics
from hf_tagger.model.handler import RequestError, read_request
from hf_tagger.model.products import ProductError

PATH = "/tags"
DRAIN_SECONDS = 1.0  # told to stop, but connections may have a request on its way
TEXT_FIELDS = ("text", "title", "description", "language")
MESSAGE = 500  # characters of an error: some repeat what was sent
LARGE = 2**16  # bytes of JSON that are parsed in a thread, lest everybody waits
DEEPER = np.zeros(256, np.int8)  # how much deeper a byte of JSON leads
DEEPER[list(b"[{")], DEEPER[list(b"]}")] = 1, -1


def create_app(engine: Engine, limits: Limits, batch_size: int = 32, num_workers: int = 2,
               allow_urls: bool = False, token: str | None = None) -> FastAPI:
    """The application: POST /tags, GET /health, /metrics, /docs, /openapi.json.

    Args:
        batch_size: products per run of the model.
        num_workers: threads that read photos.
        allow_urls: fetch photos from public http(s) addresses (`urls.fetch`).
        token: clients have to name it, as `Authorization: Bearer TOKEN`; None: they have not.
    """
    metrics = ServerMetrics(lambda: batcher.products, lambda: batcher.bytes)
    batcher = Batcher(engine, limits, batch_size, num_workers, allow_urls, metrics.batch)
    rate = RateLimit(limits.client_requests)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        app.state.stopped = await batcher.stop()

    # The pages that FastAPI makes of the description load their scripts from another server.
    app = FastAPI(title="hf_tagger", description="Tags of products", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.draining, app.state.stopped = False, True
    app.add_middleware(Protection, policy="default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
                       token=token, open_paths=("/health",))

    @app.exception_handler(HTTPException)
    async def error(request: Request, error: HTTPException) -> JSONResponse:
        message = error.detail if len(error.detail) <= MESSAGE else f"{error.detail[:MESSAGE]} ..."
        # What is still to come of a request that was refused early is not waited for.
        closing = {} if error.status_code in (422, 500) else {"Connection": "close"}
        return JSONResponse({"error": message}, error.status_code, closing | dict(error.headers or {}))

    @app.post(PATH, **describe_tags(engine.parameters, limits))
    async def tags(request: Request) -> Response:
        start = time.perf_counter()
        try:
            if wait := rate.wait(request.scope):
                raise HTTPException(429, f"more than {limits.client_requests} requests a minute: try again later",
                                    {"Retry-After": str(math.ceil(wait))})
            response = JSONResponse(await answer(request, batcher, limits))
        except HTTPException as refused:
            response = await error(request, refused)
        if app.state.draining:
            response.headers["Connection"] = "close"
        metrics.request(response.status_code, time.perf_counter() - start)
        return response

    @app.get("/docs", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        return HTMLResponse(Path(__file__).with_name("docs.html").read_text(encoding="utf-8"))

    @app.get("/health", response_class=PlainTextResponse, responses={503: {"description": "about to stop"}})
    async def health() -> PlainTextResponse:
        return PlainTextResponse("stopping", 503) if app.state.draining else PlainTextResponse("ok")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def answer(request: Request, batcher: Batcher, limits: Limits) -> list:
    """Tags of the products of a request. Raises HTTPException with the status that says what is wrong."""
    body = None
    try:
        with Place(batcher) as place:
            async with asyncio.timeout(limits.seconds):
                body = await read_body(request, limits, place.take)
                products, single, options = read_request(body, batcher.engine.parameters)
                if len(products) > limits.products:
                    raise HTTPException(413, f"{len(products)} products are more than the {limits.products} of a "
                                             "request: send fewer at a time")
                batcher.engine.check(options)
                options["top_k"] = min(options.get("top_k") or limits.tags, limits.tags)
                results = await batcher.tag(products, options, place)
    except TimeoutError as error:
        if body is None:
            raise HTTPException(408, f"the request took longer than {limits.seconds:g} seconds to come") from error
        raise HTTPException(503, f"tagging took longer than {limits.seconds:g} seconds: send fewer products or smaller "
                                 "photos, or try again", {"Retry-After": "10"}) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection ended before the request did") from error
    except Overloaded as error:
        raise HTTPException(503, "too much is waiting: try again", {"Retry-After": "1"}) from error
    except (RequestError, TypeError, ValueError) as error:
        raise HTTPException(422, str(error)) from error
    answers = [result if isinstance(result, list) else _failure(result) for result in results]
    if single and isinstance(results[0], Exception):
        raise HTTPException(422 if isinstance(results[0], ProductError) else 500, answers[0]["error"])
    return answers[0] if single else answers


def _failure(error: Exception) -> dict[str, str]:
    message = str(error)[:MESSAGE] if isinstance(error, ProductError) else f"tagging it failed: {type(error).__name__}"
    return {"error": message}


async def read_body(request: Request, limits: Limits, take: Callable[[int], None]) -> Any:
    """The body as `read_request` takes it: JSON, or a form with a product's fields and photos.

    Args:
        take: called with the bytes of each part as it comes.

    Raises HTTPException: 400, 413, 415; and what `take` raises.
    """
    most = int(limits.body_mb * 2**20)
    if int(request.headers.get("content-length") or 0) > most:
        raise _too_large(most)
    request = Request(request.scope, _bounded(request.receive, most, take))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        return parse_json(body, limits) if len(body) < LARGE else await asyncio.to_thread(parse_json, body, limits)
    if kind == "multipart/form-data":
        async with request.form(max_files=limits.photos, max_fields=16) as form:
            return await _read_form(form, limits)
    raise HTTPException(415, f"content type {kind!r:.80} is not read: send application/json or multipart/form-data")


def parse_json(body: bytes, limits: Limits) -> Any:
    """Decodes JSON (UTF-8), after its depth and the number of its values were looked at.

    Raises HTTPException: 400, 413.
    """
    most = limits.products * (limits.photos + 16) + 256  # products with all that they can have, and options
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in body else body
    parts = plain.split(b'"', 4 * most)[::2]  # what no string holds
    structure = b"".join(parts)
    if len(parts) > 2 * most or structure.count(b",") > most:
        raise HTTPException(413, f"the body has more than {most} values: send fewer products")
    if DEEPER[np.frombuffer(structure, np.uint8)].cumsum(dtype=np.int32).max(initial=0) > limits.depth:
        raise HTTPException(400, f"the body nests deeper than {limits.depth} lists and objects")
    try:
        return json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error


def _bounded(receive: Receive, max_bytes: int, take: Callable[[int], None]) -> Receive:
    left = max_bytes

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(max_bytes)
        take(len(message.get("body", b"")))
        return message

    return bounded


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {max_bytes} bytes: send fewer products or smaller photos")


async def _read_form(form, limits: Limits) -> dict[str, Any]:
    product: dict[str, Any] = {"images": []}
    body: dict[str, Any] = {"inputs": product}
    for name, value in form.multi_items():
        is_file = not isinstance(value, str)
        if name in ("image", "images") and is_file:
            product["images"].append(await value.read())
        elif name == "parameters" and not is_file:
            body["parameters"] = parse_json(value.encode("utf-8", "surrogatepass"), limits)
        elif name in TEXT_FIELDS and not is_file and name not in product:
            product[name] = value
        else:
            raise HTTPException(422, f"a form has {', '.join(TEXT_FIELDS)} and parameters (JSON) once each, and files "
                                     f"named image; not this {'file' if is_file else 'field'} {name!r:.80}")
    return body


class DrainingServer(uvicorn.Server):
    """Told to stop, it says so (/health, Connection: close), still answers for DRAIN_SECONDS what comes, then closes,
    and ends when everything that it took in is answered."""

    async def shutdown(self, sockets=None) -> None:
        self.config.app.state.draining = True
        until = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)
