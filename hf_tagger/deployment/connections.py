"""Connections of `hf_tagger serve` that do not hold it up: headers are bounded and must come in time, and an answer
must be taken."""

import http
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hf_tagger.deployment.limits import Limits


def guarded(limits: Limits) -> type[HttpToolsProtocol]:
    """What uvicorn takes as `http`."""
    return type("GuardedProtocol", (_GuardedProtocol,), {"limits": limits})


class _GuardedProtocol(HttpToolsProtocol):
    limits: Limits

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._header_bytes, self._in_headers, self._too_long, self._writing = 0, False, False, None
        self._headers = self.loop.call_later(self.limits.seconds, self._close, 408)
        if len(self.connections) > self.limits.connections:
            self._close(503)

    def connection_lost(self, exc) -> None:
        for timer in (self._headers, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._headers is None and self.cycle.response_complete:  # idle until now
            self._headers = self.loop.call_later(self.limits.seconds, self._close, 408)
        self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > self.limits.header_kb * 1024:
            self._close(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._headers is not None:
            self._headers.cancel()
            self._headers = None
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.limits.header_kb * 1024:
            self._too_long = True
            raise ValueError("headers too long")  # the parser then has `send_400_response` called
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._close(431 if self._too_long else 400)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def _close(self, status: int) -> None:
        phrase = http.HTTPStatus(status).phrase
        body = json.dumps({"error": phrase.lower()})
        self.transport.write(f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
                             f"content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()
