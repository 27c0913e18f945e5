"""The ASGI application on a channel made by hand, for what a real client cannot be made to do."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest

from earshot.errors import NotFound, Unavailable
from earshot.server.auth import Guard
from earshot.server.hot.app import HotApp
from earshot.server.hot.asgi import patient_receive
from earshot.server.hot.calls import Watch
from earshot.server.hot.framing import frame
from earshot.server.telemetry import CallRecord, Telemetry

pytestmark = pytest.mark.anyio


class Client:
    """One request: `incoming` are what `receive` gives, then silence; `sent` is what came back."""

    def __init__(self, *chunks: bytes, path: str = "/s/echo", more: bool = False, **headers: str) -> None:
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [
                (b"content-type", b"application/grpc"),
                *((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()),
            ],
        }
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for position, chunk in enumerate(chunks):
            is_last = position == len(chunks) - 1 and not more
            self.incoming.put_nowait({"type": "http.request", "body": chunk, "more_body": not is_last})
        self.sent: list[dict[str, Any]] = []

    def vanish(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int:
        names = [header for message in self.sent for header in message.get("headers", [])]
        return int(dict(names)[b"grpc-status"])


async def echo(data: bytes, record: CallRecord) -> bytes:
    return data


async def fail(data: bytes, record: CallRecord) -> bytes:
    raise NotFound("nichts – 100 %")


async def crash(data: bytes, record: CallRecord) -> bytes:
    raise ZeroDivisionError("a secret")


async def count(
    requests: AsyncIterator[Sequence[bytes]], record: CallRecord
) -> AsyncGenerator[Sequence[bytes]]:
    async for bundle in requests:
        for request in bundle:
            if request:
                yield [request] * len(request)


async def crash_later(
    requests: AsyncIterator[Sequence[bytes]], record: CallRecord
) -> AsyncGenerator[Sequence[bytes]]:
    yield [b"one"]
    raise ZeroDivisionError("a secret")


class Stuck:
    """A method that never answers, and remembers how it ended."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.was_cancelled = asyncio.Event()

    async def __call__(self, data: bytes, record: CallRecord) -> bytes:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        raise AssertionError


def app(stuck: Callable[..., Awaitable[bytes]] = echo, calls: Watch | None = None) -> HotApp:
    async def http(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})

    return HotApp(
        {"/s/echo": echo, "/s/fail": fail, "/s/crash": crash, "/s/stuck": stuck},
        {"/s/count": count, "/s/crash_later": crash_later},
        http,
        Telemetry("direct"),
        Guard(None),
        Watch() if calls is None else calls,
        max_message_bytes=1000,
        max_answer_bytes=2000,
    )


async def call(client: Client, application: HotApp | None = None) -> Client:
    await asyncio.wait_for((application or app())(client.scope, client.receive, client.send), 10)
    return client


async def test_a_unary_call_in_one_chunk_and_in_many() -> None:
    data = frame(b"hello")
    for chunks in ([data], [data[:3], data[3:7], data[7:]], [data, b""]):
        client = await call(Client(*chunks))
        assert (client.status, client.body) == (0, data)
        assert client.sent[0]["trailers"] is True


async def test_an_error_is_a_status_without_a_body() -> None:
    client = await call(Client(frame(b""), path="/s/fail"))
    assert client.status == 5
    assert (b"grpc-message", b"nichts %E2%80%93 100 %25") in client.sent[0]["headers"]
    assert client.body == b""


