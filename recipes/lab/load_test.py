"""How many products per second a served tagger answers, how fast, and what the server itself costs, as JSON.

    python recipes/lab/load_test.py runs/fashion/onnx_int8 recipes/configs/fashion.yaml

Starts `hf_tagger serve MODEL` on this machine's loopback address, sends it the products of a split that have text and
a photo, one per request (photos in base64), by 1, 8 and 32 clients that each wait for their answer, and stops it. In
turns with that, the same model tags the same products in batches of 32 without a server: "ratio" is rows per second
with the server to those without. Clients and server share the machine. Exits with 1 where 32 clients get less than
--least.
"""

import argparse
import base64
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from hf_tagger import UserError, cli
from hf_tagger.deployment.engines import Engine, open_engine
from hf_tagger.evaluation.settings import check_model
from hf_tagger.model.images import load_image
from hf_tagger.model.products import tag_stream
from hf_tagger.runtime import TAGGER
from measuring import complete_records, conditions, open_split

BATCH_SIZE, FEWEST = 32, 64


class ServerError(UserError):
    """A server that did not start, or did not answer as it should."""


@cli.recipe
def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    if not Path(options.model, TAGGER).exists():
        check_model(options.model)
    found = {"model": options.model, "split": options.split, "rounds": options.rounds, "threads": options.threads,
             **conditions()}
    with TemporaryDirectory() as folder:
        _, catalog = open_split(options, overrides, folder)
        products = [{"text": record["text"], "images": [photo_bytes(photo) for photo in record["images"]]}
                    for record in complete_records(catalog, options.split, options.products, FEWEST)]
    engine = open_engine(options.model, options.threads)
    with running_server(options.model, options.threads) as (port, seconds):
        found |= {"products": len(products), "start_seconds": round(seconds, 2),
                  **load_test(engine, port, products, options.clients, options.rounds)}
    print(json.dumps(found, indent=1))
    return int(found["clients"].get("32", {"ratio": options.least})["ratio"] < options.least)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--products", type=int, default=512, help="requests of a round with the most clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that the model computes with")
    parser.add_argument("--least", type=float, default=0.8, help="least ratio of rows per second at 32 clients")
    return parser.parse_known_args(arguments)


def load_test(engine: Engine, port: int, products: Sequence[dict[str, Any]], clients: Sequence[int],
              rounds: int) -> dict[str, Any]:
    """The server at `port` and its model without it, in turns.

    Returns {"bare_rows_per_second", "clients": {number: {"rows_per_second", "p50_ms", "p95_ms", "p99_ms", "ratio"}}}:
    medians over the rounds; the ratio is that of rows per second to those without a server in the same round.
    """
    bodies = [request_body(product) for product in products]
    bare_speed(engine, products[: 2 * BATCH_SIZE])
    client_load(port, bodies[: 2 * BATCH_SIZE], BATCH_SIZE)
    bare: list[float] = []
    rows: dict[int, list[float]] = {number: [] for number in clients}
    seconds: dict[int, list[float]] = {number: [] for number in clients}
    for _ in range(rounds):
        bare.append(bare_speed(engine, products))
        for number in clients:
            # One client sees no batches, and would take the longest: a part of the products tells as much.
            some = bodies[: max(FEWEST, len(bodies) * number // max(clients))]
            speed, taken = client_load(port, some, number)
            rows[number].append(speed)
            seconds[number] += taken
    found = {}
    for number in clients:
        p50, p95, p99 = np.percentile(seconds[number], [50, 95, 99]).tolist()
        ratios = [fast / slow for fast, slow in zip(rows[number], bare, strict=True)]
        found[str(number)] = {
            "requests": len(seconds[number]), "rows_per_second": round(median(rows[number]), 1),
            "p50_ms": round(1e3 * p50, 1), "p95_ms": round(1e3 * p95, 1), "p99_ms": round(1e3 * p99, 1),
            "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}
    return {"bare_rows_per_second": round(median(bare), 1), "clients": found}


def photo_bytes(photo: Any) -> bytes:
    """A photo of `Catalog.records` as it would be sent: its own bytes where it has them."""
    if isinstance(photo, dict):
        photo = photo["bytes"]
    if isinstance(photo, bytes):
        return photo
    file = io.BytesIO()
    load_image(photo).save(file, "JPEG")
    return file.getvalue()


def request_body(product: dict[str, Any]) -> bytes:
    """A product with photos in bytes -> the JSON that asks for its tags."""
    photos = [base64.b64encode(photo).decode() for photo in product["images"]]
    return json.dumps({"inputs": {"text": product["text"], "images": photos}}).encode()


def bare_speed(engine: Engine, products: Sequence[dict[str, Any]]) -> float:
    """Rows per second without a server: batches as the pipeline makes them, photos decoded while the model runs."""
    def tag(prepared):
        return engine.tag(prepared, [{}] * len(prepared))

    start = time.perf_counter()
    rows = list(tag_stream(products, lambda _, product: engine.preprocess(product), tag, 1, BATCH_SIZE))
    return len(rows) / (time.perf_counter() - start)


def client_load(port: int, bodies: Sequence[bytes], clients: int) -> tuple[float, list[float]]:
    """Sends each body once, by `clients` threads that each wait for an answer before they send the next, on connections
    that are kept.

    Returns rows per second and the seconds of each request. Raises ServerError unless all are answered with 200.
    """
    own = threading.local()

    def send(body: bytes) -> float:
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        start = time.perf_counter()
        ask(own.connection, body)
        return time.perf_counter() - start

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(send, bodies))
    return len(bodies) / (time.perf_counter() - start), seconds


def ask(connection: http.client.HTTPConnection, body: bytes) -> None:
    try:
        connection.request("POST", "/tags", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"no answer: {error!r}") from error
    if response.status != 200:
        raise ServerError(f"{response.status}: {answer[:200]!r}")


@contextmanager
def running_server(model: str, threads: int) -> Iterator[tuple[int, float]]:
    """`hf_tagger serve` in a process of its own, on a free port of this machine's loopback address.

    Yields the port and the seconds from its start to its first answer.
    """
    command = [sys.executable, "-m", "hf_tagger.cli", "serve", model, "--port", "0", "--threads", str(threads)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "http://127.0.0.1:" in line:
                port = int(line.partition("http://127.0.0.1:")[2].partition("/")[0])
                break
        else:
            raise ServerError(f"the server did not start: {''.join(lines)}")
        threading.Thread(target=process.stderr.read, daemon=True).start()
        ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), b'{"inputs": "mug"}')
        yield port, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
