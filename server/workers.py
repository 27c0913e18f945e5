"""Blocking calls off the event loop: so many at a time, so many waiting, none that nobody waits for."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
from threadpoolctl import threadpool_limits

from earshot.errors import DeadlineExceeded, ResourceExhausted

from .pace import SHORTEST_RETRY_SECONDS, Pace
from .telemetry import CURRENT, CallRecord, current
from .visible import when_visible

__all__ = ["Workers", "multiply_on_one_thread", "spare_what_is_loaded", "take_short_turns"]

Result = TypeVar("Result")

WRITERS = 64
SWITCH_SECONDS = 0.0005


def take_short_turns() -> None:
    """Let this process's threads hand the interpreter over every half millisecond, not every five.

    An engine's thread gives it up in each NumPy call and wants it back at once; beside a loop that is never
    idle it would wait out a whole turn each time.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))


def spare_what_is_loaded() -> None:
    """Keep the garbage collector from looking at modules and the like again and again.

    Beside updates no thread ran for 60 to 90 ms, time and again. For a process that serves and does nothing
    else, before it opens an index: what is spared is never collected, and a version must be.
    """
    pa.array([0]).to_numpy()  # loads pandas where it is installed, which opening an index would
    gc.collect()
    gc.freeze()


def multiply_on_one_thread() -> None:
    """Let each matrix product of this process take one core, for as long as it lives.

    Where several threads multiply, BLAS's own threads wait for each other and for a lock that all share.
    While a segment was sealed, searches of fresh rows waited for it: 11.7 ms at the p99, and not 1.7.
    """
    threadpool_limits(limits=1, user_api="blas")


class Workers:
    """`executor`'s `threads`, and at most `max_queue` calls that wait for one. Belongs to one loop."""

    def __init__(self, executor: Executor, *, threads: int, max_queue: int) -> None:
        self._executor = executor
        self._threads = threads
        self._max_queue = max_queue
        self._writers: Workers | None = None
        self._under_way = 0
        self._pace = Pace(threads)

    @property
    def waiting(self) -> int:
        """How many calls wait for a thread."""
        return max(0, self._under_way - self._threads)

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`function(*arguments)` in a thread, on behalf of the current call, whose stages it may note.

        Where it raises NotYetVisible, it is called again until the call's time is nearly up. Raises
        ResourceExhausted at once where as many wait as may, or so many that the call's deadline would pass in
        the queue, and DeadlineExceeded when it passes; then, and where this task is cancelled, what has not
        begun never does.
        """
        record = CURRENT.get()
        deadline = None if record is None else record.deadline
        return await when_visible(partial(self._run, function, *arguments), deadline)

    async def write(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`run` for what mostly waits for the disk: in threads of its own, many of them.

        So callers share a write to disk, and no search waits for one.
        """
        if self._writers is None:
            executor = ThreadPoolExecutor(WRITERS, thread_name_prefix="earshot-write")
            self._writers = Workers(executor, threads=WRITERS, max_queue=self._max_queue)
        return await self._writers.run(function, *arguments)

    async def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        record = CURRENT.get() or CallRecord("", "")
        wait = self._pace.seconds(self.waiting)
        if self.waiting >= self._max_queue or self._pace.is_too_slow(self.waiting, record.deadline):
            raise ResourceExhausted(
                f"{self.waiting} requests wait already, about {wait:.2g} s of work; try again in a moment",
                retry_after=max(wait, SHORTEST_RETRY_SECONDS),
            )
        submitted = time.perf_counter()

        def work() -> Result:
            started = time.perf_counter()
            record.note("queue", submitted, started)
            if record.deadline is not None and time.monotonic() >= record.deadline:
                raise DeadlineExceeded("the deadline passed while the request waited")
            try:
                with current(record):
                    return function(*arguments)
            finally:
                self._pace.note(time.perf_counter() - started)

        future = asyncio.get_running_loop().run_in_executor(self._executor, copy_context().run, work)
        self._under_way += 1
        future.add_done_callback(self._ended)
        try:
            if record.deadline is None:
                return await future
            async with asyncio.timeout(record.deadline - time.monotonic()) as waiting:
                return await future
        except TimeoutError:
            if record.deadline is None or not waiting.expired():
                raise
            raise DeadlineExceeded("the deadline passed before the answer was ready") from None
        finally:
            del future  # what it raises has this frame

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # otherwise asyncio logs that nobody looked at it
