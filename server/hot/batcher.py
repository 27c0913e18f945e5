"""Micro-batching: what arrives while the engine is busy goes together, in one call, when it is free.

Nothing waits while the engine is idle. What was cancelled or came too late is dropped before it
costs engine time, and one bad item fails alone.

What is known to take less than waking another thread and hearing from it is done on the loop itself, one
batch a turn: what arrives meanwhile waits in the sockets, and is the next batch. So is what takes a little
longer and is all there is to do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from earshot.errors import ResourceExhausted

from ..pace import SHORTEST_RETRY_SECONDS, Pace
from .batch_size import BatchSize
from .cost import Cost
from .lanes import Entry, Lanes, Promise

__all__ = ["Batcher"]

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Key, Item, Result]):
    """Calls `run(key, items)` in `executor`, at most `slots` at a time, or on the loop where that is cheap.

    The last of several slots is for a whole batch, or as much as the others do: what is less gains more
    from company that comes meanwhile than from a core that the loop wants too. `ahead` whole batches more
    than there are slots, as large as those that run, wait in the executor, so that a thread that ends one
    finds the next: for an executor with as many threads as slots. Items weigh 1 unless told otherwise.
    Those of one call weigh `max_batch` at most, but for one that is heavier and goes alone. A lane where
    `max_waiting` wait takes no more. Items with equal keys may go together. Lanes take turns: a lane is
    whatever should have a fair share, here an index. `run` returns a result for each item, or raises, and
    then each item is run alone, so that only the bad ones fail. `on_batch` is told each call's lane and
    weight. `size_of` a key is what learns how much of it goes together, in the place of `max_batch`, and
    `cost_of` a key what learns how long that takes: as much as it has `room` for is run on the loop in
    one turn, and keys without stay off it. Belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Key, Sequence[Item]], Sequence[Result]],
        executor: Executor,
        *,
        slots: int,
        max_batch: int,
        max_waiting: int,
        ahead: int = 0,
        on_batch: Callable[[Hashable, int], None] | None = None,
        size_of: Callable[[Key], BatchSize | None] = lambda _: None,
        cost_of: Callable[[Key], Cost | None] = lambda _: None,
    ) -> None:
        self._on_batch = on_batch
        self._size_of = size_of
        self._cost_of = cost_of
        self._run = run
        self._executor = executor
        self._free = self._slots = slots
        self._ahead = ahead
        self._running = 0  # the weight of what is being done off the loop
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._dear: Lanes[Key, Item, Result] = Lanes()
        self._dear_pace = Pace(slots)
        self._cheap: Lanes[Key, Item, Result] = Lanes()
        self._cheap_pace = Pace(1)
        self._flush_is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(
        self, lane: Hashable, key: Key, item: Item, deadline: float | None = None, *, weight: int = 1
    ) -> asyncio.Future[Result]:
        """A future of the item's result; cancel it to drop the item. Else as `put`."""
        # Asked for once: before Python 3.12 it is a system call.
        loop = self._loop = self._loop or asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self.put(future, lane, key, item, deadline, weight=weight)
        return future

    def put(
        self,
        promise: Promise[Result],
        lane: Hashable,
        key: Key,
        item: Item,
        deadline: float | None = None,
        *,
        weight: int = 1,
    ) -> None:
        """The item's result goes into `promise`, at the latest by `deadline`, a `time.monotonic()`.

        Raises ResourceExhausted at once where as many wait in this lane as may, or so many that the
        deadline would pass in the queue: work for an answer that comes too late is taken from the others.
        """
        cost = self._cost_of(key)
        # A whole batch is worth the way to another thread: the loop reads the next one meanwhile.
        is_cheap = cost is not None and weight <= cost.room and weight < self._max_batch
        lanes, others = (self._cheap, self._dear) if is_cheap else (self._dear, self._cheap)
        if lanes or others:
            self._check_room(lane, lanes, others, deadline)
        lanes.add(lane, key, Entry(item, promise, deadline, weight))
        if not self._flush_is_due and (is_cheap or self._free > -self._ahead):
            # Not at once: what else arrived in this turn of the loop comes along.
            self._flush_is_due = True
            loop = self._loop = self._loop or asyncio.get_running_loop()
            loop.call_soon(self._flush)

    def _check_room(
        self,
        lane: Hashable,
        lanes: Lanes[Key, Item, Result],
        others: Lanes[Key, Item, Result],
        deadline: float | None,
    ) -> None:
        waiting = lanes.waiting(lane)
        # The lanes that wait share the engine.
        ahead = waiting * len(lanes)
        waiting += others.waiting(lane)
        pace = self._cheap_pace if lanes is self._cheap else self._dear_pace
        if waiting >= self._max_waiting or (deadline is not None and pace.is_too_slow(ahead, deadline)):
            wait = pace.seconds(ahead)
            raise ResourceExhausted(
                f"{waiting} requests wait for this index already, about {wait:.2g} s of work; "
                "try again in a moment",
                retry_after=max(wait, SHORTEST_RETRY_SECONDS),
            )

    def waiting(self) -> dict[Hashable, int]:
        """How much waits in each lane. May be called from any thread."""
        waiting = self._dear.all_waiting()
        for name, weight in self._cheap.all_waiting().items():
            waiting[name] = waiting.get(name, 0) + weight
        return waiting

    def _cheap_room(self, key: Key) -> int:
        """How much of a key may be done on the loop in one turn."""
        cost = self._cost_of(key)
        return 0 if cost is None else min(cost.room, self._max_batch)

    def _room(self, key: Key) -> int:
        size = self._size_of(key)
        return self._max_batch if size is None else size.limit

    def _flush(self) -> None:
        self._flush_is_due = False
        loop = self._loop = self._loop or asyncio.get_running_loop()
        # First what others do meanwhile.
        while self._may_begin():
            name, key, batch = self._dear.take(self._room)
            if not batch:
                continue
            if self._is_all(key, batch):
                self._run_here(name, key, batch, self._dear_pace)
                continue
            self._tell(name, batch)
            self._free -= 1
            self._running += sum(entry.weight for entry in batch)
            try:
                self._executor.submit(self._work, loop, key, batch)
            except RuntimeError as error:  # the executor was shut down
                self._deliver(batch, [error] * len(batch))
        if self._cheap:
            self._flush_cheap()
        if (self._cheap or self._may_begin()) and not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)

    def _may_begin(self) -> bool:
        """Whether there is a slot for what waits."""
        if not self._dear or self._free <= -self._ahead:
            return False
        if self._free <= 0:
            return self._dear.weight >= max(self._max_batch, self._running // self._slots)
        if self._free > 1 or self._slots == 1:
            return True
        return self._dear.weight >= min(self._running, self._max_batch)

    def _flush_cheap(self) -> None:
        name, key, batch = self._cheap.take(self._cheap_room)
        if not batch:
            return
        if batch[0].weight > self._cheap_room(key):  # what ran since it came has shown that it is not cheap
            for entry in batch:
                self._dear.add(name, key, entry)
            return
        self._run_here(name, key, batch, self._cheap_pace)

    def _is_all(self, key: Key, batch: list[Entry[Item, Result]]) -> bool:
        """Whether this is the one small thing to do: nobody waits, or could do more meanwhile."""
        if len(batch) > 1 or batch[0].weight > 1 or self._free < self._slots or self._dear or self._cheap:
            return False
        cost = self._cost_of(key)
        return cost is not None and cost.is_small

    def _run_here(self, name: Hashable, key: Key, batch: list[Entry[Item, Result]], pace: Pace) -> None:
        self._tell(name, batch)
        started = time.perf_counter()
        outcomes = self._outcomes(key, batch)
        seconds = time.perf_counter() - started
        self._note(key, batch, pace, seconds, seconds)
        self._deliver(batch, outcomes)

    def _tell(self, name: Hashable, batch: list[Entry[Item, Result]]) -> None:
        if self._on_batch is not None:
            self._on_batch(name, sum(entry.weight for entry in batch))

    def _work(self, loop: asyncio.AbstractEventLoop, key: Key, batch: list[Entry[Item, Result]]) -> None:
        started, began = time.perf_counter(), time.thread_time()
        outcomes = self._outcomes(key, batch)
        # Beside a busy loop much of the time goes into waiting for the interpreter, which the loop would not.
        cost = time.thread_time() - began
        loop.call_soon_threadsafe(self._finish, key, batch, outcomes, time.perf_counter() - started, cost)

    def _outcomes(self, key: Key, batch: list[Entry[Item, Result]]) -> Sequence[Result | BaseException]:
        try:
            return self._one_by_one(key, [entry.item for entry in batch])
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
            return [RuntimeError(f"the engine was ended: {error!r}")] * len(batch)

    def _one_by_one(self, key: Key, items: list[Item]) -> Sequence[Result | BaseException]:
        """The outcomes of all together; where that fails, of each alone."""
        try:
            return self._run(key, items)
        except Exception as error:  # noqa: BLE001  # sorted out below
            if len(items) == 1:
                return [error]
        return [outcome for item in items for outcome in self._one_by_one(key, [item])]

    def _finish(
        self,
        key: Key,
        batch: list[Entry[Item, Result]],
        outcomes: Sequence[Result | BaseException],
        seconds: float,
        cost: float,
    ) -> None:
        self._free += 1
        self._running -= sum(entry.weight for entry in batch)
        self._note(key, batch, self._dear_pace, seconds, cost)
        self._deliver(batch, outcomes)
        self._flush()

    def _note(
        self, key: Key, batch: list[Entry[Item, Result]], pace: Pace, seconds: float, cost: float
    ) -> None:
        weight = sum(entry.weight for entry in batch)
        pace.note(seconds, weight)
        if (size := self._size_of(key)) is not None:
            size.note(seconds, weight)
        if (learns := self._cost_of(key)) is not None:
            learns.note(cost, weight)

    def _deliver(self, batch: list[Entry[Item, Result]], outcomes: Sequence[Result | BaseException]) -> None:
        for entry, outcome in zip(batch, outcomes, strict=True):
            if entry.promise.done():
                continue
            try:
                if isinstance(outcome, BaseException):
                    entry.promise.set_exception(outcome)
                else:
                    entry.promise.set_result(outcome)
            except Exception:  # the others' outcomes are not its business
                log.exception("an outcome could not be delivered")
