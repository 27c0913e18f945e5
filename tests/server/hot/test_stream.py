from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from earshot.errors import InvalidArgument, PermissionDenied, ResourceExhausted
from earshot.server.auth import Admission
from earshot.server.hot.decode import Vectors
from earshot.server.hot.search import MAX_BATCH, Searcher
from earshot.server.hot.stream import StreamSearches
from earshot.server.telemetry import CallRecord, Telemetry

pytestmark = pytest.mark.anyio

DIMENSIONS = 3
FORBIDDEN, UNUSUAL = b"forbidden", b"unusual"


def query(number: float) -> bytes:
    """One that names the key "k", or "l" where the number is below zero."""
    return np.full(DIMENSIONS, number, "<f4").tobytes()


class Engine:
    """A searcher whose answer to a query is its first number; the test lets answers go."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[float]]] = []
        self.waiting: list[tuple[asyncio.Future[Sequence[bytes]], list[float]]] = []
        self.is_full = False

    def usual(self, data: bytes) -> tuple[str, Vectors] | None:
        if data == UNUSUAL:
            return None
        return ("l" if np.frombuffer(data, "<f4")[0] < 0 else "k"), Vectors(data, 1)

    async def search_in_pieces(self, data: bytes, record: CallRecord) -> Sequence[bytes]:
        self.asked.append(("pieces", []))
        return [data]

    def submit(self, key: str, queries: Vectors, record: CallRecord) -> asyncio.Future[Sequence[bytes]]:
        if self.is_full:
            raise ResourceExhausted("full")
        numbers = np.frombuffer(queries.data, "<f4").reshape(queries.number, -1)[:, 0].tolist()
        self.asked.append((key, numbers))
        future: asyncio.Future[Sequence[bytes]] = asyncio.get_running_loop().create_future()
        self.waiting.append((future, numbers))
        record.index = "index"
        return future

    def answer(self) -> None:
        for future, numbers in self.waiting:
            if future.done():
                continue
            if np.isfinite(numbers).all():
                future.set_result([str(number).encode() for number in numbers])
            else:
                future.set_exception(InvalidArgument("not finite"))
        self.waiting.clear()


class Anybody:
    def check(self, data: bytes) -> None:
        if data == FORBIDDEN:
            raise PermissionDenied("not this one")


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry("direct")


@pytest.fixture
def searches(engine: Engine, telemetry: Telemetry) -> StreamSearches:
    record = CallRecord("grpc", "StreamSearch")
    return StreamSearches(cast("Searcher", engine), telemetry, cast("Admission", Anybody()), record)


async def settled() -> None:
    """Lets what is done be told."""
    for _ in range(5):
        await asyncio.sleep(0)


def counted(telemetry: Telemetry) -> Counter[str]:
    """Requests so far, by code."""
    codes: Counter[str] = Counter()
    for metric in telemetry.metrics.collect():
        if metric.name == "earshot_requests":
            for sample in metric.samples:
                codes[sample.labels["code"]] += int(sample.value)
    return codes


async def test_what_comes_in_one_turn_goes_together_by_key(
    engine: Engine, searches: StreamSearches, telemetry: Telemetry
) -> None:
    answers = [searches.search(query(number)) for number in (1, 2, -3, 4)]
    await asyncio.sleep(0)
    assert engine.asked == [("k", [1, 2, 4]), ("l", [-3])]
    assert telemetry.metrics.in_flight["grpc"] == 4
    engine.answer()
    assert [b"".join(await answer) for answer in answers] == [b"1.0", b"2.0", b"-3.0", b"4.0"]
    await settled()
    assert counted(telemetry) == {"OK": 4}
    assert telemetry.metrics.in_flight["grpc"] == 0


async def test_no_more_go_together_than_a_batch(engine: Engine, searches: StreamSearches) -> None:
    answers = [searches.search(query(number)) for number in range(MAX_BATCH + 3)]
    await asyncio.sleep(0)
    assert [len(numbers) for _, numbers in engine.asked] == [MAX_BATCH, 3]
    engine.answer()
    assert [float((await answer)[0]) for answer in answers] == list(range(MAX_BATCH + 3))


async def test_what_is_wrong_fails_alone(
    engine: Engine, searches: StreamSearches, telemetry: Telemetry
) -> None:
    asked = (query(1), query(np.nan), FORBIDDEN, UNUSUAL, query(2))
    answers = [searches.search(data) for data in asked]
    await asyncio.sleep(0)
    engine.answer()
    outcomes: list[Any] = await asyncio.gather(*answers, return_exceptions=True)
    assert [outcomes[place] for place in (0, 3, 4)] == [(b"1.0",), [UNUSUAL], (b"2.0",)]
    assert isinstance(outcomes[1], InvalidArgument)
    assert isinstance(outcomes[2], PermissionDenied)
    await settled()
    assert counted(telemetry) == {"OK": 3, "INVALID_ARGUMENT": 1, "PERMISSION_DENIED": 1}


async def test_a_full_queue_refuses_each(
    engine: Engine, searches: StreamSearches, telemetry: Telemetry
) -> None:
    engine.is_full = True
    answers = [searches.search(query(number)) for number in range(3)]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(outcome, ResourceExhausted) for outcome in outcomes)
    await settled()
    assert counted(telemetry) == {"RESOURCE_EXHAUSTED": 3}


async def test_what_nobody_waits_for_is_dropped(
    engine: Engine, searches: StreamSearches, telemetry: Telemetry
) -> None:
    early = [searches.search(query(number)) for number in range(3)]
    early[1].cancel()
    await asyncio.sleep(0)
    assert engine.asked == [("k", [0, 2])]
    searches.cancel()
    await asyncio.sleep(0)
    assert all(future.cancelled() for future, _ in engine.waiting)
    assert all(answer.cancelled() for answer in early)
    await settled()
    assert counted(telemetry) == {"CANCELLED": 2}
