"""Who may ask, and what a browser may do with an answer: for `hf_tagger serve` and `hf_tagger review` alike."""

import hmac
import ipaddress
import math
import socket
from collections.abc import Sequence

from hf_tagger import UserError
from hf_tagger.deployment.rate_limit import RateLimit


class Protection:
    """An ASGI application around another one.

    Args:
        policy: the Content-Security-Policy of every answer.
        token: clients have to send `Authorization: Bearer TOKEN`; None: they have not.
        open_paths: need no token.
        logins: how often a client may try to log in, by a POST to /login; None: as often as it likes.
        hosts: names of this server that requests may be addressed to. A page elsewhere whose name is made to lead here
            ("DNS rebinding") is so kept out. None: any.
    """

    def __init__(self, app, policy: str, token: str | None = None, open_paths: Sequence[str] = (),
                 hosts: Sequence[str] | None = None, logins: RateLimit | None = None):
        self.app, self.token, self.open_paths, self.hosts, self.logins = app, token, open_paths, hosts, logins
        self.headers = [(b"content-security-policy", policy.encode()), (b"x-content-type-options", b"nosniff"),
                        (b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin")]

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)

        async def protected(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self.headers]
            await send(message)

        headers = dict(scope["headers"])
        if self.hosts is not None and _host(headers.get(b"host", b"").decode("latin-1")) not in self.hosts:
            return await _refuse(scope, protected, 421, "this server does not answer to that name")
        if self.logins is not None and scope.get("method") == "POST" and scope["path"].rstrip("/").endswith("/login"):
            if wait := self.logins.wait(scope):
                return await _refuse(scope, protected, 429, "too many attempts to log in: try again later",
                                     {"retry-after": str(math.ceil(wait))})
        given = headers.get(b"authorization", b"")
        if self.token is not None and scope["path"] not in self.open_paths and not hmac.compare_digest(
                given, f"Bearer {self.token}".encode()):
            return await _refuse(scope, protected, 401, "send the header Authorization: Bearer TOKEN",
                                 {"www-authenticate": "Bearer"})
        await self.app(scope, receive, protected)


async def _refuse(scope, send, status: int, message: str, headers: dict | None = None) -> None:
    if scope["type"] == "websocket":
        return await send({"type": "websocket.close", "code": 1008})
    from starlette.responses import JSONResponse  # of the extras `serve` and `review`

    await JSONResponse({"error": message}, status, {"connection": "close"} | (headers or {}))(scope, None, send)


def _host(header: str) -> str:
    """Of a Host header, without the port."""
    return header.rpartition(":")[0] if header.rpartition(":")[2].isdecimal() else header


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on `host`."""
    try:
        found = [entry[4][0] for entry in socket.getaddrinfo(host or "0.0.0.0", None)]
    except OSError:
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def check_listening(host: str, protected: bool, open_to_all: bool, remedy: str) -> None:
    """Raises UserError where others could reach what asks nobody who they are."""
    if not (protected or open_to_all or is_loopback(host)):
        raise UserError(f"whoever reaches {host} could use it: give {remedy}, or say --open_to_all")
