"""The body of a request on its way from a connection to the application."""

from __future__ import annotations

import asyncio

from ..hot.asgi import Message
from ..hot.whole import WholeCall

__all__ = ["RequestBody"]


class RequestBody:
    """What has come and was not yet read. Belongs to one event loop; `receive` may be cancelled.

    Attributes:
        call: What answers it without a task, where that is so.
        size: Bytes that wait to be read.
        has_ended: All has come.
        is_gone: The client is, or the answer is complete: nothing more will be read.
    """

    __slots__ = ("_bytes", "_has_told_end", "_waiter", "call", "has_ended", "is_gone", "size")

    def __init__(self) -> None:
        self._bytes: bytes | bytearray = b""
        self._waiter: asyncio.Future[None] | None = None
        self.call: WholeCall | None = None
        self.size = 0
        self.has_ended = self.is_gone = self._has_told_end = False

    def feed(self, data: bytes) -> None:
        """More of it."""
        if not self.size:
            self._bytes = data
        elif isinstance(self._bytes, bytearray):
            self._bytes += data
        else:
            self._bytes = bytearray(self._bytes + data)
        self.size += len(data)
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self.has_ended = True
        self._wake()

    def lose(self) -> None:
        """The client is gone, or has its answer."""
        self.is_gone = True
        if self.call is not None:
            self.call.lose()
        self._wake()

    async def receive(self) -> Message:
        """ASGI's `receive`: what has come since the last call, at least something, or the disconnect."""
        while not (self.is_gone or self.size or (self.has_ended and not self._has_told_end)):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.is_gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self.take_all(), "more_body": not self.has_ended}

    @property
    def waiting(self) -> bytes:
        """What waits to be read."""
        return bytes(self._bytes)

    def take_all(self) -> bytes:
        """The same, and now it is read."""
        data, size = bytes(self._bytes), self.size
        self._bytes, self.size = b"", 0
        self._has_told_end = self.has_ended
        self.read(size)
        return data

    def read(self, count: int) -> None:
        """So many bytes went to the application, and so many more may come."""

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
