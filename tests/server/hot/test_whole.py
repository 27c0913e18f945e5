"""A search that comes in one piece is answered as the application answers it, or left to it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earshot.errors import Unavailable
from earshot.server.auth import Grant, Scope, TokenFile
from earshot.server.grpc_methods import SEARCH
from earshot.server.hot import search as searching
from earshot.server.hot.framing import frame
from earshot.server.hot.server import HotServer
from earshot.server.hot.whole import WholeCall
from earshot.server.search import find
from earshot.v1 import datapoint_pb2, search_service_pb2

from .conftest import settings_for

pytestmark = pytest.mark.anyio

GRPC = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
JSON = [(b"content-type", b"application/json")]
_TOOK = re.compile(rb'"searchDuration":"[^"]*"')


class Said:
    """Where an answer goes, by either way."""

    request_id = b"an-id"

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.trailers: dict[bytes, bytes] = {}
        self.times = 0
        self.came = asyncio.Event()

    def reply(self, status: int, headers: Any, body: bytes, trailers: Any = None) -> None:
        self.status, self.headers, self.body = status, dict(headers), body
        self.trailers = dict(trailers or ())
        self.times += 1
        self.came.set()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message["body"]
        else:
            self.trailers = dict(message["headers"])

    def comparable(self) -> Any:
        """All but how long it took."""
        body: Any = self.body
        if self.headers[b"content-type"] == b"application/grpc" and body:
            answer = search_service_pb2.SearchResponse.FromString(body[5:])
            answer.ClearField("search_duration")
            body = answer
        else:
            body = _TOOK.sub(b"", body)
        headers = {name: value for name, value in self.headers.items() if name != b"content-length"}
        return self.status, headers, body, self.trailers


@pytest.fixture
async def server(data_dir: Path, tmp_path: Path) -> AsyncIterator[HotServer]:
    settings = settings_for(data_dir, tokens_file=tmp_path / "tokens.json", max_queue=4, threads=1)
    server = HotServer(settings)
    await server.start()
    yield server
    server.close()


@pytest.fixture
def query(vectors: np.ndarray) -> bytes:
    return vectors[3].astype("<f4").tobytes()


def scope_of(path: str, headers: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "headers": list(headers)}


def message(query: bytes, **more: Any) -> bytes:
    return frame(
        search_service_pb2.SearchRequest(
            index="plain", vector=datapoint_pb2.Vector(float32=query), **more
        ).SerializeToString()
    )


def as_json(query: bytes, **more: Any) -> bytes:
    return json.dumps({"vector": {"float32": base64.b64encode(query).decode()}, **more}).encode()


def begin(
    server: HotServer, said: Said, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> WholeCall | None:
    route = server.whole.route(scope_of(path, headers))
    return None if route is None else server.whole.begin(route, body, said)


async def both(
    server: HotServer, path: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> tuple[Said, Said]:
    """What is said when it comes whole, and what the application says."""
    whole, ordinary = Said(), Said()
    assert begin(server, whole, path, headers, body) is not None
    await asyncio.wait_for(whole.came.wait(), 10)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    await server.app(scope_of(path, headers), receive, ordinary.send)
    assert whole.times == 1
    return whole, ordinary


@pytest.mark.parametrize(
    "more",
    [{}, {"neighbor_count": 3}, {"neighbor_count": 2, "return_full_datapoint": True}, {"target_recall": 0.5}],
    ids=str,
)
async def test_it_is_the_applications_answer(server: HotServer, query: bytes, more: dict[str, Any]) -> None:
    whole, ordinary = await both(server, SEARCH, GRPC, message(query, **more))
    assert whole.comparable() == ordinary.comparable()
    assert whole.trailers == {b"grpc-status": b"0"}


async def test_it_is_the_applications_answer_as_json(server: HotServer, query: bytes) -> None:
    whole, ordinary = await both(server, "/v1/indexes/plain:search", JSON, as_json(query, neighborCount=4))
    assert whole.comparable() == ordinary.comparable()
    assert len(json.loads(whole.body)["neighbors"]) == 4
    assert int(whole.headers[b"content-length"]) == len(whole.body)


@pytest.mark.parametrize("as_what", ["grpc", "json"])
async def test_what_the_engine_refuses_is_refused_alike(
    server: HotServer, query: bytes, as_what: str
) -> None:
    infinite = np.full(len(query) // 4, np.inf, "<f4").tobytes()
    asked = (
        (SEARCH, GRPC, message(infinite))
        if as_what == "grpc"
        else ("/v1/indexes/plain:search", JSON, as_json(infinite))
    )
    whole, ordinary = await both(server, *asked)
    assert whole.comparable() == ordinary.comparable()
    assert b"infinity" in whole.headers.get(b"grpc-message", whole.body)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/earshot.v1.SearchService/BatchSearch", GRPC),
        ("/grpc.health.v1.Health/Check", GRPC),
        (SEARCH, [(b"content-type", b"application/grpc-web")]),
        (SEARCH, [*GRPC, (b"grpc-encoding", b"gzip")]),
        (SEARCH, JSON),
        ("/v1/indexes/plain:batchSearch", JSON),
        ("/v1/indexes/a/b:search", JSON),
        ("/readyz", []),
    ],
)
async def test_what_is_no_search_is_left_to_the_application(
    server: HotServer, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    assert server.whole.route(scope_of(path, headers)) is None
    assert server.whole.route({**scope_of(SEARCH, GRPC), "method": "GET"}) is None


async def test_so_is_what_is_not_of_the_usual_layout(server: HotServer, query: bytes) -> None:
    usual = message(query)
    for body in (b"", usual[:-1], usual + usual, b"\1" + usual[1:], message(query[:-4]), frame(b"\xff")):
        assert begin(server, Said(), SEARCH, GRPC, body) is None, body
    by_id = search_service_pb2.SearchRequest(index="plain", datapoint_id="0").SerializeToString()
    assert begin(server, Said(), SEARCH, GRPC, frame(by_id)) is None
    for text in (b"", b"{", b'{"text": "x"}', as_json(query, explain=True)):
        assert begin(server, Said(), "/v1/indexes/plain:search", JSON, text) is None, text
    assert server.telemetry.metrics.in_flight == {"grpc": 0, "http": 0}


async def test_tokens_are_asked_for_and_their_rate_is_kept(
    data_dir: Path, tmp_path: Path, query: bytes
) -> None:
    path = tmp_path / "tokens.json"
    secret = TokenFile(path).create([Grant(Scope.READ, "plain")], requests_per_second=0.001, burst=2).secret
    other = TokenFile(path).create([Grant(Scope.READ, "other")]).secret
    server = HotServer(settings_for(data_dir, tokens_file=path))
    await server.start()
    bearer = (b"authorization", b"Bearer " + secret.encode())

    async def status(*more: tuple[bytes, bytes]) -> list[str]:
        said: list[str] = []
        for asked in (
            (SEARCH, [*GRPC, *more], message(query)),
            ("/v1/indexes/plain:search", [*JSON, *more], as_json(query)),
        ):
            answer = Said()
            if begin(server, answer, *asked) is None:
                said.append("left")
                continue
            await asyncio.wait_for(answer.came.wait(), 10)
            status = answer.trailers.get(b"grpc-status") or answer.headers.get(b"grpc-status")
            said.append(status.decode() if status else str(answer.status))
        return said

    try:
        assert await status() == ["left", "left"]
        assert await status((b"authorization", b"Bearer nobody's")) == ["left", "left"]
        assert await status((b"authorization", b"Bearer " + other.encode())) == ["7", "403"]
        assert await status(bearer) == ["0", "200"]
        assert await status(bearer) == ["8", "429"]
    finally:
        server.close()


async def test_beyond_the_queue_it_is_refused_at_once(server: HotServer, query: bytes) -> None:
    said = [Said() for _ in range(6)]
    for each in said:
        begin(server, each, SEARCH, GRPC, message(query))
    assert [each.times for each in said] == [0, 0, 0, 0, 1, 1]
    assert said[5].headers[b"grpc-status"] == b"8"
    assert int(said[5].headers[b"grpc-retry-pushback-ms"]) > 0
    for each in said[:4]:
        await asyncio.wait_for(each.came.wait(), 10)
        assert each.trailers[b"grpc-status"] == b"0"


async def test_a_deadline_that_is_none_is_told(server: HotServer, query: bytes) -> None:
    whole, ordinary = await both(server, SEARCH, [*GRPC, (b"grpc-timeout", b"soon")], message(query))
    assert whole.comparable() == ordinary.comparable()
    assert whole.headers[b"grpc-status"] == b"3"


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Searches wait in the engine until this is set."""
    released = threading.Event()

    def wait_and_find(plan: Any, queries: Any) -> Any:
        released.wait(10)
        return find(plan, queries)

    monkeypatch.setattr(searching, "find", wait_and_find)
    yield released
    released.set()


