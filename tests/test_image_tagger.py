import http.server
import io
import pickle
import socket
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from hf_tagger import image_tagger
from hf_tagger.image_tagger import ImageError, load_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def halves(width=64, height=32, left=RED, right=BLUE):
    image = Image.new("RGB", (width, height), left)
    image.paste(right, (width // 2, 0, width, height))
    return image


def near(pixel, colour, tolerance=6):
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, colour, strict=True))


def reason(source, **options):
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    return caught.value.reason


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_every_source_of_every_format_gives_the_same_rgb_image(tmp_path, format):
    data = encode(halves(), format)
    path = tmp_path / f"photo.{format.lower()}"
    path.write_bytes(data)
    with open(path, "rb") as file:
        sources = [data, bytearray(data), path, str(path), file, {"bytes": data, "path": None}]
        sources += [{"bytes": None, "path": str(path)}, Image.open(io.BytesIO(data))]
        images = [load_image(source) for source in sources]
    for image in images:
        assert image.mode == "RGB" and image.size == (64, 32)
        assert near(image.getpixel((5, 16)), RED) and near(image.getpixel((58, 16)), BLUE)


def test_relative_path_starts_from_root_and_absolute_path_does_not(tmp_path):
    (tmp_path / "photos").mkdir()
    halves().save(tmp_path / "photos" / "a.png")
    assert load_image("photos/a.png", root=tmp_path).size == (64, 32)
    assert load_image(tmp_path / "photos" / "a.png", root="/nowhere").size == (64, 32)


