"""One request over HTTP/1.1, and its answer. Source: RFC 9112."""

from __future__ import annotations

import asyncio
import http
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..hot.asgi import Message
from ..hot.framing import Headers
from ..telemetry import REQUEST_ID
from .heads import Head, http_date
from .request import Request

if TYPE_CHECKING:
    from .http1 import Http1Connection

__all__ = ["Exchange"]

BODYLESS = {204, 304}


class Exchange(Request):
    """One request and its answer: `receive` and `send` of one ASGI call.

    Attributes:
        has_begun: It is being answered, or was.
        keeps: The connection stays open after it.
    """

    __slots__ = (
        "_connection",
        "_is_bodyless",
        "_is_chunked",
        "_start",
        "_version",
        "_wants_continue",
        "has_answered",
        "has_begun",
        "has_started",
        "keeps",
        "task",
    )

    def __init__(self, connection: Http1Connection, head: Head | None = None, version: str = "1.1") -> None:
        super().__init__(head)
        self._connection = connection
        self._start: Message | None = None
        self._is_chunked = False
        self._version = version
        self._is_bodyless = head is not None and head.is_head
        self._wants_continue = head is not None and head.wants_continue
        self.has_begun = self.has_started = self.has_answered = False
        self.keeps = True
        self.task: asyncio.Task[Any] | None = None

    async def receive(self) -> Message:
        """As `Request.receive`; a client that asks first is told to send."""
        if self._wants_continue and not self.has_started:
            self._wants_continue = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await super().receive()

    def read(self, count: int) -> None:
        """As `Request.read`."""
        self._connection.consumed(count)

    def reply(self, status: int, headers: Headers, body: bytes, trailers: Headers | None = None) -> None:
        """As `Request.reply`; HTTP/1.1 has no trailers here."""
        self._start = {"status": status, "headers": headers}
        self.answer(body, is_last=True)

    async def send(self, message: Message) -> None:
        """ASGI's `send`. Raises OSError where the client is gone."""
        if self.is_gone:
            raise OSError("the client is gone")
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self.answer(message.get("body", b""), is_last=not message.get("more_body", False))
            await self._connection.until_writable()

    def refuse(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """An answer of our own, after which the connection closes."""
        self.keeps = False
        self.reply(status, headers, body)

    def answer(self, body: bytes, *, is_last: bool) -> None:
        """More of the answer, or all of it."""
        out = b""
        if self._start is not None:
            out = self._head(self._start, len(body) if is_last else None)
            self._start, self.has_started = None, True
        if not self._is_bodyless:
            if self._is_chunked:
                out += (b"%x\r\n%b\r\n" % (len(body), body)) if body else b""
                out += b"0\r\n\r\n" if is_last else b""
            else:
                out += body
        self._connection.write(out)
        if is_last:
            self.has_answered = True
            self._connection.end_exchange(self)

    def _head(self, start: Message, size: int | None) -> bytes:
        status: int = start["status"]
        head, names = _dated_head(status, tuple(start.get("headers", ())), http_date())
        if status in BODYLESS:
            self._is_bodyless = True
        elif b"content-length" not in names:
            if size is not None:
                head += b"content-length: %d\r\n" % size
            elif self._version == "1.1":
                head += b"transfer-encoding: chunked\r\n"
                self._is_chunked = True
            else:
                self.keeps = False
        if REQUEST_ID not in names and self.request_id:
            head += b"%b: %b\r\n" % (REQUEST_ID, self.request_id)
        self.keeps = self.keeps and not self._connection.is_leaving and b"connection" not in names
        if not self.keeps:
            head += b"connection: close\r\n"
        elif self._version == "1.0":
            head += b"connection: keep-alive\r\n"
        return head + b"\r\n"


@lru_cache(256)
def _dated_head(
    status: int, headers: tuple[tuple[bytes, bytes], ...], date: bytes
) -> tuple[bytes, frozenset[bytes]]:
    """An answer's head without its last line, and the names in it. Raises ValueError for what no header may
    hold."""
    head = f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode()
    for name, value in headers:
        if not name or not _UNCLEAN.isdisjoint(name) or not _UNCLEAN.isdisjoint(value):
            raise ValueError(f"the header {name!r} has no name, or holds the end of a line")
        head += b"%b: %b\r\n" % (name.lower(), value)
    return head + b"date: %b\r\n" % date, frozenset(name.lower() for name, _ in headers)


_UNCLEAN = frozenset(b"\r\n\0")
_PHRASES = {each.value: each.phrase for each in http.HTTPStatus}
