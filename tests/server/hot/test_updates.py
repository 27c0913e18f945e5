"""Updates that wait on the loop: told once they are written, dropped while they are not, bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from earshot.errors import FailedPrecondition, ResourceExhausted
from earshot.index.journal import Journal, Remove, open_journal
from earshot.server.hot.updates import Updater
from earshot.server.telemetry import CallRecord
from earshot.server.updates import Update

pytestmark = pytest.mark.anyio


class Feed:
    """Of an index whose journal this process owns."""

    def __init__(self, journal: Journal) -> None:
        self.owned = journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal(tmp_path / "journal.sqlite", "mine")
    yield opened
    opened.close()


def write(journal: Journal, name: str, max_queue: int = 10) -> asyncio.Task[int]:
    updater = Updater(cast("Any", None), cast("Any", None), max_queue=max_queue)
    update = Update(cast("Any", Feed(journal)), [Remove(name)], None, [], 0)
    return asyncio.create_task(updater._write(update, CallRecord("grpc", "RemoveDatapoints")))


def held_up(journal: Journal) -> threading.Event:
    """The journal's thread waits with what it wrote first, until this is set."""
    go_on = threading.Event()

    def wait(first: int, entries: object, last: int) -> None:
        go_on.wait(10)

    journal.when_written(wait)
    return go_on


async def test_each_call_hears_its_own_number(journal: Journal) -> None:
    numbers = await asyncio.gather(*(write(journal, str(number), max_queue=50) for number in range(50)))
    assert [(number, Remove(str(place))) for place, number in enumerate(numbers)] == list(journal.read(0))


async def test_a_call_that_was_given_up_while_it_waited_is_not_written(journal: Journal) -> None:
    go_on = held_up(journal)
    first = write(journal, "first")
    while journal.last() == 0:
        await asyncio.sleep(0.001)
    waiting = [write(journal, name) for name in ("second", "third")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    go_on.set()
    assert await first == 1
    assert await waiting[1] == 2
    assert waiting[0].cancelled()
    assert list(journal.read(0)) == [(1, Remove("first")), (2, Remove("third"))]


async def test_more_than_may_wait_are_refused(journal: Journal) -> None:
    go_on = held_up(journal)
    first = write(journal, "first")
    while journal.last() == 0:
        await asyncio.sleep(0.001)
    waiting = [write(journal, str(number), max_queue=3) for number in range(5)]
    outcomes = asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0.01)
    go_on.set()
    assert [type(outcome) for outcome in await outcomes] == [int, int, int, *[ResourceExhausted] * 2]
    assert await first == 1


async def test_what_could_not_be_applied_is_told_each_call(journal: Journal) -> None:
    def refuse(first: int, entries: object, last: int) -> None:
        raise FailedPrecondition("it does not fit")

    journal.when_written(refuse)
    outcomes = await asyncio.gather(*(write(journal, "a") for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["it does not fit"] * 3
