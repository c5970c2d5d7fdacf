"""The HTTP side of `hf_tagger serve`: what comes in is checked and bounded, what goes out is the pipeline's contract.

FastAPI on uvicorn with `Batcher`, in one process.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from hf_tagger.deployment.batcher import Batcher, Overloaded, Ticket
from hf_tagger.deployment.engines import Engine
from hf_tagger.deployment.openapi import describe_tags
from hf_tagger.deployment.server_metrics import ServerMetrics
from hf_tagger.model.handler import RequestError, read_request
from hf_tagger.model.products import ProductError

PATH = "/tags"
BODY_SECONDS = 30.0  # for a client to send its request
DRAIN_SECONDS = 1.0  # told to stop, but connections may have a request on its way
TEXT_FIELDS = ("text", "title", "description", "language")


def create_app(engine: Engine, batch_size: int = 32, max_waiting: int = 128, max_body_bytes: int = 8 * 2**20,
               num_workers: int = 2, allow_urls: bool = False) -> FastAPI:
    """The application: POST /tags, GET /health, /metrics, /docs, /openapi.json.

    Args:
        batch_size: products per run of the model.
        max_waiting: products that may be under way at once; a request that would exceed it gets 503.
        max_body_bytes: of a request; a larger one gets 413.
        num_workers: threads that read photos.
        allow_urls: fetch photos from public http(s) addresses (`urls.fetch`).
    """
    metrics = ServerMetrics(lambda: batcher.waiting)
    batcher = Batcher(engine, batch_size, max_waiting, num_workers, allow_urls, metrics.batch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()

    app = FastAPI(title="hf_tagger", description="Tags of products", lifespan=lifespan)
    app.state.draining = False

    @app.exception_handler(HTTPException)
    async def error(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.post(PATH, **describe_tags(engine.parameters))
    async def tags(request: Request) -> Response:
        start = time.perf_counter()
        try:
            response = JSONResponse(await answer(request, batcher, max_body_bytes))
        except HTTPException as refused:
            response = await error(request, refused)
        if app.state.draining:
            response.headers["Connection"] = "close"
        metrics.request(response.status_code, time.perf_counter() - start)
        return response

    @app.get("/health", response_class=PlainTextResponse, responses={503: {"description": "about to stop"}})
    async def health() -> PlainTextResponse:
        return PlainTextResponse("stopping", 503) if app.state.draining else PlainTextResponse("ok")

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def answer(request: Request, batcher: Batcher, max_body_bytes: int) -> list:
    """Tags of the products of a request. Raises HTTPException with the status that says what is wrong."""
    try:
        with Ticket(batcher) as ticket:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await read_body(request, max_body_bytes)
            except TimeoutError as error:
                raise HTTPException(408, f"the request took longer than {BODY_SECONDS:.0f} seconds to come") from error
            except ClientDisconnect as error:
                raise HTTPException(400, "the connection ended before the request did") from error
            products, single, options = read_request(body, batcher.engine.parameters)
            if len(products) > batcher.max_waiting:
                raise HTTPException(413, f"{len(products)} products are more than the {batcher.max_waiting} that may "
                                         "be under way at once: send fewer at a time")
            batcher.engine.check(options)
            results = [_result(result) for result in await ticket.tag(products, options)]
    except Overloaded as error:
        raise HTTPException(503, "too many products are waiting: try again", {"Retry-After": "1"}) from error
    except (RequestError, TypeError, ValueError) as error:
        raise HTTPException(422, str(error)) from error
    failed = next((result["status"] for result in results if "status" in result), None)
    if single and failed:
        raise HTTPException(failed, results[0]["error"])
    answers = [result["tags"] if "tags" in result else {"error": result["error"]} for result in results]
    return answers[0] if single else answers


def _result(result: list[dict] | Exception) -> dict[str, Any]:
    if isinstance(result, list):
        return {"tags": result}
    if isinstance(result, ProductError):
        return {"status": 422, "error": str(result)}
    return {"status": 500, "error": f"tagging it failed: {type(result).__name__}"}


async def read_body(request: Request, max_bytes: int) -> Any:
    """The body as `read_request` takes it: JSON, or a form with a product's fields and photos.

    Raises HTTPException: 400, 413, 415.
    """
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise _too_large(max_bytes)
    request = Request(request.scope, _bounded(request.receive, max_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            return json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the body is not JSON: {error}") from error
    if kind == "multipart/form-data":
        async with request.form(max_files=64, max_fields=16) as form:
            return await _read_form(form)
    raise HTTPException(415, f"content type {kind!r} is not read: send application/json or multipart/form-data")


def _bounded(receive: Receive, max_bytes: int) -> Receive:
    left = max_bytes

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large(max_bytes)
        return message

    return bounded


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {max_bytes} bytes: send fewer products or smaller photos")


async def _read_form(form) -> dict[str, Any]:
    product: dict[str, Any] = {"images": []}
    body: dict[str, Any] = {"inputs": product}
    for name, value in form.multi_items():
        is_file = not isinstance(value, str)
        if name in ("image", "images") and is_file:
            product["images"].append(await value.read())
        elif name == "parameters" and not is_file:
            try:
                body["parameters"] = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise HTTPException(400, f"parameters is not JSON: {error}") from error
        elif name in TEXT_FIELDS and not is_file and name not in product:
            product[name] = value
        else:
            raise HTTPException(422, f"a form has {', '.join(TEXT_FIELDS)} and parameters (JSON) once each, and files "
                                     f"named image; not this {'file' if is_file else 'field'} {name!r}")
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
