"""StreamSearch without a transport: many queries under way at once, answered in the order they came."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

from google.rpc import status_pb2  # type: ignore[import-untyped]

from earshot.errors import EarshotError, Internal, row_of
from earshot.v1 import search_service_pb2

from .limits import checked_size
from .wire import field

__all__ = ["stream_search"]

log = logging.getLogger(__name__)

# Of one stream; the next query is read when an answer has left, so a fast sender is slowed, not refused.
MAX_UNDER_WAY = 256

_FIELDS = search_service_pb2.StreamSearchResponse.DESCRIPTOR.fields_by_name
_RESPONSE, _ERROR = _FIELDS["response"].number, _FIELDS["error"].number


Search = Callable[[bytes], asyncio.Future[Sequence[bytes]]]
"""From a `SearchRequest` to the `SearchResponse` to come, in one piece or more."""


async def stream_search(
    requests: AsyncIterator[Sequence[bytes]], search: Search, max_answer_bytes: int = sys.maxsize
) -> AsyncGenerator[Sequence[bytes]]:
    """Answers to a stream of queries: `StreamSearchResponse` messages, in bundles of what is ready.

    `requests` come in bundles as well, and all of a bundle is under way before anything is waited for, so
    that a batcher can take it together. `search` starts one `SearchRequest` and has a `SearchResponse`;
    where it fails, that answer is an error and the stream goes on. What `requests` raises comes after the
    answers to all that arrived before.
    """
    queries = _Queries(requests, search, max_answer_bytes)
    try:
        while answers := await queries.answers():
            yield answers
        await queries.reading
    finally:
        queries.cancel()


class _Queries:
    """The queries of one stream from their arrival to their answer."""

    def __init__(
        self, requests: AsyncIterator[Sequence[bytes]], search: Search, max_answer_bytes: int
    ) -> None:
        self._max_answer_bytes = max_answer_bytes
        self._under_way: deque[asyncio.Future[Sequence[bytes]]] = deque()
        self._has_all = False
        self._came, self._left = asyncio.Event(), asyncio.Event()
        self.reading = asyncio.create_task(self._read(requests, search))
        self.reading.add_done_callback(self._ended)

    async def answers(self) -> list[bytes]:
        """What is ready, in order; waits for the first, and is empty after the last."""
        while not self._under_way:
            if self._has_all:
                return []
            self._came.clear()
            await self._came.wait()
        if not self._under_way[0].done():
            await asyncio.wait([self._under_way[0]])
        ready = []
        while self._under_way and self._under_way[0].done():
            ready.append(_answer(self._under_way.popleft(), self._max_answer_bytes))
        self._left.set()
        return ready

    def cancel(self) -> None:
        """Reads no more, and drops what nobody waits for."""
        self.reading.cancel()
        for future in self._under_way:
            future.cancel()

    async def _read(self, requests: AsyncIterator[Sequence[bytes]], search: Search) -> None:
        async for bundle in requests:
            for request in bundle:
                while len(self._under_way) >= MAX_UNDER_WAY:
                    self._left.clear()
                    await self._left.wait()
                self._under_way.append(search(request))
                self._came.set()

    def _ended(self, reading: asyncio.Task[None]) -> None:
        if not reading.cancelled():
            reading.exception()  # otherwise asyncio logs that nobody looked at it
        self._has_all = True
        self._came.set()


def _answer(done: asyncio.Future[Sequence[bytes]], limit: int) -> bytes:
    try:
        return field(_RESPONSE, checked_size(b"".join(done.result()), limit))
    except EarshotError as error:
        failure = error
    except Exception:
        log.exception("a query of a stream failed in a way that was not foreseen")
        failure = Internal("internal error; the server's log has the cause")
    status: bytes = status_pb2.Status(code=row_of(failure).grpc, message=failure.message).SerializeToString()
    return field(_ERROR, status)
