"""What one client can cost a server, and who may ask it."""

import base64
import http.client
import io
import json
import socket
import time

import pytest
from PIL import Image

from hf_tagger.deployment.engines import open_engine
from tests.deployment.serving import ask, form, jpeg, send, serving


def png(width, height):
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def strict(exported):
    limits = {"products": 3, "photos": 2, "photo_megapixels": 0.01, "request_megapixels": 0.015, "body_mb": 2,
              "header_kb": 4, "depth": 4, "tags": 2, "seconds": 2, "connections": 40,
              "send_buffer": 4096}
    with serving(open_engine(exported, threads=1), **limits) as port:
        yield port


def test_photos_and_pixels_are_counted_before_they_cost_anything(strict):
    assert ask(strict, {"images": [png(8, 8)] * 2})[0] == 200
    status, answer, _ = ask(strict, {"images": [png(8, 8)] * 3})
    assert status == 422 and "more than the 2 that a product may have" in answer["error"]
    assert send(strict, *form([("image", jpeg())] * 3))[0] == 400
    status, answer, _ = ask(strict, {"image": png(101, 100)})
    assert status == 422 and "more than max_pixels=10000" in answer["error"]
    status, answers, _ = ask(strict, [{"title": "mug", "image": png(90, 90)}] * 3)
    assert status == 200 and sorted(isinstance(answer, list) for answer in answers) == [False, False, True]
    assert "together" in next(answer["error"] for answer in answers if isinstance(answer, dict))
    assert ask(strict, ["mug"] * 4)[0] == 413
    assert len(ask(strict, "mug", threshold=0)[1]) == len(ask(strict, "mug", threshold=0, top_k=9)[1]) == 2


@pytest.mark.parametrize(("body", "status"), [
    (b'{"inputs": [[["["]]]}', 200),  # a bracket in a string is none
    (b'{"inputs": [[[[]]]]}', 400),
    (b'{"inputs": [' + b"{}," * 5000 + b"{}]}", 413),
    (b'"' + b'\\"' * 900_000, 400),
    (b'{"' + b"inpust" * 200_000 + b'": "mug"}', 422),
    (b'{"inputs": {"' + b"title" * 200_000 + b'": "mug"}}', 422),
    (b'{"inputs": "mug", "parameters": {"attributes": ["' + b"x" * 1_000_000 + b'"]}}', 422),
    (b'{"inputs": "mug", "parameters": {"' + b"top_k" * 200_000 + b'": 1}}', 422),
    (b'{"inputs": "mug", "parameters": {"top_k": ' + b"9" * 4000 + b"}}", 200),
    (b'{"inputs": "mug", "parameters": {"top_k": ' + b"9" * 5000 + b"}}", 400),
    (b'{"inputs": "mug", "parameters": {"attributes": 0}}', 422),
    (b'{"inputs": "mug", "parameters": {"attributes": {"colour": 1}}}', 422),
    (b'{"inputs": "mug", "parameters": {"attributes": ["colour", 1]}}', 422),
    (b'{"inputs": "mug", "parameters": {"threshold": "0.5"}}', 422),
    (b'{"inputs": "mug", "parameters": {"threshold": true}}', 422),
    (b'{"inputs": "mug", "parameters": {"top_k": true}}', 422),
])
def test_odd_json_is_answered_soon_and_in_few_words(strict, body, status):
    start = time.perf_counter()
    found, answer, _ = send(strict, body)
    assert found == status, answer
    assert len(json.dumps(answer)) < 700 and time.perf_counter() - start < 1.5


def connect(port, receive_buffer=None):
    client = socket.socket()
    if receive_buffer:  # to be said before the connection is made
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    return client


def rest_of(client):
    """All that a server sends until it closes the connection."""
    return b"".join(iter(lambda: client.recv(10_000), b""))


HEAD = b"POST /tags HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 999\r\n"


def test_slow_clients_are_dropped_and_hold_up_nobody(strict):
    start = time.monotonic()
    slow = [connect(strict) for _ in range(30)]
    for number, client in enumerate(slow):
        client.sendall((HEAD + b"\r\n{", HEAD, b"POS")[number % 3])
    assert ask(strict, "mug")[0] == 200
    assert all(rest_of(client).startswith(b"HTTP/1.1 408 ") for client in slow)
    assert 1.5 < time.monotonic() - start < 6


