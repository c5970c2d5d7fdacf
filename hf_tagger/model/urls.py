"""Download from a URL without being led into a private network, into endless data or endless waiting.

Ships with the model: standard library only.
"""

import functools
import http.client
import io
import ipaddress
import re
import socket
import ssl
import threading
import time
from concurrent.futures import Future
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

MAX_REDIRECTS = 5

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


# A database's password may hold a slash; an environment variable in its place, ${SHOP_PASSWORD}, tells nothing.
_USER = re.compile(r"""((?:postgres(?:ql)?|mysql|mariadb|oracle|mssql)(?:\+\w+)?://)(?!(?:\w*:)?\$\{\w+\}@)[^\s'"]*@"""
                   r"""|(://)(?!(?:\w*:)?\$\{\w+\}@)[^\s/?#'"]*@""", re.IGNORECASE)
_SECRET = re.compile(
    r"""([?&;][^\s=&;'"]*(?:pass|pwd|secret|token|key|sig|cred|auth)[^\s=&;'"]*=)[^\s&;'"]*""", re.IGNORECASE)


def without_credentials(text):
    """`text` with the users, passwords, keys and tokens of the URLs in it hidden: for messages, cards, manifests."""
    return _SECRET.sub(r"\1***", _USER.sub(lambda user: f"{user[1] or user[2]}***@", text))


class FetchError(ValueError):
    """A URL that was not fetched. `reason` is "url_refused", "too_large" or "fetch_failed"."""

    def __init__(self, reason, message):
        super().__init__(without_credentials(message))
        self.reason = reason


def fetch(url, allow_private_addresses=False, max_bytes=20 * 2**20, timeout=10.0):
    """Download `url` and return its bytes.

    Every address the host resolves to is checked, and the connection goes to a checked address and not to the name, so
    that a name that changes its address in between gains nothing. Redirects pass the same checks. Proxy settings of
    the environment are not used, because a proxy would resolve the name again.

    Args:
        allow_private_addresses: loopback, private and other non-public addresses may be reached.
        max_bytes: largest body.
        timeout: seconds for everything, redirects included.

    Raises:
        FetchError: a URL that is refused, too large a body, or a failed download.
    """
    deadline = time.monotonic() + timeout
    try:
        for _ in range(MAX_REDIRECTS + 1):
            data, location = _request(url, allow_private_addresses, max_bytes, deadline)
            if location is None:
                return data
            url = urljoin(url, location)
    except FetchError:
        raise
    except TimeoutError as error:
        raise FetchError("fetch_failed", f"{url!r} took longer than timeout={timeout} seconds") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError("fetch_failed", f"{url!r} could not be fetched: {error!r}") from error
    raise FetchError("fetch_failed", f"{url!r}: more than {MAX_REDIRECTS} redirects")


def _request(url, allow_private_addresses, max_bytes, deadline):
    """Return (body, None), or (None, where the server redirects to)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("url_refused", f"{url!r} is refused: only http and https URLs are fetched")
    host = parts.hostname.encode("idna").decode()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    target = quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe="/%:=&?~+!$,;'@()*[]")

    connection = http.client.HTTPConnection(host, port)
    with _connect(url, parts.scheme, host, port, allow_private_addresses, deadline) as connected:
        connection.sock = _DeadlineSocket(connected, deadline)
        connection.request("GET", target, headers={"User-Agent": "hf_tagger"})
        response = connection.getresponse()
        if response.status in (301, 302, 303, 307, 308) and response.headers["Location"]:
            return None, response.headers["Location"]
        if response.status != 200:
            raise FetchError("fetch_failed", f"{url!r} answered {response.status} {response.reason}")
        too_large = FetchError("too_large", f"{url!r} is larger than max_bytes={max_bytes}; shrink the photo")
        if response.length is not None and response.length > max_bytes:
            raise too_large
        data = response.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise too_large
        if response.length:
            raise FetchError("fetch_failed", f"{url!r}: the connection closed {response.length} bytes before the end")
        return data, None


def _connect(url, scheme, host, port, allow_private_addresses, deadline):
    addresses = _resolve(host, port, deadline)
    if not allow_private_addresses:
        for address in addresses:
            if not _is_public(address):
                raise FetchError("url_refused", f"{url!r} is refused: {host} is at {address}, which is not a public "
                                                "internet address")
    for number, address in enumerate(addresses, 1):
        try:
            # The last address may use all the time that is left; the ones before leave some for the rest.
            connected = socket.create_connection((address, port), _remaining(deadline) / (len(addresses) - number + 1))
            break
        except OSError:
            if number == len(addresses):
                raise
    if scheme == "http":
        return connected
    with connected:  # wrap_socket detaches it, and closes it when the handshake fails
        connected.settimeout(_remaining(deadline))
        return _tls_context().wrap_socket(connected, server_hostname=host)


def _resolve(host, port, deadline):
    """Addresses of `host`, in the resolver's order. In a thread, because getaddrinfo takes no timeout."""
    answer = Future()

    def look_up():
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=look_up, daemon=True).start()
    return list(dict.fromkeys(entry[4][0] for entry in answer.result(_remaining(deadline))))


def _is_public(address):
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6:
        # IPv4 addresses written inside IPv6 ones reach the IPv4 host.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    # Of IPv6 only what is assigned as global unicast: fec0::/10 and local NAT64 pass for global in `ipaddress`.
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and (ip.version == 4 or ip in _GLOBAL_UNICAST)


@functools.lru_cache(maxsize=1)
def _tls_context():
    context = ssl.create_default_context()
    try:
        import certifi

        context.load_verify_locations(certifi.where())
    except ImportError:
        pass
    return context


def _remaining(deadline):
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


class _DeadlineSocket(io.RawIOBase):
    """What http.client needs of a socket, each operation ending by `deadline`.

    A plain socket timeout starts anew with each byte that trickles in.
    """

    def __init__(self, connected, deadline):
        self.connected, self.deadline = connected, deadline

    def sendall(self, data):
        self.connected.settimeout(_remaining(self.deadline))
        self.connected.sendall(data)

    def makefile(self, mode):
        return io.BufferedReader(self, 64 * 1024)

    def readable(self):
        return True

    def readinto(self, buffer):
        self.connected.settimeout(_remaining(self.deadline))
        return self.connected.recv_into(buffer)

    def close(self):
        pass  # http.client closes its socket before the body is read; _request closes the connection
