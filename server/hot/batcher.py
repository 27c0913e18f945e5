"""Micro-batching: what arrives while the engine is busy goes together, in one call, when it is free.

Nothing waits while the engine is idle. What was cancelled or came too late is dropped before it
costs engine time, and one bad item fails alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from earshot.errors import DeadlineExceeded, ResourceExhausted

from ..pace import SHORTEST_RETRY_SECONDS, Pace
from .batch_size import BatchSize

__all__ = ["Batcher"]

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Entry(Generic[Item, Result]):
    __slots__ = ("deadline", "future", "item", "weight")

    def __init__(
        self, item: Item, future: asyncio.Future[Result], deadline: float | None, weight: int
    ) -> None:
        self.item = item
        self.weight = weight
        self.future = future
        self.deadline = deadline


class _Lane(Generic[Key, Item, Result]):
    """What waits for one index: a queue for each key, served in turn."""

    def __init__(self) -> None:
        self.queues: dict[Key, deque[_Entry[Item, Result]]] = {}
        self.waiting = 0


class Batcher(Generic[Key, Item, Result]):
    """Calls `run(key, items)` in `executor`, at most `slots` at a time.

    Items weigh 1 unless told otherwise. Those of one call weigh `max_batch` at most, but for one that is
    heavier and goes alone. A lane where `max_waiting` wait takes no more. Items with equal keys may go
    together. Lanes take turns: a lane is whatever should have a fair share, here an index. `run` returns a
    result for each item, or raises, and then each item is run alone, so that only the bad ones fail.
    `on_batch` is told each call's lane and weight. `size_of` a key is what learns how much of it goes
    together, in the place of `max_batch`. Belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        slots: int,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[Hashable, int], None] | None = None,
        size_of: Callable[[Key], BatchSize | None] = lambda _: None,
    ) -> None:
        self._on_batch = on_batch
        self._size_of = size_of
        self._run = run
        self._executor = executor
        self._free = slots
        self._pace = Pace(slots)
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._lanes: dict[Hashable, _Lane[Key, Item, Result]] = {}
        self._flush_is_due = False

    def submit(
        self, lane: Hashable, key: Key, item: Item, deadline: float | None = None, *, weight: int = 1
    ) -> asyncio.Future[Result]:
        """A future of the item's result; cancel it to drop the item. `deadline` is a `time.monotonic()`.

        Raises ResourceExhausted at once where as many wait in this lane as may, or so many that the
        deadline would pass in the queue: work for an answer that comes too late is taken from the others.
        """
        loop = asyncio.get_running_loop()
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = _Lane()
        # The lanes that wait share the engine.
        ahead = waiting.waiting * len(self._lanes)
        if waiting.waiting >= self._max_waiting or self._pace.is_too_slow(ahead, deadline):
            wait = self._pace.seconds(ahead)
            raise ResourceExhausted(
                f"{waiting.waiting} requests wait for this index already, about {wait:.2g} s of work; "
                "try again in a moment",
                retry_after=max(wait, SHORTEST_RETRY_SECONDS),
            )
        future: asyncio.Future[Result] = loop.create_future()
        queue = waiting.queues.get(key)
        if queue is None:
            queue = waiting.queues[key] = deque()
        queue.append(_Entry(item, future, deadline, weight))
        waiting.waiting += weight
        if self._free and not self._flush_is_due:
            # Not at once: what else arrived in this turn of the loop comes along.
            self._flush_is_due = True
            loop.call_soon(self._flush)
        return future

    def waiting(self) -> dict[Hashable, int]:
        """How much waits in each lane. May be called from any thread."""
        return {name: lane.waiting for name, lane in list(self._lanes.items())}

    def _flush(self) -> None:
        self._flush_is_due = False
        while self._free and self._lanes:
            name, key, batch = self._take()
            if not batch:
                continue
            if self._on_batch is not None:
                self._on_batch(name, sum(entry.weight for entry in batch))
            self._free -= 1
            try:
                self._executor.submit(self._work, asyncio.get_running_loop(), key, batch)
            except RuntimeError as error:  # the executor was shut down
                self._deliver(batch, [error] * len(batch))

    def _take(self) -> tuple[Hashable, Key, list[_Entry[Item, Result]]]:
        """The next lane's next key and what can go together; lane and key move to the end of their line."""
        name = next(iter(self._lanes))
        lane = self._lanes.pop(name)
        key = next(iter(lane.queues))
        queue = lane.queues.pop(key)
        now = time.monotonic()
        batch: list[_Entry[Item, Result]] = []
        size = self._size_of(key)
        room = self._max_batch if size is None else size.limit
        while queue and (queue[0].weight <= room or not batch):
            entry = queue.popleft()
            lane.waiting -= entry.weight
            if entry.future.done():
                continue
            if entry.deadline is not None and now >= entry.deadline:
                entry.future.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
                continue
            batch.append(entry)
            room -= entry.weight
        if queue:
            lane.queues[key] = queue
        if lane.queues:
            self._lanes[name] = lane
        return name, key, batch

    def _work(self, loop: asyncio.AbstractEventLoop, key: Key, batch: list[_Entry[Item, Result]]) -> None:
        outcomes: Sequence[Result | BaseException]
        started = time.perf_counter()
        try:
            outcomes = self._outcomes(key, [entry.item for entry in batch])
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
            outcomes = [RuntimeError(f"the engine's thread ended: {error!r}")] * len(batch)
        loop.call_soon_threadsafe(self._finish, key, batch, outcomes, time.perf_counter() - started)

    def _outcomes(self, key: Key, items: list[Item]) -> Sequence[Result | BaseException]:
        try:
            return self._run(key, items)
        except Exception as error:  # noqa: BLE001  # sorted out below, one by one
            if len(items) == 1:
                return [error]
        return [outcome for item in items for outcome in self._outcomes(key, [item])]

    def _finish(
        self,
        key: Key,
        batch: list[_Entry[Item, Result]],
        outcomes: Sequence[Result | BaseException],
        seconds: float,
    ) -> None:
        self._free += 1
        weight = sum(entry.weight for entry in batch)
        self._pace.note(seconds, weight)
        size = self._size_of(key)
        if size is not None:
            size.note(seconds, weight)
        self._deliver(batch, outcomes)
        self._flush()

    def _deliver(self, batch: list[_Entry[Item, Result]], outcomes: Sequence[Result | BaseException]) -> None:
        for entry, outcome in zip(batch, outcomes, strict=True):
            if entry.future.done():
                continue
            if isinstance(outcome, BaseException):
                entry.future.set_exception(outcome)
            else:
                entry.future.set_result(outcome)
