"""Clients against a small server of the test's own."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from recipes.lab.load_test import ServerError, client_load, request_body


@pytest.fixture
def server():
    """Answers 500 to a body with "bad"; what it was sent, and how many connections it took, stand in its lists."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            running.connections.append(self.client_address)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            running.bodies.append(body)
            self.send_response(500 if b"bad" in body else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.bodies, running.connections = [], []
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_each_body_is_sent_once_over_a_connection_per_client(server):
    bodies = [b"%d" % number for number in range(60)]
    speed, seconds = client_load(server.server_port, bodies, clients=4)
    assert sorted(server.bodies) == sorted(bodies) and 1 <= len(server.connections) <= 4
    assert len(seconds) == 60 and min(seconds) > 0 and speed > 60 / sum(seconds)


def test_an_answer_other_than_200_and_no_server_are_errors(server):
    with pytest.raises(ServerError, match="500"):
        client_load(server.server_port, [b"good", b"bad"], clients=2)
    with pytest.raises(ServerError, match="no answer"):
        client_load(1, [b"good"], clients=1)


def test_photos_are_sent_in_base64():
    body = json.loads(request_body({"text": "mug", "images": [b"photo"]}))
    assert body == {"inputs": {"text": "mug", "images": ["cGhvdG8="]}}
