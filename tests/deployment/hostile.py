"""Requests that are small to send and meant to be dear to answer: (body, content type), cheap ones and dear ones."""

import base64
import io
import json

from PIL import Image

FORM = "multipart/form-data; boundary=x"


def encoded(mode, size, format, **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, format, **options)
    return file.getvalue()


def request(product, **parameters):
    return json.dumps({"inputs": product, "parameters": parameters}).encode(), "application/json"


def text_of(photo):
    return base64.b64encode(photo).decode()


def cheap():
    """Refused at once."""
    dot = text_of(encoded("L", (1, 1), "PNG"))
    file = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + b"x" * 12 + b"\r\n"
    return [
        request({"images": ["A" * 16] * 10_000}),
        request({"images": [dot] * 2000}),
        request("mug", free_form=True, attributes=["colour"] * 60_000),
        request(["mug"] * 100_000),
        request({"t" * 8_000_000: "mug"}),
        request("mug", **{"t" * 8_000_000: 1}),
        (b'{"inputs": [' + b"[]," * 2_700_000 + b"[]]}", "application/json"),
        (b'{"inputs": ' + b"[" * 4_000_000, "application/json"),
        (b'{"inputs": "' + b"\\u0000" * 1_300_000 + b'"}', "application/json"),
        (b'"' + b'\\"' * 4_000_000, "application/json"),
        (file * 60_000 + b"--x--\r\n", FORM),
        (b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + b"x" * 8_000_000 + b"\r\n--x--\r\n", FORM),
    ]


def dear():
    """Seconds of work each, within the limits or just beyond."""
    scans = encoded("RGB", (7900, 8000), "JPEG", progressive=True)
    last, end = scans.rindex(b"\xff\xda"), scans.rindex(b"\xff\xd9")
    scans = scans[:end] + 3900 * scans[last:end] + b"\xff\xd9"
    large = [encoded("RGBA", (7900, 8000), "PNG", compress_level=1), encoded("I;16", (7900, 8000), "PNG"),
             encoded("RGB", (7900, 8000), "JPEG", progressive=True), encoded("CMYK", (7900, 8000), "JPEG")]
    dot = text_of(encoded("L", (1, 1), "PNG"))
    return [*(request({"image": text_of(photo)}) for photo in (scans, *large)),
            request([{"images": [dot] * 8}] * 128), request([{"title": "mug " * 12_000}] * 128)]
