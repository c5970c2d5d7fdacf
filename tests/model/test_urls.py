import http.server
import io
import socket
import threading
import time

import pytest
from PIL import Image

from hf_tagger.model.images import ImageError, load_image
from hf_tagger.model.urls import FetchError, without_credentials


def encoded_photo():
    file = io.BytesIO()
    Image.new("RGB", (64, 32), (255, 0, 0)).save(file, "JPEG")
    return file.getvalue()


def reason(url, **options):
    with pytest.raises(ImageError) as caught:
        load_image(url, **options)
    return caught.value.reason


class PhotoServer(http.server.BaseHTTPRequestHandler):
    photo = encoded_photo()

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
        assert fetched(server.url + path).size == (64, 32)
    assert fetched({"bytes": None, "path": server.url + "/photo.jpg"}).size == (64, 32)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "[2002:7f00:1::]"]
    + ["[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"]
    + ["[fe80::1]", "[fc00::1]", "[::]", "240.0.0.1"]
    + ["[fec0::1]", "[64:ff9b:1::a00:1]", "[5f00::1]"],
)
def test_addresses_that_are_not_public_are_refused(server, host):
    before = len(server.requests)
    assert reason(f"http://{host}:{server.server_port}/photo.jpg", allow_urls=True, timeout=5) == "url_refused"
    assert len(server.requests) == before


def resolve_to(monkeypatch, *answers):
    """Stands in for a name server: `answers` are the addresses of each look-up in turn."""
    lookups = []

    def getaddrinfo(host, port, **_):
        lookups.append(host)
        addresses = answers[min(len(lookups), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


@pytest.fixture
def connected(monkeypatch):
    """The (address, port) of every connection that is asked for; none is made."""
    connected = []

    def create_connection(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return connected


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_not_refused(address, monkeypatch, connected):
    resolve_to(monkeypatch, [address])
    assert reason("http://shop.example/photo.jpg", allow_urls=True) == "fetch_failed"
    assert connected == [(address, 80)]


def test_one_private_address_among_public_ones_is_refused(monkeypatch):
    resolve_to(monkeypatch, ["93.184.216.34", "10.0.0.7"])
    assert reason("http://shop.example/photo.jpg", allow_urls=True) == "url_refused"


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(monkeypatch, connected):
    lookups = resolve_to(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    assert reason("http://shop.example/photo.jpg", allow_urls=True) == "fetch_failed"
    assert lookups == ["shop.example"] and connected == [("93.184.216.34", 80)]


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    look_up, connect = socket.getaddrinfo, socket.create_connection
    public = ("93.184.216.34", 80)

    def getaddrinfo(host, *given, **options):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", public)]
        return found if host == "shop.example" else look_up(host, *given, **options)

    def create_connection(address, *given, **options):
        return connect(("127.0.0.1", server.server_port) if address == public else address, *given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    assert load_image("http://shop.example/photo.jpg", allow_urls=True).size == (64, 32)
    for target in ("http://169.254.169.254/latest/meta-data", "http://[::1]/photo.jpg", "//10.0.0.1/photo.jpg"):
        assert reason(f"http://shop.example/redirect?{target}", allow_urls=True) == "url_refused"


def test_only_http_is_spoken(server, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded_photo())
    for url in (f"file://{tmp_path}/a.jpg", "ftp://example.org/a.jpg", "data://text", "hf://datasets/a/b.png"):
        assert reason(url, allow_urls=True) == "url_refused"
    assert reason(f"{server.url}/redirect?file://{tmp_path}/a.jpg", allow_urls=True,
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
    assert time.monotonic() - start < 5


def test_failed_downloads_say_so(server):
    unused = socket.socket()
    unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
    loop = f"{server.url}/redirect?/redirect?"
    for url in (server.url + "/missing", server.url + "/cut", f"http://127.0.0.1:{unused.getsockname()[1]}/"):
        assert reason(url, allow_urls=True, allow_private_addresses=True) == "fetch_failed"
    assert reason(loop * 9, allow_urls=True, allow_private_addresses=True) == "fetch_failed"
    assert reason("http://exa mple/\r\nX: y", allow_urls=True) == "fetch_failed"
    unused.close()


@pytest.mark.parametrize(("text", "told"), [
    ("postgresql://ana:s3cret@host/db", "postgresql://***@host/db"),
    ("path: postgresql+pg8000://ana:s3/cr?et@host/db", "path: postgresql+pg8000://***@host/db"),
    ("postgresql://ana:${SHOP_PASSWORD}@host/db", "postgresql://ana:${SHOP_PASSWORD}@host/db"),
    ("s3://key:s3/cret@bucket/a.csv", "s3://key:s3/cret@bucket/a.csv"),  # no URL: a slash ends the user's part
    ("{'path': 's3://key:s3cret@bucket/a@b.csv'}", "{'path': 's3://***@bucket/a@b.csv'}"),
    ("https://t0ken@host/a.csv?size=2&access_token=s3cret&x=1", "https://***@host/a.csv?size=2&access_token=***&x=1"),
    ("https://host/a?X-Amz-Signature=s3cret&X-Amz-Credential=s3cret", "https://host/a?X-Amz-Signature=***&"
                                                                      "X-Amz-Credential=***"),
    ("ask ana@shop.example about photos/a?b", "ask ana@shop.example about photos/a?b"),
])
def test_credentials_are_hidden(text, told):
    assert without_credentials(text) == told
    with pytest.raises(FetchError) as caught:
        raise FetchError("fetch_failed", text)
    assert str(caught.value) == told
