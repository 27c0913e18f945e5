"""Blocking calls off the event loop: so many at a time, so many waiting, none that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any, TypeVar

from earshot.errors import DeadlineExceeded, ResourceExhausted

from .telemetry import CURRENT, CallRecord, current

__all__ = ["Workers"]

Result = TypeVar("Result")


class Workers:
    """`executor`'s threads, at most `max_under_way` calls running or waiting. Belongs to one loop."""

    def __init__(self, executor: Executor, *, max_under_way: int) -> None:
        self._executor = executor
        self._max_under_way = max_under_way
        self._under_way = 0

    async def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`function(*arguments)` in a thread, on behalf of the current call, whose stages it may note.

        Raises ResourceExhausted at once where as many wait as may, and DeadlineExceeded when the call's
        deadline passes; then, and where this task is cancelled, what has not begun never does.
        """
        if self._under_way >= self._max_under_way:
            raise ResourceExhausted(
                f"{self._under_way} requests are under way already; try again in a moment"
            )
        record = CURRENT.get() or CallRecord("", "")
        submitted = time.perf_counter()

        def work() -> Result:
            record.note("queue", submitted, time.perf_counter())
            if record.deadline is not None and time.monotonic() >= record.deadline:
                raise DeadlineExceeded("the deadline passed while the request waited")
            with current(record):
                return function(*arguments)

        future = asyncio.get_running_loop().run_in_executor(self._executor, copy_context().run, work)
        self._under_way += 1
        future.add_done_callback(self._ended)
        if record.deadline is None:
            return await future
        try:
            async with asyncio.timeout(record.deadline - time.monotonic()) as waiting:
                return await future
        except TimeoutError:
            if not waiting.expired():
                raise
            raise DeadlineExceeded("the deadline passed before the answer was ready") from None

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # otherwise asyncio logs that nobody looked at it
