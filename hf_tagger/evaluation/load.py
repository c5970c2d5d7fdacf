"""How a server of tags bears clients: latency and rows per second beside those of its model without a server."""

import base64
import http.client
import io
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np

from hf_tagger import UserError
from hf_tagger.deployment.engines import Engine
from hf_tagger.model.images import load_image
from hf_tagger.model.products import tag_stream


class ServerError(UserError):
    """A server that did not start, or did not answer as it should."""


@contextmanager
def running_server(model: str, threads: int, *arguments: str) -> Iterator[tuple[int, float]]:
    """`hf_tagger serve` in a process of its own, on a free port of this machine's loopback address.

    Yields the port and the seconds from its start to its first answer.
    """
    command = [sys.executable, "-m", "hf_tagger.cli", "serve", model, "--port", "0", "--threads", str(threads)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if "http://127.0.0.1:" in line:
                port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
                break
        else:
            raise ServerError(f"the server did not start: {''.join(said)}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), b'{"inputs": "mug"}')
        yield port, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)


def request_body(product: dict[str, Any]) -> bytes:
    """A product with photos in bytes -> the JSON that asks for its tags."""
    photos = [base64.b64encode(photo).decode() for photo in product["images"]]
    return json.dumps({"inputs": {"text": product["text"], "images": photos}}).encode()


def photo_bytes(photo: Any) -> bytes:
    """A photo of `Catalog.records` as it would be sent: its own bytes where it has them."""
    if isinstance(photo, dict):
        photo = photo["bytes"]
    if isinstance(photo, bytes):
        return photo
    file = io.BytesIO()
    load_image(photo).save(file, "JPEG")
    return file.getvalue()


def bare_speed(engine: Engine, products: Sequence[dict[str, Any]], batch_size: int) -> float:
    """Rows per second without a server: batches as the pipeline makes them, photos decoded while the model runs."""
    def tag(prepared):
        return engine.tag(prepared, [{}] * len(prepared))

    start = time.perf_counter()
    rows = list(tag_stream(products, lambda _, product: engine.preprocess(product), tag, 1, batch_size))
    return len(rows) / (time.perf_counter() - start)


def client_load(port: int, bodies: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Sends each body once, by `clients` threads that each wait for an answer before they send the next, on connections
    that are kept.

    Returns rows per second and the seconds of each request. Raises ServerError unless all are answered with 200.
    """
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    for body in bodies:
        waiting.put(body)
    seconds: list[float] = []
    errors: list[Exception] = []

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while True:
                body = waiting.get_nowait()
                start = time.perf_counter()
                _ask(connection, body)
                seconds.append(time.perf_counter() - start)
        except queue.Empty:
            connection.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    if errors:
        raise ServerError(f"{len(errors)} of {clients} clients failed: {errors[0]!r}") from errors[0]
    return len(bodies) / taken, seconds


def _ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/tags", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200:
        raise ServerError(f"{response.status}: {answer[:200]!r}")


def load_test(engine: Engine, port: int, products: Sequence[dict[str, Any]], clients: Sequence[int], rounds: int,
              batch_size: int = 32) -> dict[str, Any]:
    """The server at `port` and its model without it, in turns.

    Returns {"bare_rows_per_second", "clients": {number: {"rows_per_second", "p50_ms", "p95_ms", "p99_ms", "ratio"}}}:
    medians over the rounds; the ratio is that of rows per second to those without a server in the same round.
    """
    bodies = [request_body(product) for product in products]
    bare_speed(engine, products[: 2 * batch_size], batch_size)
    client_load(port, bodies[: 2 * batch_size], batch_size)
    bare: list[float] = []
    rows: dict[int, list[float]] = {number: [] for number in clients}
    seconds: dict[int, list[float]] = {number: [] for number in clients}
    for _ in range(rounds):
        bare.append(bare_speed(engine, products, batch_size))
        for number in clients:
            # One client sees no batches, and would take the longest: a part of the products tells as much.
            some = bodies[: max(64, len(bodies) * number // max(clients))]
            speed, taken = client_load(port, some, number)
            rows[number].append(speed)
            seconds[number] += taken
    found = {}
    for number in clients:
        p50, p95, p99 = 1e3 * np.percentile(seconds[number], [50, 95, 99])
        ratios = [fast / slow for fast, slow in zip(rows[number], bare, strict=True)]
        found[str(number)] = {
            "requests": len(seconds[number]), "rows_per_second": round(median(rows[number]), 1),
            "p50_ms": round(float(p50), 1), "p95_ms": round(float(p95), 1), "p99_ms": round(float(p99), 1),
            "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}
    return {"bare_rows_per_second": round(median(bare), 1), "clients": found}
