"""One look for all who ask meanwhile, where each wants what is so after it asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Together"]

THREADS = 4  # names that are looked at side by side

Result = TypeVar("Result")


class Together(Generic[Result]):
    """`function` of a name in a thread: who asks while it runs shares the next run. For one event loop.

    In threads of its own, which wait for no other work; there are none before the first look.
    """

    def __init__(self, function: Callable[[str], Result], name: str) -> None:
        self._executor = ThreadPoolExecutor(THREADS, name)
        self._function = function
        self._running: dict[str, asyncio.Future[Result]] = {}

    async def look(self, name: str) -> Result:
        """What a run returns, or raises, that began after this was called."""
        if (running := self._running.get(name)) is not None:
            await asyncio.wait([running])
        # The first who wakes up begins the next run, and the others find it.
        running = self._running.get(name)
        if running is None:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._executor, self._function, name)
            self._running[name] = running
            running.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(running)
