"""The hot path of an update: small ones are read and checked on the loop, and wait for the journal there.

A thread for each call would be woken twice, and beside a loop that is never idle wait for the interpreter
each time. So the loop puts what is to be written straight into the journal's queue, and the journal's thread
wakes the loop once for all calls that it wrote together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from earshot.errors import EarshotError, ResourceExhausted
from earshot.index.journal import Call, Entry

from ..pace import SHORTEST_RETRY_SECONDS
from ..service import Service
from ..telemetry import CallRecord, current
from ..update_methods import (
    remove_datapoints,
    remove_request,
    removed,
    upsert_datapoints,
    upsert_request,
    upserted,
)
from ..updates import Update
from ..workers import Workers

__all__ = ["Updater"]

Result = TypeVar("Result")

SMALL_BYTES = 16 << 10
"""Of a request that the loop reads itself: searches wait for it, about as long as threads take turns."""


class Updater:
    """Upserts and removes of one service, from all connections. Belongs to one event loop."""

    def __init__(self, service: Service, workers: Workers, *, max_queue: int) -> None:
        self._service = service
        self._workers = workers
        self._max_queue = max_queue

    async def upsert_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to an `UpsertDatapointsRequest`. Raises as `Updates.upsert`, and ResourceExhausted."""
        if len(data) > SMALL_BYTES:
            return await self._in_thread(record, upsert_datapoints, self._service, data)
        request = upsert_request(data)
        updates = self._service.updates
        if not updates.is_quick(request):
            return upserted(await self._in_thread(record, updates.upsert, request))
        with current(record):
            update = updates.prepared_upsert(request)
        return upserted(update.upserted(await self._write(update, record)))

    async def remove_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to a `RemoveDatapointsRequest`. Raises as `Updates.remove`, and ResourceExhausted."""
        if len(data) > SMALL_BYTES:
            return await self._in_thread(record, remove_datapoints, self._service, data)
        request = remove_request(data)
        updates = self._service.updates
        if not updates.is_quick(request):
            return removed(await self._in_thread(record, updates.remove, request))
        with current(record):
            update = updates.prepared_remove(request)
        return removed(update.removed(await self._write(update, record)))

    async def _in_thread(
        self, record: CallRecord, function: Callable[..., Result], *arguments: Any
    ) -> Result:
        with current(record):
            return await self._workers.write(function, *arguments)

    async def _write(self, update: Update, record: CallRecord) -> int:
        if not update.entries:
            return 0
        journal = update.feed.owned
        assert journal is not None  # `is_quick` looked, and what is owned stays so
        if journal.waiting >= self._max_queue:
            raise ResourceExhausted(
                f"{journal.waiting} updates wait for this index already; try again in a moment",
                retry_after=SHORTEST_RETRY_SECONDS,
            )
        started = time.perf_counter()
        call = _Call(update.entries, update.request_id, record.deadline)
        journal.submit(call)
        try:
            return await call.future
        finally:
            record.note("write", started, time.perf_counter())


class _Call(Call):
    """A task of the running loop waits; where it is cancelled, what has not begun is not written."""

    def __init__(self, entries: Sequence[Entry], request_id: str | None, deadline: float | None) -> None:
        super().__init__(entries, request_id, deadline)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[int] = self.loop.create_future()

    def begins(self) -> bool:
        return not self.future.done()

    @staticmethod
    def settle(calls: Sequence[_Call]) -> None:
        for loop in {call.loop for call in calls}:
            loop.call_soon_threadsafe(_tell, [call for call in calls if call.loop is loop])


def _tell(calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.future.done():
            continue
        if isinstance(call.outcome, EarshotError):
            call.future.set_exception(call.outcome)
        else:
            call.future.set_result(call.outcome)