def test_uint8_arrays_are_images_and_other_arrays_are_not():
    pixels = np.asarray(halves())
    assert load_image(pixels).getpixel((0, 0)) == RED
    assert load_image(pixels[:, :, 0]).getpixel((0, 0)) == WHITE
    assert reason(pixels.astype(np.float32) / 255) == "wrong_type"
    assert reason(pixels.transpose(2, 0, 1)) == "wrong_type"
    assert reason(pixels[:0]) == "empty"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, format):
    upright = halves(64, 32)
    upright.paste(GREEN, (0, 0, 16, 16))
    stored = upright.transpose({5: 5, 6: 2, 7: 6, 8: 4, 2: 0, 3: 3, 4: 1}[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    image = load_image(encode(stored, format, exif=exif, **options))
    for shown in (image, load_image(image)):
        assert shown.size == (64, 32)
        assert near(shown.getpixel((4, 4)), GREEN) and near(shown.getpixel((4, 28)), RED)
        assert near(shown.getpixel((60, 16)), BLUE)


def test_cmyk_jpeg():
    assert near(load_image(encode(halves().convert("CMYK"), "JPEG")).getpixel((5, 16)), RED)


def test_transparency_is_laid_on_white():
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([*BLUE, *RED])
    palette.paste(1, (4, 0, 8, 8))
    image = load_image(encode(palette, "PNG", transparency=0))
    assert image.getpixel((0, 0)) == WHITE and image.getpixel((7, 0)) == RED

    image = load_image(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"))
    assert image.getpixel((0, 0)) == WHITE

    image = load_image(encode(Image.new("LA", (8, 8), (0, 128)), "PNG"))
    assert near(image.getpixel((0, 0)), (127, 127, 127))

    image = load_image(encode(Image.new("RGB", (8, 8), GREEN), "PNG", transparency=GREEN))
    assert image.getpixel((0, 0)) == WHITE


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    deep = Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16))
    assert load_image(encode(deep, "PNG")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(encode(deep, "TIFF")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(deep.convert("I")).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(Image.new("F", (8, 8), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    assert load_image(encode(Image.new("1", (8, 8), 1), "PNG")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], duration=100)
    assert near(load_image(data).getpixel((8, 8)), RED)


def test_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough():
    data = encode(halves(800, 400), "JPEG")
    assert load_image(data).size == (800, 400)
    assert load_image(data, min_size=(50, 100)).size == (100, 50)
    assert load_image(data, min_size=(51, 100)).size == (200, 100)
    assert load_image(data, min_size=(4000, 4000)).size == (800, 400)


def test_min_size_is_meant_for_the_upright_photo():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(halves(800, 400), "JPEG", exif=exif)
    assert load_image(data, min_size=(200, 100)).size == (100, 200)


def test_the_callers_image_is_left_as_it_was():
    opened = Image.open(io.BytesIO(encode(halves(800, 400), "JPEG")))
    load_image(opened, min_size=(50, 100))
    assert opened.size == (800, 400)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_truncated_photos_are_refused(format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, format)
    assert reason(data[: len(data) // 2]) in ("truncated", "unreadable")
    assert reason(data[:10]) == "unreadable"


def test_a_truncated_jpeg_is_called_truncated(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(encode(halves(300, 300), "JPEG")[:-200])
    with pytest.raises(ImageError, match="cut.jpg.*upload the photo again") as caught:
        load_image(path)
    assert caught.value.reason == "truncated"


def test_zero_byte_photos_are_refused(tmp_path):
    (tmp_path / "empty.jpg").touch()
    for source in (tmp_path / "empty.jpg", b"", io.BytesIO(), {"bytes": b"", "path": "a.jpg"}):
        assert reason(source) == "empty"
    for source in ("", {"bytes": None, "path": None}, Image.new("RGB", (0, 4))):
        assert reason(source) == "empty"


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + checksum + struct.pack(">I", 10) + b"IDAT" + bytes(14)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused_before_decoding():
    assert reason(png_header(8001, 8000)) == "too_large"
    assert reason(png_header(10_000, 10_000)) == "too_large"
    assert reason(png_header(100_000, 100_000)) == "too_large"
    assert reason(encode(halves(64, 32), "PNG"), max_pixels=64 * 32 - 1) == "too_large"
    assert load_image(encode(halves(64, 32), "PNG"), max_pixels=64 * 32).size == (64, 32)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "notes.jpg").write_text("no photo")
    assert reason(tmp_path / "notes.jpg") == "unreadable"
    assert reason(encode(halves(), "EPS")) == "unreadable"
    assert reason(encode(halves(), "PCX")) == "unreadable"
    assert reason(tmp_path / "missing.jpg") == "not_found"
    assert reason("a" * 5000) == "not_found"
    assert reason("a\0b") == "not_found"
    assert reason(tmp_path) == "wrong_type"
    assert reason("/dev/zero") == "wrong_type"
    assert reason(42) == "wrong_type"
    assert reason(None) == "wrong_type"


def test_errors_survive_the_way_home_from_a_loader_worker():
    error = pickle.loads(pickle.dumps(ImageError("empty", "no bytes")))
    assert error.reason == "empty" and str(error) == "no bytes"


class PhotoServer(http.server.BaseHTTPRequestHandler):
    photo = encode(halves(), "JPEG")

    def do_GET(self):
        path, _, argument = self.path.partition("?")
        if path == "/photo.jpg" or path == "/b%C3%A9ret.jpg":
            self.answer(200, {"Content-Length": str(len(self.photo))}, self.photo)
        elif path == "/unmeasured.jpg":
            self.answer(200, {}, self.photo)
        elif path == "/redirect":
            self.answer(302, {"Location": argument}, b"")
        elif path == "/announced":
            self.answer(200, {"Content-Length": str(10**9)}, b"")
        elif path == "/endless":
            self.answer(200, {}, b"")
            self.trickle(b"x" * 65536, 0)
        elif path == "/cut":
            self.answer(200, {"Content-Length": str(len(self.photo))}, self.photo[:50])
        elif path == "/slow":
            self.answer(200, {"Content-Length": "100000"}, b"")
            self.trickle(b"x", 0.05)
        elif path == "/slow-header":
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Padding: ")
            self.trickle(b"x", 0.05)
        else:
            self.answer(404, {}, b"")

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def trickle(self, piece, pause):
        try:
            while not self.server.stopping:
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass

    def log_message(self, *args):
        self.server.requests.append(args)


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), PhotoServer)
    server.requests, server.stopping = [], False
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.stopping = True
    server.shutdown()
    server.server_close()


def fetched(url, **options):
    return load_image(url, allow_urls=True, allow_private_addresses=True, **options)


def test_urls_are_refused_unless_allowed(server):
    assert reason(server.url + "/photo.jpg", allow_private_addresses=True) == "url_refused"


def test_urls_are_fetched_and_redirects_followed(server):
    for path in ("/photo.jpg", "/béret.jpg", "/unmeasured.jpg", "/redirect?/photo.jpg"):
        assert near(fetched(server.url + path).getpixel((5, 16)), RED)
    assert fetched({"bytes": None, "path": server.url + "/photo.jpg"}).size == (64, 32)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]"]
    + ["[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"]
    + ["[fe80::1]", "[fc00::1]", "[::]", "240.0.0.1"],
)
def test_addresses_that_are_not_public_are_refused(server, host):
    before = len(server.requests)
    assert reason(f"http://{host}:{server.server_port}/photo.jpg", allow_urls=True, timeout=5) == "url_refused"
    assert len(server.requests) == before


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_not_refused(address):
    assert image_tagger._is_public(address)


def resolve_to(monkeypatch, *answers):
    """Stands in for a name server: `answers` are the addresses of each look-up in turn."""
    lookups = []

    def getaddrinfo(host, port, **_):
        lookups.append(host)
        addresses = answers[min(len(lookups), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


def test_one_private_address_among_public_ones_is_refused(monkeypatch):
    resolve_to(monkeypatch, ["93.184.216.34", "10.0.0.7"])
    assert reason("http://shop.example/photo.jpg", allow_urls=True) == "url_refused"


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(monkeypatch):
    lookups = resolve_to(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    connected = []

    def create_connection(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    assert reason("http://shop.example/photo.jpg", allow_urls=True) == "fetch_failed"
    assert lookups == ["shop.example"] and connected == [("93.184.216.34", 80)]


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    real = image_tagger._is_public
    # The test server stands for a public one; everything else is judged as it is.
    monkeypatch.setattr(image_tagger, "_is_public", lambda address: address == "127.0.0.1" or real(address))
    assert load_image(server.url + "/photo.jpg", allow_urls=True).size == (64, 32)
    for target in ("http://169.254.169.254/latest/meta-data", "http://[::1]/photo.jpg", "//10.0.0.1/photo.jpg"):
        assert reason(f"{server.url}/redirect?{target}", allow_urls=True) == "url_refused"


def test_only_http_is_spoken(server, tmp_path):
    halves().save(tmp_path / "a.png")
    for url in (f"file://{tmp_path}/a.png", "ftp://example.org/a.png", "data://text", "hf://datasets/a/b.png"):
        assert reason(url, allow_urls=True) == "url_refused"
    assert reason(f"{server.url}/redirect?file://{tmp_path}/a.png", allow_urls=True,
                  allow_private_addresses=True) == "url_refused"  # fmt: skip


def test_downloads_are_bounded_in_bytes(server):
    def refusal(path):
        return reason(server.url + path, allow_urls=True, allow_private_addresses=True, max_bytes=200_000)

    assert refusal("/announced") == "too_large"
    assert refusal("/endless") == "too_large"
    assert fetched(server.url + "/photo.jpg", max_bytes=len(PhotoServer.photo)).size == (64, 32)


@pytest.mark.parametrize("path", ["/slow", "/slow-header"])
def test_downloads_are_bounded_in_time_even_when_bytes_trickle_in(server, path):
    start = time.monotonic()
    assert reason(server.url + path, allow_urls=True, allow_private_addresses=True, timeout=0.3) == "fetch_failed"
    assert time.monotonic() - start < 1.5


def test_failed_downloads_say_so(server):
    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
    loop = f"{server.url}/redirect?/redirect?"
    for url in (server.url + "/missing", server.url + "/cut", f"http://127.0.0.1:{unused.getsockname()[1]}/"):
        assert reason(url, allow_urls=True, allow_private_addresses=True) == "fetch_failed"
    assert reason(loop * 9, allow_urls=True, allow_private_addresses=True) == "fetch_failed"
    assert reason("http://exa mple/\r\nX: y", allow_urls=True) == "fetch_failed"
    unused.close()
