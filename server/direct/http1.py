"""HTTP/1.1 on the event loop, parsed by llhttp (httptools). Source: RFC 9112."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from ..hot.asgi import forget_frames
from ..hot.framing import Headers
from ..limits import MAX_HEADER_BYTES
from .closing import Closing
from .exchange import Exchange
from .heads import Head, head_of
from .refusals import refusal
from .served import HEAD_SECONDS, Served

__all__ = ["Http1Connection"]

log = logging.getLogger(__name__)

MAX_WAITING = 16  # requests that were sent before the answers of those before
MAX_UNREAD = 1 << 20  # bytes of bodies
LATELY_SECONDS = 1.0  # a busy client asks again in that time, even where others have the processor
REMEMBERED, REMEMBERED_BYTES = 16, 2 << 10  # heads, as clients send the same again and again, and of one
_NOBODYS = httptools.HttpRequestParser(None)


class Http1Connection(asyncio.Protocol):
    """One connection. Requests that come before the answers of earlier ones wait for these.

    Args:
        served: Who is called for each request.
        lost: Called with the connection when it is no more.

    Attributes:
        is_leaving: The next answer is the last.
    """

    def __init__(self, served: Served, lost: Callable[[Http1Connection], None]) -> None:
        self._served = served
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._exchanges: deque[Exchange] = deque()
        self._target = b""
        self._headers: Headers = []
        self._known: dict[tuple[object, ...], Head] = {}
        self._in_head, self._head_bytes, self._head_since = False, 0, 0.0
        self._reading: Exchange | None = None
        self._unread = 0
        self._unparsed = 0  # bytes of a body that the parser leaves to us
        self._is_paused = False
        self._writable: asyncio.Event | None = None
        self._is_ending = self._is_deaf = False
        self._closing = Closing()
        self.is_leaving = False
        self.touched = self._loop.time()

    # The loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps it."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Parses it."""
        if self._is_ending:
            return
        self.touched = self._loop.time()
        if self._is_deaf:
            self._on_unparsed(data)
        else:
            self._parse(data)
        self._begin_first()

    def _parse(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)  # of a head that goes on, all of which is kept
            if self._head_bytes > 2 * MAX_HEADER_BYTES:
                self._end_after(f"the headers have more than {MAX_HEADER_BYTES} bytes")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # RFC 9110, section 7.8: who does not know the other protocol answers in this one. The parser has
            # stopped after the head, so the request is the last.
            self.is_leaving = self._is_deaf = True
            self._on_unparsed(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._end_after(str(error) or "the request is no HTTP/1.1")

    def eof_received(self) -> bool:
        """The client sends no more; what it asked is answered, but over TLS, which has no half of a close."""
        if (
            not self._exchanges
            or self._in_head
            or self._reading is not None
            or self._served.scheme == "https"
        ):
            return False
        self.is_leaving = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """All requests are given up."""
        self._is_ending = True
        self._transport = None
        for exchange in self._exchanges:
            exchange.lose()
        self._exchanges.clear()
        self.resume_writing()
        self._parser = _NOBODYS  # ours has our methods
        self._lost(self)

    def pause_writing(self) -> None:
        """The socket is full."""
        self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It takes more."""
        if self._writable is not None:
            self._writable.set()
            self._writable = None
            self._begin_first()

    # The parser tells

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head, self._head_bytes, self._head_since = True, 0, self.touched

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = False
        headers, target = self._headers, self._target
        self._headers, self._target = [], b""
        method, version = self._parser.get_method(), self._parser.get_http_version()
        said: tuple[object, ...] = method, target, version, *headers
        head = self._known.get(said)
        if head is None:
            head = self._head(method, target, version, headers)
            size = len(target) + sum(len(name) + len(value) for name, value in headers)
            if size <= REMEMBERED_BYTES and not self._parser.should_upgrade():
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[said] = head
        self._reading = exchange = Exchange(self, head, version)
        exchange.keeps = self._parser.should_keep_alive()
        self._exchanges.append(exchange)
        self._pause_where_full()

    def _head(self, method: bytes, target: bytes, version: str, headers: Headers) -> Head:
        if not target.startswith(b"/"):  # the absolute form, as for proxies
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        head = head_of(method.decode(), target, headers, scheme=self._served.scheme, version=version)
        if self._parser.should_upgrade():
            self._unparsed = head.length or 0
            if any(name == b"transfer-encoding" for name, _ in headers):
                head.problem = "a body with a request for another protocol needs a content-length"
        return head

    def on_body(self, data: bytes) -> None:
        """A part of a body."""
        if self._reading is not None and not self._reading.is_gone:
            self._unread += len(data)
            self._reading.feed(data)
            self._pause_where_full()

    def on_message_complete(self) -> None:
        """The request is whole; the next one may begin."""
        if self._unparsed and self._parser.should_upgrade():
            return
        if self._reading is not None:
            self._reading.end()
            self._reading = None

    def _begin_first(self) -> None:
        """The one whose turn it is; only now, for what has come whole may go without a task.

        Not while the client does not read: answers would heap up.
        """
        exchange = self._exchanges[0] if self._exchanges else None
        if exchange is None or exchange.has_begun or exchange.head is None:
            return
        if self._is_ending or self._writable is not None:
            return
        exchange.has_begun = True
        if exchange.head.problem is not None:
            exchange.refuse(*refusal(exchange.head.problem, []))
        elif not exchange.begin(self._served.whole):
            call = self._served.app(exchange.scope(), exchange.receive, exchange.send)
            exchange.task = self._loop.create_task(call)
            exchange.task.add_done_callback(lambda task: self._on_end(exchange, task))

    def _on_unparsed(self, data: bytes) -> None:
        """More of the body of a request that asked for another protocol."""
        part = data[: self._unparsed]
        self._unparsed -= len(part)
        if part:
            self.on_body(part)
            if not self._unparsed:
                self.on_message_complete()

    # The listener tells

    def look(self, now: float, idle_seconds: float) -> None:
        """Ends a connection on which a head does not become whole, or nothing happens for long."""
        if self._is_ending:
            if self._transport is not None:
                self._closing.look(self._transport, now)
        elif self._in_head and now - self._head_since > HEAD_SECONDS:
            self._end_after("the request did not become whole")
        elif now - self.touched > idle_seconds:
            self.abort()

    def leave(self) -> None:
        """The next answer says that it is the last."""
        self.is_leaving = True

    def close(self) -> None:
        """Closes once what was asked is answered.

        Who asked lately may be about to ask again, and is told by that answer.
        """
        self.is_leaving = True
        if self._exchanges or self._in_head or self._is_ending:
            return
        lately = self.touched + LATELY_SECONDS - self._loop.time()
        if lately > 0:
            self._loop.call_later(lately, self.close)
        else:
            self._close()

    def abort(self) -> None:
        """Ends now."""
        if self._transport is not None:
            self._transport.abort()

    # Exchanges tell

    def write(self, data: bytes) -> None:
        """To the client."""
        if self._transport is not None:
            self._transport.write(data)

    async def until_writable(self) -> None:
        """Waits while the socket is full."""
        while self._writable is not None:
            await self._writable.wait()

    def consumed(self, count: int) -> None:
        """So many bytes of bodies are read."""
        self._unread -= count
        if self._is_paused and self._unread <= MAX_UNREAD and len(self._exchanges) <= MAX_WAITING:
            self._is_paused = False
            if self._transport is not None:
                self._transport.resume_reading()

    def end_exchange(self, exchange: Exchange) -> None:
        """It is answered: the next one's turn."""
        if not self._exchanges or self._exchanges[0] is not exchange:
            return
        self._exchanges.popleft()
        unread, exchange.size = exchange.size, 0
        exchange.lose()
        self.consumed(unread)
        if not exchange.keeps:
            self._close()
        elif self._exchanges:
            self._loop.call_soon(self._begin_first)
        elif self.is_leaving:
            self._close()

    def _on_end(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        """The application has returned."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError):
            forget_frames(error)
        elif error is not None:
            log.error("a call failed in a way that was not foreseen", exc_info=error)
        if not exchange.has_answered and not exchange.is_gone:
            if exchange.has_started:
                self.abort()
            else:
                exchange.refuse(500, [(b"content-type", b"text/plain")], b"internal error")

    def _end_after(self, problem: str) -> None:
        """What cannot be read is refused, and nothing after it is read; what is being answered is lost."""
        self._is_ending = True
        if not self._exchanges:
            self._exchanges.append(exchange := Exchange(self))
            exchange.refuse(*refusal(problem, []))
        else:
            self._close()

    def _pause_where_full(self) -> None:
        full = self._unread > MAX_UNREAD or len(self._exchanges) > MAX_WAITING
        if full and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _close(self) -> None:
        self._is_ending = True
        if self._transport is not None:
            self._transport.close()
