"""Blocking work off the loop: bounded, and none of it for nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from earshot.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted
from earshot.server.telemetry import CURRENT, CallRecord, current
from earshot.server.workers import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Work:
    """Remembers what ran; waits until `go` is set."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.go = threading.Event()

    def __call__(self, number: int) -> int:
        self.ran.append(number)
        self.go.wait(10)
        return number


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def started(work: Work) -> None:
    while not work.ran:
        await asyncio.sleep(0.001)


def record_until(seconds: float) -> CallRecord:
    record = CallRecord("grpc", "Search")
    record.deadline = time.monotonic() + seconds
    return record


async def test_beyond_the_bound_it_says_so_at_once(executor: ThreadPoolExecutor) -> None:
    workers, work = Workers(executor, threads=1, max_queue=2), Work()
    tasks = [asyncio.create_task(workers.run(work, number)) for number in range(3)]
    await started(work)
    with pytest.raises(ResourceExhausted, match="2 requests wait") as refused:
        await workers.run(work, 3)
    assert refused.value.retry_after
    work.go.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2]
    assert await workers.run(work, 4) == 4


async def test_the_cancelled_and_the_late_are_never_run(executor: ThreadPoolExecutor) -> None:
    workers, work = Workers(executor, threads=1, max_queue=9), Work()
    first = asyncio.create_task(workers.run(work, 0))
    await started(work)
    cancelled = asyncio.create_task(workers.run(work, 1))
    with current(record_until(0.05)):
        late = asyncio.create_task(workers.run(work, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(DeadlineExceeded):
        await late
    work.go.set()
    assert await first == 0
    assert await workers.run(work, 3) == 3
    assert work.ran == [0, 3]


async def test_who_would_wait_past_the_deadline_is_refused(executor: ThreadPoolExecutor) -> None:
    workers = Workers(executor, threads=1, max_queue=99)
    await workers.run(time.sleep, 0.05)
    tasks = [asyncio.create_task(workers.run(time.sleep, 0.05)) for _ in range(9)]
    await asyncio.sleep(0)
    with current(record_until(0.2)), pytest.raises(ResourceExhausted):
        await workers.run(time.sleep, 0)
    await asyncio.gather(*tasks)


async def test_work_knows_its_call_and_its_own_errors_come_through(executor: ThreadPoolExecutor) -> None:
    workers = Workers(executor, threads=1, max_queue=9)

    def fail() -> None:
        raise InvalidArgument("wrong")

    def time_out() -> None:
        raise TimeoutError("of its own")

    with current(record_until(60)) as _:
        record = CURRENT.get()
        assert await workers.run(CURRENT.get) is record
        with pytest.raises(InvalidArgument):
            await workers.run(fail)
        with pytest.raises(TimeoutError, match="of its own"):
            await workers.run(time_out)
    assert record is not None
    assert set(record.seconds()) == {"queue"}
