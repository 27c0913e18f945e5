"""What a stream of queries may expect, with a search that the test controls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.errors import InvalidArgument, NotFound
from earshot.server.streams import MAX_UNDER_WAY, stream_search
from earshot.v1 import search_service_pb2

pytestmark = pytest.mark.anyio


class Engine:
    """Answers `n` with version `n`, when it is told to; `started` are the queries so far."""

    def __init__(self) -> None:
        self.started: list[bytes] = []
        self.futures: dict[bytes, asyncio.Future[Sequence[bytes]]] = {}

    def search(self, request: bytes) -> asyncio.Future[Sequence[bytes]]:
        self.started.append(request)
        self.futures[request] = asyncio.get_running_loop().create_future()
        return self.futures[request]

    def finish(self, *requests: bytes) -> None:
        for request in requests:
            response = search_service_pb2.SearchResponse(index_version=request.decode())
            self.futures[request].set_result([response.SerializeToString()])


class Sent:
    """What a client sends, bundle by bundle; None ends it."""

    def __init__(self, *bundles: list[bytes] | BaseException | None) -> None:
        self.queue: asyncio.Queue[list[bytes] | BaseException | None] = asyncio.Queue()
        for bundle in bundles:
            self.queue.put_nowait(bundle)

    async def __aiter__(self) -> AsyncIterator[list[bytes]]:
        while (bundle := await self.queue.get()) is not None:
            if isinstance(bundle, BaseException):
                raise bundle
            yield bundle


def read(answers: Sequence[bytes]) -> list[str]:
    """Versions, or the messages of errors."""
    messages = [search_service_pb2.StreamSearchResponse.FromString(answer) for answer in answers]
    return [
        f"{message.error.code} {message.error.message}"
        if message.WhichOneof("result") == "error"
        else message.response.index_version
        for message in messages
    ]


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def test_all_of_a_bundle_is_under_way_before_anything_is_answered(engine: Engine) -> None:
    answers = stream_search(aiter(Sent([b"a", b"b", b"c"], None)), engine.search)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.01)
    assert engine.started == [b"a", b"b", b"c"]
    engine.finish(b"a", b"b")
    assert read(await first) == ["a", "b"]
    engine.finish(b"c")
    assert [read(bundle) async for bundle in answers] == [["c"]]


@given(st.permutations(range(6)), st.lists(st.integers(1, 3)))
def test_answers_keep_the_order_of_the_queries(finished: list[int], sizes: list[int]) -> None:
    async def run() -> list[str]:
        engine = Engine()
        queries = [str(number).encode() for number in range(6)]
        bundles, rest = [], list(queries)
        for size in [*sizes, 6]:
            bundles.append(rest[:size])
            rest = rest[size:]
        answers = stream_search(aiter(Sent(*filter(None, bundles), None)), engine.search)
        got: list[str] = []

        async def collect() -> None:
            async for bundle in answers:
                got.extend(read(bundle))

        collecting = asyncio.create_task(collect())
        while len(engine.started) < 6:
            await asyncio.sleep(0)
        for number in finished:
            engine.finish(queries[number])
            await asyncio.sleep(0)
        await collecting
        return got

    assert asyncio.run(run()) == [str(number) for number in range(6)]


async def test_a_query_that_fails_ends_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    answers = stream_search(aiter(Sent([b"a", b"b", b"c"], None)), engine.search)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.01)
    engine.futures[b"a"].set_exception(NotFound("no such index"))
    engine.futures[b"b"].set_exception(ZeroDivisionError("a secret"))
    engine.finish(b"c")
    said = read(await first)
    assert said[0] == "5 no such index"
    assert said[1].startswith("13 internal error")
    assert said[2] == "c"
    assert [bundle async for bundle in answers] == []
    assert "a secret" in caplog.text


async def test_what_breaks_the_stream_comes_after_the_answers(engine: Engine) -> None:
    answers = stream_search(aiter(Sent([b"a"], InvalidArgument("broken frame"))), engine.search)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.01)
    engine.finish(b"a")
    assert read(await first) == ["a"]
    with pytest.raises(InvalidArgument, match="broken frame"):
        await anext(answers)


async def test_a_client_that_only_sends_is_not_read_without_end(engine: Engine) -> None:
    queries = [str(number).encode() for number in range(2 * MAX_UNDER_WAY)]
    answers = stream_search(aiter(Sent(queries, None)), engine.search)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.05)
    assert len(engine.started) == MAX_UNDER_WAY
    engine.finish(*queries[:10])
    assert len(await first) == 10
    await asyncio.sleep(0.05)
    assert len(engine.started) == MAX_UNDER_WAY + 10
    await answers.aclose()


async def test_a_stream_that_is_given_up_drops_its_queries(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    answers = stream_search(aiter(Sent([b"a", b"b"])), engine.search)
    first = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0)
    assert all(future.cancelled() for future in engine.futures.values())
    assert (problems, caplog.text) == ([], "")


async def test_an_empty_stream_has_no_answers(engine: Engine) -> None:
    assert [bundle async for bundle in stream_search(aiter(Sent(None)), engine.search)] == []
