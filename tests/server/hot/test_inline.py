"""What is known to be cheap is run on the loop itself, and nothing else is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from earshot.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from earshot.server.hot.batcher import Batcher
from earshot.server.hot.cost import Cost

pytestmark = pytest.mark.anyio

LIMIT = 1e-3


class Settled(Cost):
    """Learns no more: items take so long each, whatever these here take."""

    def __init__(self, seconds: float) -> None:
        super().__init__(LIMIT)
        super().note(seconds, 1)

    def note(self, seconds: float, units: int) -> None:
        del seconds, units


class Engine:
    """Doubles numbers, and notes in which thread; keys with "dear" in them wait until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int], bool]] = []
        self.go = threading.Event()
        self.is_busy = threading.Event()
        self.loop_thread = threading.current_thread()
        self.costs: dict[str, Cost] = {}

    def run(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items), threading.current_thread() is self.loop_thread))
        if "dear" in key:
            self.is_busy.set()
            self.go.wait(10)
        if any(item < 0 for item in items):
            raise InvalidArgument("negative")
        return [2 * item for item in items]

    def knows(self, key: str, seconds: float) -> None:
        """`key` is known to take so long an item."""
        self.costs[key] = Settled(seconds)

    def cost_of(self, key: str) -> Cost | None:
        return None if "unknown" in key else self.costs.setdefault(key, Cost(LIMIT))


@pytest.fixture
def engine() -> Engine:
    return Engine()


def batcher_of(engine: Engine, *, max_batch: int = 64, max_waiting: int = 1000) -> Batcher[str, int, int]:
    return Batcher(
        engine.run,
        ThreadPoolExecutor(1),
        slots=1,
        max_batch=max_batch,
        max_waiting=max_waiting,
        cost_of=engine.cost_of,
    )


async def test_the_cheap_that_come_in_one_turn_are_run_together_on_the_loop(engine: Engine) -> None:
    engine.knows("key", 1e-6)
    batcher = batcher_of(engine)
    assert await asyncio.gather(*(batcher.submit("lane", "key", n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert engine.batches == [("key", [0, 1, 2, 3, 4], True)]


async def test_what_is_not_known_or_never_will_be_stays_off_the_loop(engine: Engine) -> None:
    batcher = batcher_of(engine)
    await batcher.submit("lane", "first", 1)
    for _ in range(3):
        await batcher.submit("lane", "unknown", 1)
    assert [on_loop for _, _, on_loop in engine.batches] == [False] * 4


async def test_a_key_is_learned_off_the_loop_and_then_run_on_it(engine: Engine) -> None:
    batcher = batcher_of(engine)
    for n in range(20):
        await batcher.submit("lane", "key", n)
    where = [on_loop for _, _, on_loop in engine.batches]
    assert not where[0]
    assert where[-1]


async def test_what_fits_in_a_turn_only_by_a_few_is_left_to_the_thread(engine: Engine) -> None:
    engine.knows("key", LIMIT / 3)
    batcher = batcher_of(engine)
    assert await asyncio.gather(*(batcher.submit("lane", "key", n) for n in range(2))) == [0, 2]
    assert engine.batches == [("key", [0, 1], False)]


async def test_but_not_where_it_is_small_and_all_there_is_to_do(engine: Engine) -> None:
    engine.knows("key", LIMIT / 3)
    engine.knows("long", 2 * LIMIT)
    batcher = batcher_of(engine)
    assert await batcher.submit("lane", "key", 1) == 2
    assert await batcher.submit("lane", "key", 2, weight=2) == 4
    assert await batcher.submit("lane", "long", 3) == 6
    assert engine.batches == [("key", [1], True), ("key", [2], False), ("long", [3], False)]


async def test_a_small_one_is_left_to_the_thread_while_that_is_at_work(engine: Engine) -> None:
    engine.knows("dear", 10 * LIMIT)
    engine.knows("key", LIMIT / 3)
    batcher = Batcher(
        engine.run, ThreadPoolExecutor(3), slots=3, max_batch=64, max_waiting=9, cost_of=engine.cost_of
    )
    dear = batcher.submit("lane", "dear", 1)
    assert await asyncio.to_thread(engine.is_busy.wait, 10)
    assert await batcher.submit("lane", "key", 2) == 4
    engine.go.set()
    assert await dear == 2
    assert sorted(engine.batches) == [("dear", [1], False), ("key", [2], False)]


async def test_the_dear_never_hold_up_the_loop_or_the_cheap(engine: Engine) -> None:
    engine.knows("dear", 10 * LIMIT)
    engine.knows("cheap", 1e-6)
    batcher = batcher_of(engine)
    dear = [batcher.submit("dear", "dear", n) for n in range(3)]
    assert await asyncio.to_thread(engine.is_busy.wait, 10)
    # The engine's only thread is taken, and yet:
    cheap = [await asyncio.wait_for(batcher.submit("lane", "cheap", n), 5) for n in range(10)]
    assert cheap == [2 * n for n in range(10)]
    assert not any(future.done() for future in dear)
    engine.go.set()
    assert await asyncio.gather(*dear) == [0, 2, 4]
    assert {(key, on_loop) for key, _, on_loop in engine.batches} == {("dear", False), ("cheap", True)}


async def test_an_item_too_heavy_for_the_loop_goes_to_the_thread_while_light_ones_do_not(
    engine: Engine,
) -> None:
    engine.knows("key", LIMIT / 10)
    batcher = batcher_of(engine)
    await asyncio.gather(batcher.submit("lane", "key", 1), batcher.submit("lane", "key", 2, weight=50))
    assert sorted(engine.batches) == [("key", [1], True), ("key", [2], False)]


async def test_no_more_is_run_in_one_turn_than_is_short_and_others_run_in_between(engine: Engine) -> None:
    engine.knows("key", LIMIT / 10)
    batcher = batcher_of(engine)
    loop = asyncio.get_running_loop()
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(engine.batches))
        if not all(future.done() for future in futures):
            loop.call_soon(turn)

    futures = [batcher.submit("lane", "key", n) for n in range(40)]
    loop.call_soon(turn)
    await asyncio.gather(*futures)
    assert max(len(items) for _, items, _ in engine.batches) <= 10
    assert all(after - before <= 1 for before, after in pairwise(turns))


async def test_lanes_take_turns_on_the_loop(engine: Engine) -> None:
    for key in ("loud", "quiet"):
        engine.knows(key, LIMIT / 10)
    batcher = batcher_of(engine)
    loud = [batcher.submit("loud", "loud", n) for n in range(40)]
    await asyncio.gather(*loud, batcher.submit("quiet", "quiet", 1))
    assert [key for key, _, _ in engine.batches].index("quiet") == 1


async def test_a_bad_item_on_the_loop_fails_alone(engine: Engine) -> None:
    engine.knows("key", 1e-6)
    batcher = batcher_of(engine)
    outcomes = await asyncio.gather(
        *(batcher.submit("lane", "key", n) for n in (1, -1, 3)), return_exceptions=True
    )
    assert [outcomes[0], outcomes[2]] == [2, 6]
    assert isinstance(outcomes[1], InvalidArgument)


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(1), KeyboardInterrupt()])
async def test_whatever_is_raised_on_the_loop_reaches_everyone_who_waits(error: BaseException) -> None:
    def run(key: str, items: Sequence[int]) -> list[int]:
        raise error

    cost = Cost(LIMIT)
    cost.note(1e-6, 1)
    batcher = Batcher(run, ThreadPoolExecutor(1), slots=1, max_batch=8, max_waiting=8, cost_of=lambda _: cost)
    outcomes = await asyncio.gather(
        *(batcher.submit("lane", "key", n) for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, (ValueError, RuntimeError)) for outcome in outcomes)