def test_clients_that_were_answered_and_send_on_are_dropped(strict):
    with connect(strict) as blank, connect(strict) as half:
        for client, rest in ((blank, b"\r\n"), (half, b"GET /health HT")):
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
            client.sendall(rest)
        assert all(b"HTTP/1.1 408 " in rest_of(client) for client in (blank, half))
    with connect(strict) as client:  # refused before its body came
        client.sendall(HEAD.replace(b"999", b"99999999") + b"\r\n{")
        assert rest_of(client).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_takes_no_answer_is_dropped(strict):
    with connect(strict, receive_buffer=4096) as client:
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)  # far more than the buffers take
        time.sleep(2.5)
        assert 0 < rest_of(client).count(b"HTTP/1.1 200 ") < 100
    assert ask(strict, "mug")[0] == 200


def test_headers_are_bounded(strict):
    for letters in (b"x: " + b"y" * 5000, b"\r\n".join(b"x%d: y" % number for number in range(1000))):
        with connect(strict) as client:
            client.sendall(HEAD + letters + b"\r\n\r\n{")
            assert client.recv(1000).startswith(b"HTTP/1.1 431 ")
    with connect(strict) as client, pytest.raises(OSError):
        client.sendall(HEAD + b"x: ")
        for _ in range(1000):  # without an end: cut off, not kept
            client.sendall(b"y" * 100_000)


def test_more_clients_than_may_be_are_turned_away(strict):
    clients = [connect(strict) for _ in range(45)]
    assert any(client.recv(1000).startswith(b"HTTP/1.1 503 ") for client in clients[-3:])
    for client in clients:
        client.close()
    assert ask(strict, "mug")[0] == 200


def test_a_token_is_asked_for_everywhere_but_at_health(exported):
    with serving(open_engine(exported, threads=1), token="a-token-of-some-length") as port:
        for method, path in (("POST", "/tags"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs")):
            for given in ({}, {"Authorization": "Bearer a-token"}, {"Authorization": "a-token-of-some-length"}):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                connection.request(method, path, '{"inputs": "mug"}', {"Content-Type": "application/json", **given})
                response = connection.getresponse()
                assert response.status == 401 and response.headers["WWW-Authenticate"] == "Bearer"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/tags", '{"inputs": "mug"}', {
            "Content-Type": "application/json", "Authorization": "Bearer a-token-of-some-length"})
        response = connection.getresponse()
        assert response.status == 200 and response.headers["X-Content-Type-Options"] == "nosniff"
        assert send(port, None, None, "GET", "/health")[0] == 200


def test_a_client_that_asks_too_often_is_told_when_to_come_again_and_others_are_not(exported):
    with serving(open_engine(exported, threads=1), client_requests=3) as port:
        assert [ask(port, "mug")[0] for _ in range(3)] == [200] * 3
        forged = {"X-Forwarded-For": "192.0.2.1", "Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"}
        for headers in ({}, forged):
            status, answer, told = send(port, '{"inputs": "mug"}', **headers)
            assert status == 429 and "more than 3 requests a minute" in answer["error"]
            assert 10 < int(told["Retry-After"]) <= 20
        assert send(port, None, None, "GET", "/health")[0] == 200
        assert 'hf_tagger_requests_total{status="429"} 2.0' in send(port, None, None, "GET", "/metrics")[1]


def test_behind_a_trusted_proxy_each_client_is_counted_by_the_address_that_the_proxy_saw(exported):
    with serving(open_engine(exported, threads=1), client_requests=1, trusted_proxy="127.0.0.0/8, 10.0.0.1") as port:
        def status(forwarded):
            return send(port, '{"inputs": "mug"}', **{"X-Forwarded-For": forwarded})[0]

        assert [status("192.0.2.1"), status("192.0.2.2"), status("192.0.2.1")] == [200, 200, 429]
        # What a client wrote itself stands further left, and other proxies that are trusted stand further right.
        assert status("198.51.100.7, 192.0.2.1, 10.0.0.1") == 429