async def test_a_crash_tells_the_log_and_not_the_client(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/s/crash", "/s/crash_later"):
        client = await call(Client(frame(b""), path=path))
        assert client.status == 13
        assert b"secret" not in repr(client.sent).encode()
    assert caplog.text.count("ZeroDivisionError: a secret") == 2


@pytest.mark.parametrize(
    ("chunks", "headers", "status"),
    [
        ([b""], {}, 3),
        ([frame(b"a") + frame(b"b")], {}, 3),
        ([frame(b"abc")[:-1]], {}, 3),
        ([b"\x07\0\0\0\0"], {}, 3),
        ([frame(b"x" * 1001)], {}, 8),
        ([b"\1\0\0\0\1x"], {"grpc_encoding": "br"}, 12),
        ([frame(b"a")], {"grpc_timeout": "soon"}, 3),
    ],
)
async def test_malformed_requests_get_a_status(
    chunks: list[bytes], headers: dict[str, Any], status: int
) -> None:
    assert (await call(Client(*chunks, **headers))).status == status


async def test_an_oversized_message_is_refused_without_waiting_for_the_rest() -> None:
    client = await call(Client(frame(b"x" * 2000)[:10], more=True))
    assert client.status == 8


async def test_an_unknown_method_is_unimplemented() -> None:
    assert (await call(Client(frame(b""), path="/s/nothing"))).status == 12


async def test_other_content_types_go_elsewhere_or_are_refused() -> None:
    plain = Client(b"{}")
    plain.scope["headers"] = [(b"content-type", b"application/json")]
    assert (await call(plain)).sent[0]["status"] == 299
    web = Client(b"")
    web.scope["headers"] = [(b"content-type", b"application/grpc-web")]
    assert (await call(web)).sent[0]["status"] == 415


async def test_answers_come_compressed_to_who_compresses() -> None:
    client = await call(Client(frame(b"x" * 1000), grpc_encoding="gzip"))
    assert client.body[0] == 0  # under a kibibyte it is not worth it
    headers = dict(client.sent[0]["headers"])
    assert headers[b"grpc-encoding"] == b"gzip"


async def test_a_stream_is_answered_while_it_is_still_being_sent() -> None:
    client = Client(path="/s/count")
    running = asyncio.create_task(call(client))
    for number in (1, 2):
        client.incoming.put_nowait({"type": "http.request", "body": frame(b"x" * number), "more_body": True})
        while client.body.count(b"\0\0\0\0") < (1, 3)[number - 1]:
            await asyncio.sleep(0.001)
    client.incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    await running
    assert client.body == frame(b"x") + 2 * frame(b"xx")
    assert client.status == 0


async def test_a_deadline_ends_a_call_and_its_work() -> None:
    stuck = Stuck()
    client = await call(Client(frame(b""), path="/s/stuck", grpc_timeout="50m"), app(stuck))
    assert client.status == 4
    assert stuck.was_cancelled.is_set()


async def test_a_deadline_ends_a_stream_that_is_waiting_for_its_client() -> None:
    client = await call(Client(frame(b"x"), path="/s/count", more=True, grpc_timeout="50m"))
    assert client.status == 4
    assert client.body == frame(b"x")


@pytest.mark.parametrize("path", ["/s/stuck", "/s/count"])
async def test_a_client_that_vanishes_ends_its_call_in_silence(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
    stuck = Stuck()
    client = Client(frame(b""), path=path, more=path == "/s/count")
    running = asyncio.create_task(call(client, app(stuck)))
    await asyncio.sleep(0.05)
    client.vanish()
    await running
    assert client.sent == []
    assert path == "/s/count" or stuck.was_cancelled.is_set()
    assert problems == []
    assert caplog.text == ""


@pytest.mark.parametrize("path", ["/s/echo", "/s/count"])
async def test_clients_that_are_gone_leave_nothing_behind(path: str) -> None:
    """The server below may raise one and the same object to all of them."""
    gone = ConnectionResetError("gone")
    sends: list[weakref.ref[asyncio.Future[None]]] = []

    def send(message: Any) -> asyncio.Future[None]:
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_exception(gone)
        sends.append(weakref.ref(sent))
        return sent

    for _ in range(20):
        client = Client(frame(b"\x03"), path=path)
        await asyncio.wait_for(app()(client.scope, client.receive, send), 10)
    await asyncio.sleep(0.05)
    gc.collect()
    assert len(sends) >= 20
    assert [sent for sent in sends if sent() is not None] == []


async def test_what_still_runs_at_the_end_hears_unavailable() -> None:
    stuck = Stuck()
    calls = Watch()
    application = app(stuck, calls)
    client = Client(frame(b""), path="/s/stuck")
    running = asyncio.create_task(call(client, application))
    await stuck.began.wait()
    calls.end_all(Unavailable("the server is shutting down"))
    await running
    assert client.status == 14


async def test_a_receive_that_is_given_up_is_not_cancelled() -> None:
    """pyvoy resolves it all the same, and asyncio would report InvalidStateError."""
    pending: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(patient_receive(lambda: pending)())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.sleep(0)
    pending.set_result({"type": "http.disconnect"})
    assert waiting.cancelled()


async def test_after_the_body_receive_waits_for_the_disconnect_instead_of_spinning() -> None:
    asked = 0

    async def eager() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked < 4:
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    receive = patient_receive(eager)
    assert (await receive())["type"] == "http.request"
    assert (await receive())["type"] == "http.disconnect"
    assert asked == 4
