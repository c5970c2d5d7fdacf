"""A server on a tiny model in a thread of this process, and its clients."""

import base64
import http.client
import io
import json
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn

from hf_tagger.deployment.connections import guarded
from hf_tagger.deployment.limits import Limits
from hf_tagger.deployment.server import create_app
from tests.tiny_tagger import photo


def jpeg(*arguments, **options):
    file = io.BytesIO()
    photo(*arguments, **options).save(file, "JPEG")
    return file.getvalue()


def base64_jpeg(*arguments, **options):
    return base64.b64encode(jpeg(*arguments, **options)).decode()


@contextmanager
def serving(engine, trusted_proxy="", send_buffer=None, **options):
    """The port of the server. send_buffer: bytes of answers that the system takes for a client. Options: of
    `create_app`, and `Limits`."""
    limits = Limits(**{name: options.pop(name) for name in list(options) if name in vars(Limits())})
    config = uvicorn.Config(create_app(engine, limits, **options), http=guarded(limits), log_level="error",
                            forwarded_allow_ips=trusted_proxy)
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0), backlog=128)
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def send(port, body, kind="application/json", method="POST", path="/tags", **headers):
    """(status, decoded answer, headers)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, headers | ({"Content-Type": kind} if kind else {}))
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    is_json = response.headers["Content-Type"].startswith("application/json")
    return response.status, json.loads(answer) if is_json else answer.decode(), response.headers


def ask(port, inputs, **parameters):
    return send(port, json.dumps({"inputs": inputs, "parameters": parameters}))


def form(fields):
    """A multipart body and its content type; bytes are sent as files."""
    lines = []
    for name, value in fields:
        file = '; filename="x.jpg"' if isinstance(value, bytes) else ""
        head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        lines.append(head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    return b"".join(lines) + b"--frontier--\r\n", "multipart/form-data; boundary=frontier"


def same(tags, wanted):
    assert [(tag["label"], tag["attribute"], tag["source"]) for tag in tags] == [
        (tag["label"], tag["attribute"], tag["source"]) for tag in wanted]
    assert [tag["score"] for tag in tags] == pytest.approx([tag["score"] for tag in wanted], abs=1e-4)
