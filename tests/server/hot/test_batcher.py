from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from earshot.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from earshot.server.hot.batch_size import BatchSize
from earshot.server.hot.batcher import Batcher


class Engine:
    """Doubles numbers; its first call waits until `go` is set, as a busy engine would."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[int]]] = []
        self.go = threading.Event()
        self.is_busy = threading.Event()

    def run(self, key: str, items: Sequence[int]) -> list[int]:
        self.batches.append((key, list(items)))
        self.is_busy.set()
        self.go.wait(10)
        if any(item < 0 for item in items):
            raise InvalidArgument("negative")
        return [2 * item for item in items]


pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> Engine:
    return Engine()


def batcher_of(
    engine: Engine, *, slots: int = 1, max_batch: int = 64, max_waiting: int = 1000, ahead: int = 0
) -> Batcher[str, int, int]:
    executor = ThreadPoolExecutor(slots)
    return Batcher(
        engine.run, executor, slots=slots, max_batch=max_batch, max_waiting=max_waiting, ahead=ahead
    )


async def until_busy(engine: Engine) -> None:
    assert await asyncio.to_thread(engine.is_busy.wait, 10)


async def test_items_that_come_in_one_turn_of_the_loop_go_together_at_once(engine: Engine) -> None:
    engine.go.set()
    batcher = batcher_of(engine)
    assert await asyncio.gather(*(batcher.submit("lane", "key", n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert engine.batches == [("key", [0, 1, 2, 3, 4])]


async def test_nothing_waits_while_the_engine_is_idle(engine: Engine) -> None:
    engine.go.set()
    batcher = batcher_of(engine)
    started = time.perf_counter()
    for n in range(20):
        assert await batcher.submit("lane", "key", n) == 2 * n
    assert time.perf_counter() - started < 1
    assert len(engine.batches) == 20


async def test_what_comes_while_the_engine_is_busy_goes_together_by_key(engine: Engine) -> None:
    batcher = batcher_of(engine, max_batch=3)
    first = batcher.submit("lane", "a", 0)
    await until_busy(engine)
    futures = [batcher.submit("lane", key, n) for n, key in enumerate("aabaab", start=1)]
    engine.go.set()
    answers: list[int] = await asyncio.gather(first, *futures)
    assert answers == [0, 2, 4, 6, 8, 10, 12]
    assert engine.batches == [("a", [0]), ("a", [1, 2, 4]), ("b", [3, 6]), ("a", [5])]


@pytest.mark.parametrize(("running", "max_batch", "enough"), [(3, 8, 3), (1, 8, 1), (4, 4, 4), (6, 4, 4)])
async def test_the_last_of_several_slots_is_for_as_much_as_the_others_do_or_a_whole_batch(
    engine: Engine, running: int, max_batch: int, enough: int
) -> None:
    batcher = batcher_of(engine, slots=2, max_batch=max_batch)
    first = batcher.submit("lane", "a", 0, weight=running)
    await until_busy(engine)
    few = [batcher.submit("lane", "a", n) for n in range(1, enough)]
    await asyncio.sleep(0.05)
    assert batcher.waiting() == ({"lane": len(few)} if few else {})
    last = batcher.submit("lane", "a", enough)
    await asyncio.sleep(0)  # the batcher begins after this turn of the loop
    await asyncio.sleep(0)
    assert batcher.waiting() == {}
    engine.go.set()
    assert await asyncio.gather(first, *few, last) == [2 * n for n in range(enough + 1)]
    assert sorted(engine.batches) == [("a", [0]), ("a", list(range(1, enough + 1)))]


@pytest.mark.parametrize("ahead", [0, 1])
async def test_a_whole_batch_waits_where_the_threads_find_it(engine: Engine, ahead: int) -> None:
    batcher = batcher_of(engine, max_batch=4, ahead=ahead)
    first = batcher.submit("lane", "key", 0)
    await until_busy(engine)
    few = [batcher.submit("lane", "key", n) for n in range(1, 4)]
    await asyncio.sleep(0.01)
    assert batcher.waiting() == {"lane": 3}
    more = [batcher.submit("lane", "key", n) for n in range(4, 13)]
    await asyncio.sleep(0.01)
    assert batcher.waiting() == {"lane": 12 - 4 * ahead}
    engine.go.set()
    assert await asyncio.gather(first, *few, *more) == [2 * n for n in range(13)]
    assert [len(items) for _, items in engine.batches] == [1, 4, 4, 4]


async def test_a_flood_on_one_lane_does_not_hold_up_another(engine: Engine) -> None:
    batcher = batcher_of(engine, max_batch=2)
    first = batcher.submit("loud", "k", 0)
    await until_busy(engine)
    loud = [batcher.submit("loud", "k", n) for n in range(1, 9)]
    quiet = batcher.submit("quiet", "q", 9)
    engine.go.set()
    await asyncio.gather(first, *loud, quiet)
    assert [key for key, _ in engine.batches].index("q") == 2


async def test_a_bad_item_fails_alone(engine: Engine) -> None:
    engine.go.set()
    batcher = batcher_of(engine)
    outcomes = await asyncio.gather(
        *(batcher.submit("lane", "key", n) for n in (1, -1, 3)), return_exceptions=True
    )
    assert [outcomes[0], outcomes[2]] == [2, 6]
    assert isinstance(outcomes[1], InvalidArgument)


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(1), KeyboardInterrupt()])
async def test_whatever_the_engine_raises_reaches_everyone_who_waits(error: BaseException) -> None:
    def run(key: str, items: Sequence[int]) -> list[int]:
        raise error

    batcher = Batcher(run, ThreadPoolExecutor(1), slots=1, max_batch=8, max_waiting=8)
    for _ in range(3):  # the slot is free again each time
        outcomes = await asyncio.gather(
            *(batcher.submit("lane", "key", n) for n in range(3)), return_exceptions=True
        )
        assert all(isinstance(outcome, (ValueError, RuntimeError)) for outcome in outcomes)


async def test_the_cancelled_and_the_late_cost_no_engine_time(engine: Engine) -> None:
    batcher = batcher_of(engine)
    first = batcher.submit("lane", "key", 0)
    await until_busy(engine)
    cancelled = batcher.submit("lane", "key", 1)
    late = batcher.submit("lane", "key", 2, time.monotonic() - 1)
    in_time = batcher.submit("lane", "key", 3, time.monotonic() + 60)
    cancelled.cancel()
    engine.go.set()
    assert [await first, await in_time] == [0, 6]
    with pytest.raises(DeadlineExceeded):
        await late
    assert engine.batches == [("key", [0]), ("key", [3])]


async def test_beyond_the_bound_it_says_so_at_once_and_other_lanes_go_on(engine: Engine) -> None:
    batcher = batcher_of(engine, max_waiting=2)
    first = batcher.submit("full", "key", 0)
    await until_busy(engine)
    waiting = [batcher.submit("full", "key", n) for n in (1, 2)]
    with pytest.raises(ResourceExhausted, match="2 requests wait"):
        batcher.submit("full", "key", 3)
    other = batcher.submit("other", "key", 4)
    engine.go.set()
    assert await asyncio.gather(first, *waiting, other) == [0, 2, 4, 8]


async def test_who_would_wait_past_the_deadline_is_told_at_once_when_to_come_again(
    engine: Engine,
) -> None:
    engine.go.set()

    def slow(key: str, items: Sequence[int]) -> list[int]:
        time.sleep(0.05)
        return Engine.run(engine, key, items)

    batcher = Batcher(slow, ThreadPoolExecutor(1), slots=1, max_batch=1, max_waiting=1000)
    assert await batcher.submit("lane", "key", 1) == 2
    waiting = [batcher.submit("lane", "key", n) for n in range(20)]
    with pytest.raises(ResourceExhausted, match="20 requests wait") as refused:
        batcher.submit("lane", "key", 5, time.monotonic() + 0.3)
    assert 0.5 < (refused.value.retry_after or 0) < 5
    patient = batcher.submit("lane", "key", 6, time.monotonic() + 60)
    assert await asyncio.gather(*waiting, patient) == [*(2 * n for n in range(20)), 12]


async def test_cancelled_items_do_not_count_as_waiting_for_ever(engine: Engine) -> None:
    engine.go.set()
    batcher = batcher_of(engine, max_waiting=4)
    for _ in range(20):
        for n in range(4):
            batcher.submit("lane", "key", n).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert await batcher.submit("lane", "key", 7) == 14


async def test_heavy_items_go_together_as_far_as_they_weigh_no_more_than_a_batch(engine: Engine) -> None:
    engine.go.set()
    batcher = batcher_of(engine, max_batch=10)
    weights = {1: 4, 2: 6, 3: 1, 4: 25, 5: 10, 6: 1}
    futures = [batcher.submit("lane", "key", item, weight=weight) for item, weight in weights.items()]
    assert await asyncio.gather(*futures) == [2 * item for item in weights]
    assert [items for _, items in engine.batches] == [[1, 2], [3], [4], [5], [6]]


async def test_what_waits_is_counted_by_weight(engine: Engine) -> None:
    batcher = batcher_of(engine, max_waiting=10)
    first = batcher.submit("lane", "key", 1)
    await until_busy(engine)
    heavy = [batcher.submit("lane", "key", item, weight=6) for item in (2, 3)]
    with pytest.raises(ResourceExhausted, match="12 requests wait"):
        batcher.submit("lane", "key", 4)
    engine.go.set()
    assert await asyncio.gather(first, *heavy) == [2, 4, 6]
    assert await batcher.submit("lane", "key", 5) == 10


async def test_a_batch_is_as_large_as_was_learned_for_its_key(engine: Engine) -> None:
    size = BatchSize(60.0, smallest=2, largest=50)
    executor = ThreadPoolExecutor(1)
    batcher: Batcher[str, int, int] = Batcher(
        engine.run,
        executor,
        slots=1,
        max_batch=3,
        max_waiting=1000,
        size_of=lambda key: size if key == "gpu" else None,
    )
    engine.go.set()
    await asyncio.gather(*(batcher.submit("lane", key, n) for n in range(200) for key in ("gpu", "cpu")))
    lengths = {key: [len(items) for k, items in engine.batches if k == key] for key in ("gpu", "cpu")}
    assert lengths["gpu"][0] == 2
    assert lengths["gpu"] == sorted(lengths["gpu"][:-1]) + lengths["gpu"][-1:]
    assert max(lengths["gpu"]) > 10
    assert max(lengths["cpu"]) == 3
