"""One request, whatever HTTP it came by, on its way from a connection to whoever answers it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from ..hot.asgi import Message, Scope
from ..hot.framing import Headers
from ..hot.whole import WholeCall, WholeSearches
from .heads import Head

__all__ = ["Request"]


class Request(ABC):
    """Its head, and of its body what has come and was not yet read.

    Belongs to one event loop; `receive` may be cancelled.

    Attributes:
        head: What it says of itself; None where that could not be read.
        request_id: What the answer says of itself.
        size: Bytes that wait to be read.
        has_ended: All has come.
        is_gone: The client is, or the answer is complete: nothing more will be read.
    """

    __slots__ = (
        "_bytes",
        "_call",
        "_has_told_end",
        "_waiter",
        "has_ended",
        "head",
        "is_gone",
        "request_id",
        "size",
    )

    def __init__(self, head: Head | None) -> None:
        self.head = head
        self.request_id = b"" if head is None else head.request_id()
        self._bytes: bytes | bytearray = b""
        self._waiter: asyncio.Future[None] | None = None
        self._call: WholeCall | None = None
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
        # Call and request know of each other. Let go of here, both are freed at once, and nothing waits for
        # the garbage collector, which stops all threads.
        call, self._call = self._call, None
        if call is not None:
            call.lose()
        self._wake()

    def scope(self) -> Scope:
        """ASGI's, where there is a head."""
        assert self.head is not None
        return self.head.scope(self.request_id)

    def begin(self, whole: WholeSearches | None) -> bool:
        """Whether it has come whole and `whole` answers it, by `reply`."""
        if whole is None or self.head is None or not self.has_ended:
            return False
        if (route := self.head.route(whole)) is None:
            return False
        call = whole.begin(route, bytes(self._bytes), self)
        if call is None:
            return False
        if not self.is_gone:  # as when it was answered at once
            self._call = call
        self._take_all()
        return True

    @abstractmethod
    def reply(self, status: int, headers: Headers, body: bytes, trailers: Headers | None = None) -> None:
        """As `Reply.reply`."""

    async def receive(self) -> Message:
        """ASGI's `receive`: what has come since the last call, at least something, or the disconnect."""
        while not (self.is_gone or self.size or (self.has_ended and not self._has_told_end)):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.is_gone:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._take_all(), "more_body": not self.has_ended}

    def _take_all(self) -> bytes:
        data, size = bytes(self._bytes), self.size
        self._bytes, self.size = b"", 0
        self._has_told_end = self.has_ended
        self.read(size)
        return data

    @abstractmethod
    def read(self, count: int) -> None:
        """So many bytes went to the application, and so many more may come."""

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
