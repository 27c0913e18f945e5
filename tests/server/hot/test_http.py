"""HTTP on the hot face, over a channel made by hand: a query whose sender leaves or gives up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from earshot.server.auth import Guard
from earshot.server.hot.app import HotApp
from earshot.server.hot.calls import Watch
from earshot.server.hot.http import HotHttp
from earshot.server.telemetry import Telemetry

pytestmark = pytest.mark.anyio


class Stuck:
    """A searcher that never answers, and remembers how a search ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.was_cancelled = asyncio.Event()

    async def search_json(self, name: str, body: bytes, record: Any, check: Any) -> bytes:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        raise AssertionError

    batch_search_json = search_json


class Client:
    """One POST of `{}`; then silence, or what is put into `incoming`."""

    def __init__(self, **headers: str) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/indexes/plain:search",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "http.request", "body": b"{}", "more_body": False})
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def app(stuck: Stuck, telemetry: Telemetry) -> HotApp:
    async def http(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not a search")

    searcher: Any = stuck
    shared = telemetry, Guard(None), Watch()
    hot = HotHttp(searcher, http, *shared, max_message_bytes=1000, max_answer_bytes=2000)
    return HotApp({}, {}, hot, *shared, max_message_bytes=1000, max_answer_bytes=2000)


async def test_the_search_of_a_client_that_left_is_cancelled() -> None:
    stuck, telemetry, client = Stuck(), Telemetry("direct"), Client()
    running = asyncio.create_task(app(stuck, telemetry)(client.scope, client.incoming.get, client.send))
    await stuck.began.wait()
    assert telemetry.metrics.in_flight["http"] == 1
    client.incoming.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(running, 10)
    assert stuck.was_cancelled.is_set()
    assert client.sent == []
    assert telemetry.metrics.in_flight["http"] == 0


async def test_a_search_past_its_deadline_is_cancelled_and_says_504() -> None:
    stuck, client = Stuck(), Client(grpc_timeout="50m")
    calling = app(stuck, Telemetry("direct"))(client.scope, client.incoming.get, client.send)
    await asyncio.wait_for(calling, 10)
    assert stuck.was_cancelled.is_set()
    assert client.sent[0]["status"] == 504
    assert json.loads(client.sent[1]["body"])["error"]["status"] == "DEADLINE_EXCEEDED"


async def test_with_too_many_under_way_a_search_is_refused_before_it_is_read() -> None:
    stuck, client = Stuck(), Client()
    calling = app(stuck, Telemetry("direct", max_in_flight=0))(client.scope, client.incoming.get, client.send)
    await asyncio.wait_for(calling, 10)
    assert not stuck.began.is_set()
    assert client.incoming.qsize() == 1
    assert client.sent[0]["status"] == 429
    assert dict(client.sent[0]["headers"])[b"retry-after"] == b"1"
