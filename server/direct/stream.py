"""One request over HTTP/2, and its answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..hot.asgi import Message
from ..hot.framing import Headers
from .frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    Error,
    data_frames,
    frame,
    window_update,
)
from .header_blocks import answer_block, trailer_block
from .heads import Head
from .request import Request

if TYPE_CHECKING:
    from .http2 import Http2Connection

__all__ = ["STREAM_WINDOW", "Stream"]

STREAM_WINDOW = 1 << 20
"""Bytes that a client may send of a request before the application has read any."""

_GONE = "the client is gone"


class Stream(Request):
    """`receive` and `send` of one ASGI call. Belongs to its connection.

    Attributes:
        number: The stream's, odd.
        task: The call's, kept as asyncio itself does not keep tasks.
        window: Bytes that the client will still take.
        credit: Bytes that it may still send.
        expected: Bytes that it announced, where it did, less what came.
    """

    __slots__ = (
        "_connection",
        "_has_trailers",
        "_is_bodyless",
        "_queue",
        "_read",
        "_start",
        "_writable",
        "credit",
        "expected",
        "has_answered",
        "has_started",
        "number",
        "task",
        "window",
    )

    def __init__(self, connection: Http2Connection, number: int, window: int, head: Head) -> None:
        super().__init__(head)
        self._connection = connection
        self.number = number
        self.window = window
        self.credit = STREAM_WINDOW
        self.expected = head.length
        self.task: asyncio.Task[None] | None = None
        self.has_started = self.has_answered = False
        self._read = 0
        self._is_bodyless = head.is_head
        self._start: Message | None = None
        self._has_trailers = False
        self._queue: deque[tuple[memoryview, bool] | bytes] = deque()  # bodies, and frames
        self._writable: asyncio.Future[None] | None = None

    def read(self, count: int) -> None:
        """As `Request.read`."""
        self._connection.consumed(count)
        self._read += count
        if not self.has_ended and 2 * self._read >= STREAM_WINDOW:
            self.credit += self._read
            self._connection.write(window_update(self.number, self._read))
            self._read = 0

    def lose(self) -> None:
        """As `Request.lose`; what was not read counts as read, and what was not sent is forgotten."""
        if self.is_gone:
            return
        if self.size:
            self._connection.consumed(self.size)
            self.size = 0
        self._queue.clear()
        super().lose()
        self._can_write()

    def take(self, data: bytes, size: int, *, is_last: bool) -> int:
        """Data of a frame that has `size` bytes with its padding; returns a code for what is wrong, 0 for
        nothing."""
        if self.has_ended:
            return Error.STREAM_CLOSED
        if size > self.credit:
            return Error.FLOW_CONTROL_ERROR
        self.credit -= size
        self._read += size - len(data)  # padding, which nobody will read
        if self.expected is not None:
            self.expected -= len(data)
            if self.expected < 0 or (is_last and self.expected):
                return Error.PROTOCOL_ERROR
        if data:
            self.feed(data)
        if is_last:
            self.end()
        return 0

    def reply(self, status: int, headers: Headers, body: bytes, trailers: Headers | None = None) -> None:
        """As `Request.reply`."""
        connection, size = self._connection, len(body)
        if 0 < size <= FRAME_BYTES and size <= self.window and size <= connection.window:
            self.window -= size
            connection.window -= size
            block, number = answer_block(status, headers, self.request_id), self.number
            said = frame(HEADERS, END_HEADERS, number, block)
            said += frame(DATA, 0 if trailers else END_STREAM, number, body)
            if trailers:
                said += frame(HEADERS, END_HEADERS | END_STREAM, number, trailer_block(trailers))
            connection.write(said)
            self._finish()
            return
        self._start = {"status": status, "headers": headers, "trailers": bool(trailers)}
        self._send_body(body, is_last=True)
        if trailers:
            self._send_trailers(trailers)

    async def send(self, message: Message) -> None:
        """ASGI's `send`. Raises OSError where the client is gone, ValueError for a header that cannot be."""
        if self.is_gone:
            raise OSError(_GONE)
        kind = message["type"]
        if kind == "http.response.start":
            # It waits for the first of the body: an answer that is nothing but headers is one frame.
            self._start = message
            return
        if kind == "http.response.body":
            self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))
        elif kind == "http.response.trailers" and self._has_trailers:
            self._send_trailers(message["headers"])
        if self._queue or self._connection.is_full:
            await self._until_sent()

    def refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
        """An answer of our own, where the application gave none."""
        self._start = {"status": status, "headers": headers}
        self._send_body(body, is_last=True)

    def pump(self) -> bool:
        """Sends what waits as far as the windows allow; returns whether all went."""
        connection = self._connection
        while self._queue:
            item = self._queue[0]
            if isinstance(item, bytes):
                connection.write(item)
                self._queue.popleft()
                continue
            body, is_last = item
            size = min(len(body), self.window, connection.window)
            if size < len(body):
                if size > 0:
                    # Whole frames where there is room for them.
                    size = size if size < FRAME_BYTES else size // FRAME_BYTES * FRAME_BYTES
                    self._write_data(body[:size], is_last=False)
                    self._queue[0] = body[size:], is_last
                    continue
                return False
            self._queue.popleft()
            self._write_data(body, is_last=is_last)
        if self.has_answered:
            connection.forget(self)
        self._can_write()
        return True

    def can_write(self) -> None:
        """The socket takes more."""
        if not self._queue:
            self._can_write()

    def _send_body(self, body: bytes, *, is_last: bool) -> None:
        start, self._start = self._start, None
        if start is not None:
            self.has_started = True
            self._has_trailers = bool(start.get("trailers", False))
            is_end = is_last and not self._has_trailers
            block = answer_block(start["status"], start.get("headers", ()), self.request_id)
            if is_end and (self._is_bodyless or not body):
                self._put(frame(HEADERS, END_HEADERS | END_STREAM, self.number, block))
                self._finish()
                return
            self._put(frame(HEADERS, END_HEADERS, self.number, block))
        if self._is_bodyless:
            body = b""
        is_end = is_last and not self._has_trailers
        if body or is_end:
            if not self._queue and len(body) <= self.window and len(body) <= self._connection.window:
                self._write_data(body, is_last=is_end)
            else:
                self._queue.append((memoryview(body), is_end))
                if not self.pump():
                    self._connection.wait(self)
        if is_end:
            self._finish()

    def _send_trailers(self, trailers: Headers) -> None:
        self._put(frame(HEADERS, END_HEADERS | END_STREAM, self.number, trailer_block(trailers)))
        self._finish()

    def _write_data(self, body: bytes | memoryview, *, is_last: bool) -> None:
        self.window -= len(body)
        self._connection.window -= len(body)
        self._connection.write(
            frame(DATA, END_STREAM if is_last else 0, self.number, body)
            if len(body) <= FRAME_BYTES
            else data_frames(self.number, body, end=is_last)
        )

    def _put(self, data: bytes) -> None:
        if self._queue:
            self._queue.append(data)
        else:
            self._connection.write(data)

    def _finish(self) -> None:
        self.has_answered = True
        if not self._queue:
            self._connection.forget(self)

    async def _until_sent(self) -> None:
        while (self._queue or self._connection.is_full) and not self.is_gone:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable
        if self.is_gone and not self.has_answered:
            raise OSError(_GONE)

    def _can_write(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
