"""What waits to be done together: by lane, each of which gets its turn, and by key within a lane."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from earshot.errors import DeadlineExceeded

__all__ = ["Entry", "Lanes", "Promise"]

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")
Awaited = TypeVar("Awaited", contravariant=True)


class Promise(Protocol[Awaited]):
    """What a result is put into, such as a future. Its methods do not raise."""

    def done(self) -> bool:
        """Whether nobody wants the result any more."""

    def set_result(self, result: Awaited, /) -> None:
        """Here it is."""

    def set_exception(self, exception: BaseException, /) -> None:
        """There is none, for this reason."""


class Entry(Generic[Item, Result]):
    """An item, its weight, where its result goes, and until when, by `time.monotonic()`, it is wanted."""

    __slots__ = ("deadline", "item", "promise", "weight")

    def __init__(self, item: Item, promise: Promise[Result], deadline: float | None, weight: int) -> None:
        self.item = item
        self.weight = weight
        self.promise = promise
        self.deadline = deadline


class _Lane(Generic[Key, Item, Result]):
    """A queue for each key, served in turn."""

    def __init__(self) -> None:
        self.queues: dict[Key, deque[Entry[Item, Result]]] = {}
        self.waiting = 0


class Lanes(Generic[Key, Item, Result]):
    """A lane is whatever should have a fair share, here an index."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[Key, Item, Result]] = {}

    def __len__(self) -> int:
        """How many lanes wait."""
        return len(self._lanes)

    def waiting(self, name: Hashable) -> int:
        """The weight of what waits in a lane."""
        lane = self._lanes.get(name)
        return 0 if lane is None else lane.waiting

    @property
    def weight(self) -> int:
        """Of all that waits."""
        return sum(lane.waiting for lane in self._lanes.values())

    def all_waiting(self) -> dict[Hashable, int]:
        """The weight of what waits in each lane. May be called from any thread."""
        return {name: lane.waiting for name, lane in list(self._lanes.items())}

    def add(self, name: Hashable, key: Key, entry: Entry[Item, Result]) -> None:
        """`entry` waits behind what waits in its lane with its key."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        queue = lane.queues.get(key)
        if queue is None:
            queue = lane.queues[key] = deque()
        queue.append(entry)
        lane.waiting += entry.weight

    def take(self, room_of: Callable[[Key], int]) -> tuple[Hashable, Key, list[Entry[Item, Result]]]:
        """The next lane's next key and what can go together; lane and key move to the end of their line.

        Entries weigh `room_of` their key at most, but for one that is heavier and goes alone. What was
        cancelled is dropped, and what came too late fails with DeadlineExceeded, so there may be none.
        """
        name = next(iter(self._lanes))
        lane = self._lanes.pop(name)
        key = next(iter(lane.queues))
        queue = lane.queues.pop(key)
        now = time.monotonic()
        batch: list[Entry[Item, Result]] = []
        room = room_of(key)
        while queue and (queue[0].weight <= room or not batch):
            entry = queue.popleft()
            lane.waiting -= entry.weight
            if entry.promise.done():
                continue
            if entry.deadline is not None and now >= entry.deadline:
                entry.promise.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
                continue
            batch.append(entry)
            room -= entry.weight
        if queue:
            lane.queues[key] = queue
        if lane.queues:
            self._lanes[name] = lane
        return name, key, batch