async def test_the_cancelled_and_the_late_are_not_run_on_the_loop(engine: Engine) -> None:
    engine.knows("key", 1e-6)
    batcher = batcher_of(engine)
    batcher.submit("lane", "key", 1).cancel()
    late = batcher.submit("lane", "key", 2, time.monotonic() - 1)
    in_time = batcher.submit("lane", "key", 3, time.monotonic() + 60)
    assert await in_time == 6
    with pytest.raises(DeadlineExceeded):
        await late
    assert engine.batches == [("key", [3], True)]


async def test_what_waits_for_the_loop_is_bounded_and_counted_with_the_rest(engine: Engine) -> None:
    engine.knows("dear", 10 * LIMIT)
    engine.knows("cheap", 1e-6)
    batcher = batcher_of(engine, max_waiting=5)
    running = batcher.submit("lane", "dear", 0)
    assert await asyncio.to_thread(engine.is_busy.wait, 10)
    waiting = [batcher.submit("lane", key, 1) for key in ("dear", "dear", "cheap", "cheap", "cheap")]
    assert batcher.waiting() == {"lane": 5}
    with pytest.raises(ResourceExhausted, match="5 requests wait"):
        batcher.submit("lane", "cheap", 1)
    engine.go.set()
    assert await asyncio.gather(running, *waiting) == [0, 2, 2, 2, 2, 2]
    assert batcher.waiting() == {}


async def test_what_turns_out_dear_while_more_of_it_waits_leaves_the_loop(engine: Engine) -> None:
    cost = engine.costs["key"] = Cost(LIMIT)
    cost.note(LIMIT / 10, 1)
    batcher = batcher_of(engine, max_batch=1)
    futures = [batcher.submit("lane", "key", n) for n in range(5)]
    for _ in range(5):
        cost.note(1.0, 1)
    assert await asyncio.gather(*futures) == [0, 2, 4, 6, 8]
    assert [on_loop for _, _, on_loop in engine.batches][:2] == [False, False]