async def test_past_its_deadline_it_is_told_so_also_while_the_engine_works(
    server: HotServer, query: bytes, stuck: threading.Event
) -> None:
    said = Said()
    begin(server, said, SEARCH, [*GRPC, (b"grpc-timeout", b"50m")], message(query))
    await asyncio.wait_for(said.came.wait(), 5)
    assert said.headers[b"grpc-status"] == b"4"
    stuck.set()
    await asyncio.sleep(0.1)
    assert said.times == 1
    assert len(server.calls) == 0


async def test_a_client_that_leaves_hears_nothing_and_counts_as_gone(
    server: HotServer, query: bytes, stuck: threading.Event
) -> None:
    first, second = Said(), Said()
    running, waiting = (begin(server, said, SEARCH, GRPC, message(query)) for said in (first, second))
    assert running is not None
    assert waiting is not None
    await asyncio.sleep(0.05)
    for call in (running, waiting):
        call.lose()
        call.lose()
    stuck.set()
    await asyncio.sleep(0.1)
    assert (first.times, second.times) == (0, 0)
    page = server.telemetry.metrics.page("text/plain")[0].decode()
    assert 'code="CANCELLED",index="plain",method="Search",protocol="grpc"} 2.0' in page
    assert server.telemetry.metrics.in_flight["grpc"] == 0


