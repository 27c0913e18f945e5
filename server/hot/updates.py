"""The hot path of an update: small ones are read and checked on the loop, and all wait for the journal there.

A thread that waits would be woken once more, and beside a loop that is never idle wait for the interpreter
each time. So whoever has checked an update puts it straight into the journal's queue, and the journal's
thread wakes the loop once for all calls that it wrote together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from earshot.errors import EarshotError, ResourceExhausted
from earshot.index.journal import Call

from ..pace import SHORTEST_RETRY_SECONDS
from ..service import Service
from ..telemetry import CallRecord, current, stage
from ..update_methods import packed_upsert, remove_request, removed, upsert_request, upserted
from ..updates import Update, Upsert
from ..workers import Workers

__all__ = ["Updater"]

SMALL_BYTES = 16 << 10
"""Of a request that the loop reads itself: searches wait for it, about as long as threads take turns."""
SMALL_PACKED_BYTES = 128 << 10
"""The same where each datapoint is an id and a packed vector."""


class Updater:
    """Upserts and removes of one service, from all connections. Belongs to one event loop."""

    def __init__(self, service: Service, workers: Workers, *, max_queue: int) -> None:
        self._updates = service.updates
        self._workers = workers
        self._max_queue = max_queue

    async def upsert_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to an `UpsertDatapointsRequest`. Raises as `Updates.upsert`, and ResourceExhausted."""
        request: Upsert | None = None
        if len(data) <= SMALL_BYTES:
            request = upsert_request(data)
        elif len(data) <= SMALL_PACKED_BYTES:
            request = packed_upsert(data)
        updates = self._updates
        here = request is not None and updates.is_quick(request)
        update, sequence = await self._updated(
            lambda: updates.prepared_upsert(request or upsert_request(data)), record, here=here
        )
        return upserted(update.upserted(sequence))

    async def remove_message(self, data: bytes, record: CallRecord) -> bytes:
        """The answer to a `RemoveDatapointsRequest`. Raises as `Updates.remove`, and ResourceExhausted."""
        request = remove_request(data) if len(data) <= SMALL_BYTES else None
        updates = self._updates
        here = request is not None and updates.is_quick(request)
        update, sequence = await self._updated(
            lambda: updates.prepared_remove(request or remove_request(data)), record, here=here
        )
        return removed(update.removed(sequence))

    async def _updated(
        self, prepare: Callable[[], Update], record: CallRecord, *, here: bool
    ) -> tuple[Update, int]:
        """What was written, and its number; 0 where there was nothing to write.

        It is prepared here, or by a thread where searches would have to wait for it.
        """
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def begin(update: Update) -> Update:
            """The journal's thread wakes the loop: no thread of ours waits for it."""
            if update.entries:
                journal = update.feed.own()
                if journal.waiting >= self._max_queue:
                    raise ResourceExhausted(
                        f"{journal.waiting} updates wait for this index already; try again in a moment",
                        retry_after=SHORTEST_RETRY_SECONDS,
                    )
                journal.submit(_Call(update, record.deadline, written))
            return update

        try:
            with current(record):
                update = begin(prepare()) if here else await self._workers.write(lambda: begin(prepare()))
                with stage("write"):
                    return update, await written if update.entries else 0
        finally:
            # What has not begun is not written for somebody who is gone; and what nobody heard is no error.
            if not written.cancel() and not written.cancelled():
                written.exception()


class _Call(Call):
    """A task waits for `written`; where that is cancelled, what has not begun is not written."""

    def __init__(self, update: Update, deadline: float | None, written: asyncio.Future[int]) -> None:
        super().__init__(update.entries, update.request_id, deadline, update.bodies)
        self.written = written

    def begins(self) -> bool:
        return not self.written.done()

    @staticmethod
    def settle(calls: Sequence[_Call]) -> None:
        for loop in {call.written.get_loop() for call in calls}:
            loop.call_soon_threadsafe(_tell, [call for call in calls if call.written.get_loop() is loop])


def _tell(calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.written.done():
            continue
        if isinstance(call.outcome, EarshotError):
            call.written.set_exception(call.outcome)
        else:
            call.written.set_result(call.outcome)
