"""Requests that nobody should send, drawn at random, and the statuses that say what is wrong with them."""

import base64
import io
import json
import random
import struct
import zlib

from PIL import Image

BODY = json.dumps({"inputs": ["red mug", {"title": "blue dress", "description": "new"}]}).encode()
JSON, FORM = "application/json", "multipart/form-data; boundary=frontier"


def post(body: bytes, kind: str = JSON, head: str = "", path: str = "/tags", method: str = "POST") -> bytes:
    return (f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\n{head}\r\n").encode() + body


def ask_for(inputs, parameters=None) -> bytes:
    return post(json.dumps({"inputs": inputs, "parameters": parameters or {}}).encode())


def photo(draw: random.Random, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.effect_noise((draw.randint(8, 300), draw.randint(8, 300)), 90).convert("RGB").save(
        file, kind, **({"progressive": True} if kind == "JPEG" and draw.random() < 0.5 else {}))
    return file.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Some bytes replaced, removed or repeated."""
    for _ in range(draw.randint(1, 5)):
        place, length = draw.randrange(len(data) + 1), draw.randint(0, 4)
        again = data[place:place + 40] * 2
        piece = draw.choice([draw.randbytes(length), again, b"\x00", b'"', b"{", b"[" * 30, b"\xff"])
        data = data[:place] + piece + data[place + length:]
    return data


def huge_png(draw: random.Random) -> bytes:
    """A file of few bytes that says it has many pixels."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    width, height = draw.choice([(2**31 - 1, 2**31 - 1), (60_000, 60_000), (10**6, 65)])
    head = struct.pack(">IIBBBBB", width, height, draw.choice([1, 8]), 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"\0" * 10**6)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def many_scans(draw: random.Random) -> bytes:
    """A progressive JPEG whose scans come again and again."""
    file = io.BytesIO()
    Image.new("RGB", (8000, 7000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + data[scan:-2] * draw.randint(200, 3000) + data[-2:]


def form(draw: random.Random) -> bytes:
    parts = []
    for _ in range(draw.randint(0, 20)):
        name = draw.choice(["title", "image", "images", "parameters", "text", "x" * 3000, "", "\x00"])
        file = draw.choice(["", '; filename="x.jpg"', '; filename="../../x"'])
        data = draw.choice([b"mug", b"{", b"", photo(draw), draw.randbytes(50)])
        head = f'--frontier\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + draw.choice([b"--frontier--\r\n", b"--frontier--", b"--front", b""])


def odd(draw: random.Random):
    """A value that a request has no use for."""
    return draw.choice([None, True, 0, -1, 10**30, 1e308, float("nan"), float("inf"), "", "\ud800", "x" * 60_000, [],
                        {}, [[]], {"path": "/etc/hostname"}, ["\x00"] * 50, {"a": {"b": {"c": 1}}}, "NaN", "𐏿" * 1000])


# {what is sent: (how it is drawn, statuses that say what is wrong with it)}; None: the connection is closed.
READ, GONE = {200, 422}, {None}
REQUESTS = {
    "products as they should be": (lambda draw: ask_for(
        [{"title": "red mug", "image": base64_of(photo(draw, draw.choice(["JPEG", "PNG", "WEBP", "GIF"])))}
         for _ in range(draw.randint(1, 8))], {"top_k": draw.randint(1, 9)}), {200}),
    "JSON with other bytes": (lambda draw: post(mutated(draw, BODY)), {200, 400, 422}),
    "JSON cut off": (lambda draw: post(BODY[:draw.randrange(len(BODY))]), {400}),
    "lists in lists": (lambda draw: post(b"[" * draw.randint(9, 10**6)), {400}),
    "long numbers": (lambda draw: post(b'{"inputs": ' + b"9" * draw.randint(4400, 10**6) + b"}"), {400}),
    "odd products": (lambda draw: ask_for({draw.choice(["title", "text", "image", "images", "id"]): odd(draw)}), READ),
    "lists of odd things": (lambda draw: ask_for([odd(draw) for _ in range(draw.randint(0, 40))]), {200}),
    "odd parameters": (lambda draw: ask_for("mug", {draw.choice(
        ["top_k", "threshold", "attributes", "free_form", "allow_urls", "x" * 9999]): odd(draw)}), READ),
    "odd bodies": (lambda draw: post(json.dumps(odd(draw)).encode()), {422}),
    "attributes named again and again": (lambda draw: ask_for(
        "mug", {"attributes": ["colour"] * draw.randint(1000, 60_000)}), {200, 413}),
    "many photos of few bytes": (lambda draw: ask_for(
        {"images": [base64_of(b"a" * 12)] * draw.randint(9, 50_000)}), {413, 422}),
    "many products": (lambda draw: ask_for(["mug"] * draw.randint(129, 50_000)), {413}),
    "long texts": (lambda draw: ask_for({"description": "mug, " * draw.randint(11_000, 10**6)}), {422}),
    "photos with other bytes": (lambda draw: ask_for({"image": base64_of(mutated(draw, photo(draw)))}), READ),
    "photos cut off": (lambda draw: ask_for({"image": base64_of(photo(draw)[:draw.randint(10, 150)])}), {422}),
    "photos of too many pixels": (lambda draw: ask_for({"image": base64_of(huge_png(draw))}), {422}),
    "JPEGs of many scans": (lambda draw: ask_for({"image": base64_of(many_scans(draw))}), {413, 422}),
    "no photos": (lambda draw: ask_for({"image": draw.choice(
        ["http://127.0.0.1/a.jpg", "file:///etc/hostname", "/etc/hostname", "simplecache::http://127.0.0.1/", "data:,",
         "é", base64_of(draw.randbytes(5000)), base64_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>")])}), {422}),
    "forms": (lambda draw: post(form(draw), FORM), {200, 400, 422}),
    "forms of other bytes": (lambda draw: post(mutated(draw, form(draw)), FORM), {200, 400, 422}),
    "other kinds of body": (lambda draw: post(
        BODY, draw.choice(["text/plain", "", "a/b;" * 999, "application/xml"])), {415}),
    "more than a body may hold": (lambda draw: post(b" " * draw.randint(2**23 + 1, 2**24)), {413}),
    "two lengths": (lambda draw: post(
        b"", head="Transfer-Encoding: chunked\r\n") + b"ffff\r\n" + b" " * 65535, {400}),
    "lengths that are none": (lambda draw: post(BODY).replace(
        b"Content-Length: ", draw.choice([b"Content-Length: -", b"Content-Length: x", b"Content-Length: 1e"])), {400}),
    "bodies that do not come": (lambda draw: post(BODY).replace(b"Content-Length: ", b"Content-Length: 9"), GONE),
    "long headers": (lambda draw: post(BODY, head=f"x: {'y' * draw.randint(40_000, 10**6)}\r\n"), {431}),
    "many headers": (lambda draw: post(BODY, head="x: yyyyyyy\r\n" * draw.randint(5000, 50_000)), {431}),
    "other paths": (lambda draw: post(BODY, path="/" + draw.choice(["", "tag", "../tags", "%00", "x" * 5000])), {404}),
    "other methods": (lambda draw: post(BODY, method=draw.choice(["PUT", "DELETE", "PATCH", "GET"])), {405}),
    "no HTTP at all": (lambda draw: draw.randbytes(draw.randint(1, 10**5)), {400}),
    "HTTP with other bytes": (lambda draw: mutated(draw, post(BODY)), {200, 400, 404, 405, 408, 413, 415, 422, 431}),
}  # fmt: skip