async def test_what_is_under_way_when_the_server_must_go_is_told(
    server: HotServer, query: bytes, stuck: threading.Event
) -> None:
    said = Said()
    begin(server, said, "/v1/indexes/plain:search", JSON, as_json(query))
    assert len(server.calls) == 1
    server.calls.end_all(Unavailable("the server is shutting down"))
    assert said.status == 503
    assert len(server.calls) == 0


async def test_an_answer_that_is_too_large_is_not_sent(data_dir: Path, query: bytes) -> None:
    server = HotServer(settings_for(data_dir, max_answer_bytes=1024))
    await server.start()
    try:
        whole, ordinary = await both(server, SEARCH, GRPC, message(query, neighbor_count=100))
    finally:
        server.close()
    assert whole.comparable() == ordinary.comparable()
    assert whole.headers[b"grpc-status"] == b"8"


async def test_what_was_not_foreseen_is_logged_and_told_in_one_sentence(
    server: HotServer, query: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(plan: Any, queries: Any) -> Any:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(searching, "find", fail)
    with caplog.at_level(logging.ERROR):
        whole, ordinary = await both(server, SEARCH, GRPC, message(query))
    assert whole.comparable() == ordinary.comparable()
    assert b"secret" not in whole.headers[b"grpc-message"]
    assert sum("not foreseen" in entry.message for entry in caplog.records) == 2


async def test_the_log_has_the_id_that_the_answer_has(
    server: HotServer, query: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "earshot.request"):
        said = Said()
        begin(server, said, SEARCH, GRPC, message(query))
        await asyncio.wait_for(said.came.wait(), 10)
    fields = [entry.call for entry in caplog.records if hasattr(entry, "call")]
    assert [each["request_id"] for each in fields] == ["an-id"]
