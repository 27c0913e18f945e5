"""HTTP/2 as the connection keeps it: windows, ends, and how it is let go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.server.direct import frames as f
from earshot.server.direct.http2 import (
    CONNECTION_WINDOW,
)
from earshot.server.direct.stream import STREAM_WINDOW

from .wire import POST, Http2Wire, Stuck, echo, ends_of, initial_window, settle, window

pytestmark = pytest.mark.anyio

LATER = 1e6  # seconds; a peer that keeps its connection


def answer_of(size: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(range(256)) * (size // 256)})

    return app


async def test_requests_of_one_turn_are_answered_in_one_piece() -> None:
    wire = Http2Wire(echo)
    await wire.heard()
    before = wire.transport.writes
    wire.tell(
        *(
            wire.headers(stream) + f.frame(f.DATA, f.END_STREAM, stream, b"%d" % stream)
            for stream in range(1, 20, 2)
        )
    )
    assert await wire.answers() == {stream: ("200", b"POST %d" % stream, True) for stream in range(1, 20, 2)}
    assert wire.transport.writes == before + 1


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 300_000),
    st.integers(0, 100_000),
    st.lists(st.tuples(st.sampled_from([0, 1]), st.integers(1, 90_000)), max_size=12),
)
async def test_no_more_is_sent_than_the_windows_allow(
    size: int, initial: int, grants: list[tuple[int, int]]
) -> None:
    size -= size % 256
    wire = Http2Wire(answer_of(size))
    wire.tell(initial_window(initial))
    wire.ask(1)
    of_stream, of_connection, sent = initial, f.INITIAL_WINDOW, 0
    for stream, grant in [*grants, (1, size), (0, size)]:
        data = [payload for kind, _, _, payload in await wire.heard() if kind == f.DATA]
        sent += sum(map(len, data))
        assert sent == min(size, of_stream, of_connection)
        assert all(len(payload) <= f.FRAME_BYTES for payload in data)
        if grant:
            wire.tell(window(stream, grant))
        of_stream, of_connection = (
            of_stream + grant * (stream == 1),
            of_connection + grant * (stream == 0),
        )
    heard = [frame for frame in await wire.heard() if frame[0] == f.DATA]
    assert sent + sum(len(payload) for *_, payload in heard) == size


async def test_a_window_that_shrinks_holds_what_is_under_way() -> None:
    wire = Http2Wire(answer_of(51_200))
    wire.tell(initial_window(20_000))
    wire.ask(1)
    await wire.heard()
    wire.tell(initial_window(10_000), window(1, 5_000))
    assert not [kind for kind, *_ in await wire.heard() if kind == f.DATA]  # it is 5,000 below nothing
    wire.tell(window(1, 6_000))
    assert [len(payload) for kind, *_, payload in await wire.heard() if kind == f.DATA] == [1_000]


async def test_streams_share_the_window_of_their_connection() -> None:
    wire = Http2Wire(answer_of(204_800))
    wire.tell(initial_window(f.MAX_WINDOW))
    for stream in (1, 3, 5):
        wire.ask(stream)
    sent = dict.fromkeys((1, 3, 5), 0)
    for _ in range(9):
        for kind, _, stream, payload in await wire.heard():
            if kind == f.DATA:
                sent[stream] += len(payload)
        wire.tell(window(0, f.FRAME_BYTES))
    shares = sent[1] - f.INITIAL_WINDOW, sent[3], sent[5]  # the first one had that for itself
    assert sorted(shares) == [2 * f.FRAME_BYTES, 3 * f.FRAME_BYTES, 3 * f.FRAME_BYTES]


async def test_trailers_wait_for_the_body_before_them() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x" * 100})
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})

    wire = Http2Wire(app)
    wire.tell(initial_window(40))
    wire.ask(1)
    assert [kind for kind, *_ in await wire.heard()][-2:] == [f.HEADERS, f.DATA]
    wire.tell(window(1, 100))
    (data, trailers) = await wire.heard()
    assert (data[0], len(data[3]), data[1]) == (f.DATA, 60, 0)
    assert trailers[:2] == (f.HEADERS, f.END_HEADERS | f.END_STREAM)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_an_answer_without_a_body_is_one_frame(method: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"" if method == "GET" else b"not for you"})

    wire = Http2Wire(app)
    await wire.heard()
    headers = [(":method", method), *POST[1:]]
    wire.tell(wire.headers(1, headers, f.END_HEADERS | f.END_STREAM))
    ((kind, flags, _, _),) = await wire.heard()
    assert (kind, flags) == (f.HEADERS, f.END_HEADERS | f.END_STREAM)


async def test_an_answer_before_the_request_is_whole_stops_the_client() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    wire = Http2Wire(app)
    wire.tell(wire.headers(1), f.frame(f.DATA, 0, 1, b"x" * 1000))
    assert ends_of(await wire.heard()) == [(1, f.Error.NO_ERROR)]
    wire.tell(f.frame(f.DATA, 0, 1, b"still on its way"))  # is passed over
    wire.ask(3)
    assert (await wire.answers())[3] == ("401", b"no", True)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 16_000), st.integers(0, 255)), max_size=300))
async def test_a_body_of_any_size_and_padding_comes_through(pieces: list[tuple[int, int]]) -> None:
    """The client keeps to the windows as they are told, and never has to wait for ever."""
    wire = Http2Wire(echo)
    wire.tell(initial_window(f.MAX_WINDOW), window(0, f.MAX_WINDOW - f.INITIAL_WINDOW))
    of_stream, of_connection = STREAM_WINDOW, CONNECTION_WINDOW
    wire.tell(wire.headers(1))
    for size, padding in pieces:
        size = min(size, f.FRAME_BYTES - 1 - padding)
        payload = bytes([padding]) + b"x" * size + bytes(padding)
        of_stream, of_connection = of_stream - len(payload), of_connection - len(payload)
        assert min(of_stream, of_connection) >= 0, "the client would wait for ever"
        wire.tell(f.frame(f.DATA, f.PADDED, 1, payload))
        for kind, _, stream, told in await wire.heard():
            if kind == f.WINDOW_UPDATE:
                grant = int.from_bytes(told, "big")
                of_stream, of_connection = (
                    of_stream + grant * bool(stream),
                    of_connection + grant * (not stream),
                )
    wire.tell(f.frame(f.DATA, f.END_STREAM, 1))
    total = sum(min(size, f.FRAME_BYTES - 1 - padding) for size, padding in pieces)
    assert (await wire.answers())[1] == ("200", b"POST " + b"x" * total, True)


async def test_streams_that_were_reset_give_their_window_back() -> None:
    wire = Http2Wire(Stuck())
    for stream in range(1, 2 * 3 * CONNECTION_WINDOW // STREAM_WINDOW, 2):
        wire.tell(wire.headers(stream))
        for _ in range(STREAM_WINDOW // f.FRAME_BYTES // 2):
            wire.tell(f.frame(f.DATA, 0, stream, bytes(f.FRAME_BYTES)))
        wire.tell(f.reset(stream, 8))
        await settle()
    assert not ends_of(await wire.heard())


async def test_trailers_of_a_request_end_it() -> None:
    wire = Http2Wire(echo)
    wire.tell(wire.headers(1), f.frame(f.DATA, 0, 1, b"abc"))
    wire.tell(wire.headers(1, [("x-sum", "1")], f.END_HEADERS | f.END_STREAM))
    assert (await wire.answers())[1] == ("200", b"POST abc", True)


async def test_a_stream_waits_while_the_socket_is_full() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": b""})

    wire = Http2Wire(app)
    wire.connection.pause_writing()
    wire.ask(1)
    await settle()
    assert sent == 0
    wire.connection.resume_writing()
    await settle()
    assert sent == 10
    assert (await wire.answers())[1] == ("200", b"x" * 10, True)


async def test_who_is_gone_is_told_to_the_call_whatever_it_does() -> None:
    errors: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        except OSError as error:
            errors.append(error)
            raise

    stuck = Stuck()
    for kind in (app, stuck):
        wire = Http2Wire(kind)
        wire.tell(wire.headers(1))
        await settle()
        wire.connection.connection_lost(None)
        await settle()
        assert wire.lost == 1
    assert len(errors) == 1
    assert stuck.gone == 1


async def test_a_client_is_asked_to_go_and_what_it_asked_is_answered() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    wire = Http2Wire(app)
    wire.ask(1, b"before")
    await wire.heard()
    wire.connection.leave()
    assert ends_of(await wire.heard()) == [(0, f.Error.NO_ERROR)]
    wire.ask(3, b"on its way")
    await settle()
    wire.connection.close()
    (_, _, _, payload) = next(frame for frame in await wire.heard() if frame[0] == f.GOAWAY)
    assert int.from_bytes(payload[:4], "big") == 3
    wire.ask(5, b"too late")
    assert not wire.transport.is_closed
    go_on.set()
    assert await wire.answers() == {
        1: ("200", b"POST before", True),
        3: ("200", b"POST on its way", True),
    }
    assert wire.transport.is_closed


async def test_who_asks_nothing_is_not_told_before_it_is_let_go() -> None:
    wire = Http2Wire(echo)
    await wire.heard()
    wire.connection.leave()
    assert await wire.heard() == []
    wire.connection.close()
    assert wire.transport.is_closed
    assert ends_of(await wire.heard()) == [(0, f.Error.NO_ERROR)]
