"""Updates that wait on the loop: told once they are written, dropped while they are not, bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest

from earshot.errors import FailedPrecondition, ResourceExhausted
from earshot.index.journal import Journal, Remove, open_journal
from earshot.server.hot.updates import SMALL_BYTES, Updater
from earshot.server.telemetry import CallRecord
from earshot.server.updates import Update
from earshot.server.workers import Workers
from earshot.v1.datapoint_service_pb2 import RemoveDatapointsRequest, RemoveDatapointsResponse

pytestmark = pytest.mark.anyio

RECORD = CallRecord("grpc", "RemoveDatapoints")
# An unknown field of four bytes' length, which is read and skipped.
PADDING = b"\xfa\x01" + bytes([SMALL_BYTES & 0x7F | 0x80, SMALL_BYTES >> 7 & 0x7F | 0x80, SMALL_BYTES >> 14])
PADDING += bytes(SMALL_BYTES)


class Write(Protocol):
    def __call__(self, name: str, max_queue: int = 10) -> asyncio.Task[int]: ...


class Feed:
    """Of an index whose journal this process owns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def own(self) -> Journal:
        return self._journal


class Updates:
    """Of a service with one index."""

    def __init__(self, journal: Journal, is_quick: bool) -> None:
        self._feed: Any = Feed(journal)
        self._is_quick = is_quick
        self.prepared_upsert = None

    def is_quick(self, request: RemoveDatapointsRequest) -> bool:
        return self._is_quick

    def prepared_remove(self, request: RemoveDatapointsRequest) -> Update:
        return Update(self._feed, [Remove(name) for name in request.datapoint_ids], None, [], 0)


class Service:
    def __init__(self, updates: Updates) -> None:
        self.updates = updates


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(tmp_path / "journal.sqlite", "mine")
    yield opened
    opened.close()


# Read on the loop; by a thread, as it asks a model, say; by a thread, as it is large.
@pytest.fixture(params=["quick", "slow", "large"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def write(journal: Journal, kind: str) -> Iterator[Write]:
    with ThreadPoolExecutor(4) as executor:

        def begin(name: str, max_queue: int = 10) -> asyncio.Task[int]:
            workers = Workers(executor, threads=4, max_queue=100)
            service: Any = Service(Updates(journal, kind == "quick"))
            updater = Updater(service, workers, max_queue=max_queue)
            request = RemoveDatapointsRequest(index="mine", datapoint_ids=[name]).SerializeToString()
            if kind == "large":
                request += PADDING
            return asyncio.create_task(sequence_of(updater.remove_message(request, RECORD)))

        yield begin


async def sequence_of(answer: Coroutine[Any, Any, bytes]) -> int:
    return RemoveDatapointsResponse.FromString(await answer).sequence


def held_up(journal: Journal) -> threading.Event:
    """The journal's thread waits with what it wrote first, until this is set."""
    go_on = threading.Event()

    def wait(first: int, entries: object, last: int) -> None:
        go_on.wait(10)

    journal.when_written(wait)
    return go_on


async def test_each_call_hears_its_own_number(journal: Journal, write: Write) -> None:
    numbers = await asyncio.gather(*(write(str(number), max_queue=50) for number in range(50)))
    assert sorted((number, str(place)) for place, number in enumerate(numbers)) == [
        (number, entry.id) for number, entry in journal.read(0)
    ]


async def test_a_call_that_was_given_up_while_it_waited_is_not_written(
    journal: Journal, write: Write
) -> None:
    go_on = held_up(journal)
    first = write("first")
    while journal.last() == 0:
        await asyncio.sleep(0.001)
    second = write("second")
    while journal.waiting < 1:
        await asyncio.sleep(0.001)
    third = write("third")
    while journal.waiting < 2:
        await asyncio.sleep(0.001)
    second.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await first == 1
    assert await third == 2
    assert second.cancelled()
    assert list(journal.read(0)) == [(1, Remove("first")), (2, Remove("third"))]


async def test_more_than_may_wait_are_refused(journal: Journal, write: Write) -> None:
    go_on = held_up(journal)
    first = write("first")
    while journal.last() == 0:
        await asyncio.sleep(0.001)
    waiting = [write(str(number), max_queue=3) for number in range(3)]
    while journal.waiting < 3:
        await asyncio.sleep(0.001)
    for number in (3, 4):
        with pytest.raises(ResourceExhausted):
            await write(str(number), max_queue=3)
    go_on.set()
    assert sorted(await asyncio.gather(*waiting)) == [2, 3, 4]
    assert await first == 1


async def test_what_could_not_be_applied_is_told_each_call(journal: Journal, write: Write) -> None:
    def refuse(first: int, entries: object, last: int) -> None:
        raise FailedPrecondition("it does not fit")

    journal.when_written(refuse)
    outcomes = await asyncio.gather(*(write("a") for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["it does not fit"] * 3
