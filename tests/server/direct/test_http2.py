"""HTTP/2 as the connection keeps it: windows, ends, refusals and floods."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.server.direct import frames as f
from earshot.server.direct.http2 import (
    BURST_OF_RESETS,
    CONNECTION_WINDOW,
    HEAD_SECONDS,
    MAX_RUNNING,
    MAX_STREAMS,
    MAX_UNHEARD,
)
from earshot.server.direct.stream import STREAM_WINDOW

from .wire import POST, Http2Wire, body_of, echo, settle

pytestmark = pytest.mark.anyio

LATER = 1e6  # seconds; a peer that keeps its connection


def ends_of(frames: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int]]:
    """Streams that were reset, and why; stream 0 is the connection."""
    found = []
    for kind, _, stream, payload in frames:
        if kind == f.RST_STREAM:
            found.append((stream, int.from_bytes(payload, "big")))
        elif kind == f.GOAWAY:
            found.append((0, int.from_bytes(payload[4:8], "big")))
    return found


def window(stream: int, size: int) -> bytes:
    return f.window_update(stream, size)


def initial_window(size: int) -> bytes:
    return f.frame(f.SETTINGS, 0, 0, f.setting(4, size))


def answer_of(size: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(range(256)) * (size // 256)})

    return app


class Stuck:
    """Never answers, and hears when its client goes."""

    def __init__(self) -> None:
        self.begun, self.gone = 0, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone += 1


async def test_requests_of_one_turn_are_answered_in_one_piece() -> None:
    wire = Http2Wire(echo)
    await wire.heard()
    before = len(wire.transport.written)
    written: list[int] = []
    write = wire.transport.write
    wire.transport.write = lambda data: (written.append(len(data)), write(data))[1]  # type: ignore[method-assign, func-returns-value]
    wire.tell(
        *(
            wire.headers(stream) + f.frame(f.DATA, f.END_STREAM, stream, b"%d" % stream)
            for stream in range(1, 20, 2)
        )
    )
    assert await wire.answers() == {stream: ("200", b"POST %d" % stream, True) for stream in range(1, 20, 2)}
    assert written == [len(wire.transport.written) - before]


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


async def test_what_nobody_reads_is_bounded() -> None:
    wire = Http2Wire(answer_never)
    wire.tell(wire.headers(1))
    for _ in range(STREAM_WINDOW // f.FRAME_BYTES):
        wire.tell(f.frame(f.DATA, 0, 1, bytes(f.FRAME_BYTES)))
    assert not ends_of(await wire.heard())
    wire.tell(f.frame(f.DATA, 0, 1, b"x"))
    assert ends_of(await wire.heard()) == [(1, f.Error.FLOW_CONTROL_ERROR)]


async def answer_never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def test_streams_that_were_reset_give_their_window_back() -> None:
    wire = Http2Wire(Stuck())
    for stream in range(1, 2 * 3 * CONNECTION_WINDOW // STREAM_WINDOW, 2):
        wire.tell(wire.headers(stream))
        for _ in range(STREAM_WINDOW // f.FRAME_BYTES // 2):
            wire.tell(f.frame(f.DATA, 0, stream, bytes(f.FRAME_BYTES)))
        wire.tell(f.reset(stream, 8))
        await settle()
    assert not ends_of(await wire.heard())


@pytest.mark.parametrize(
    ("length", "pieces", "is_right"),
    [
        ("3", [b"abc"], True),
        ("4", [b"abc"], False),
        ("2", [b"abc"], False),
        ("x", [b""], False),
        ("0", [b""], True),
    ],
)
async def test_a_length_that_is_announced_is_kept(length: str, pieces: list[bytes], is_right: bool) -> None:
    wire = Http2Wire(echo)
    wire.tell(wire.headers(1, [*POST, ("content-length", length)]))
    for piece in pieces:
        wire.tell(f.frame(f.DATA, 0, 1, piece))
    wire.tell(f.frame(f.DATA, f.END_STREAM, 1))
    found = await wire.heard()
    assert ends_of(found) == ([] if is_right else [(1, f.Error.PROTOCOL_ERROR)])


async def test_trailers_of_a_request_end_it() -> None:
    wire = Http2Wire(echo)
    wire.tell(wire.headers(1), f.frame(f.DATA, 0, 1, b"abc"))
    wire.tell(wire.headers(1, [("x-sum", "1")], f.END_HEADERS | f.END_STREAM))
    assert (await wire.answers())[1] == ("200", b"POST abc", True)


@pytest.mark.parametrize(
    ("frames", "ends"),
    [
        ([f.frame(f.DATA, 0, 5, b"x")], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.DATA, 0, 0, b"x")], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.SETTINGS, 0, 1)], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.SETTINGS, 0, 0, b"x")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([f.frame(f.SETTINGS, f.ACK, 0, b"x")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([initial_window(1 << 31)], [(0, f.Error.FLOW_CONTROL_ERROR)]),
        ([f.frame(f.SETTINGS, 0, 0, f.setting(5, 100))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.SETTINGS, 0, 0, f.setting(2, 2))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.PING, 0, 0, b"short")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([f.frame(f.PING, 0, 3, bytes(8))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([window(0, 0)], [(0, f.Error.PROTOCOL_ERROR)]),
        ([window(0, f.MAX_WINDOW)], [(0, f.Error.FLOW_CONTROL_ERROR)]),
        ([window(9, 1)], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.WINDOW_UPDATE, 0, 0, b"x")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([f.reset(9, 8)], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.RST_STREAM, 0, 1, b"x")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([f.frame(f.PRIORITY, 0, 0, bytes(5))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.PRIORITY, 0, 1, b"x")], [(0, f.Error.FRAME_SIZE_ERROR)]),
        ([f.frame(f.PUSH_PROMISE, 0, 1, bytes(4))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.GOAWAY, 0, 1, bytes(8))], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.HEADERS, f.END_HEADERS, 2, b"\x82")], [(0, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xff" * 9)], [(0, f.Error.COMPRESSION_ERROR)]),
        ([f.frame(f.HEADERS, f.END_HEADERS, 1, b"\x82")], [(1, f.Error.PROTOCOL_ERROR)]),
        ([f.frame(99, 0, 1, b"who knows")], []),
        ([f.frame(f.GOAWAY, 0, 0, bytes(8)), f.frame(f.PRIORITY, 0, 1, bytes(5))], []),
        ([f.frame(f.SETTINGS, f.ACK, 0), f.frame(f.PING, f.ACK, 0, bytes(8))], []),
    ],
)
async def test_what_breaks_the_protocol_ends_what_it_is_about(
    frames: list[bytes], ends: list[tuple[int, int]]
) -> None:
    wire = Http2Wire(echo)
    wire.tell(*frames)
    assert ends_of(await wire.heard()) == ends
    ends_all = any(not stream for stream, _ in ends)
    assert wire.transport.is_closed == ends_all
    if not ends_all:
        wire.ask(3, b"on")
        assert (await wire.answers())[3] == ("200", b"POST on", True)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (window(1, 0), f.Error.PROTOCOL_ERROR),
        (window(1, f.MAX_WINDOW), f.Error.FLOW_CONTROL_ERROR),
        (f.frame(f.HEADERS, f.END_HEADERS, 1, b""), f.Error.PROTOCOL_ERROR),
    ],
)
async def test_what_is_wrong_with_a_stream_ends_that(frame: bytes, code: int) -> None:
    wire, stuck = Http2Wire(app := Stuck()), app
    wire.tell(wire.headers(1))
    await settle()
    wire.tell(frame)
    assert ends_of(await wire.heard()) == [(1, code)]
    await settle()
    assert stuck.gone == 1


async def test_data_after_the_end_is_an_error_of_its_stream() -> None:
    wire = Http2Wire(Stuck())
    wire.ask(1)
    wire.tell(f.frame(f.DATA, 0, 1, b"more"))
    assert ends_of(await wire.heard()) == [(1, f.Error.STREAM_CLOSED)]


async def test_more_streams_than_may_be_are_refused_and_may_be_sent_again() -> None:
    stuck = Stuck()
    wire = Http2Wire(stuck)
    for number in range(MAX_STREAMS + 3):
        wire.tell(wire.headers(2 * number + 1))
    refused = [(2 * number + 1, f.Error.REFUSED_STREAM) for number in range(MAX_STREAMS, MAX_STREAMS + 3)]
    assert ends_of(await wire.heard()) == refused
    assert stuck.begun == MAX_STREAMS


async def test_calls_that_were_given_up_and_run_on_count_too() -> None:
    wire = Http2Wire(answer_never)
    refused = 0
    for number in range(MAX_RUNNING + 5):
        wire.tell(wire.headers(2 * number + 1), f.reset(2 * number + 1, 8))
        refused += len(ends_of(await wire.heard()))
    assert refused == 5


async def test_a_flood_of_resets_ends_the_connection() -> None:
    stuck = Stuck()
    wire = Http2Wire(stuck)
    for number in range(2 * BURST_OF_RESETS):
        if wire.transport.is_closed:
            break
        wire.tell(wire.headers(2 * number + 1), f.reset(2 * number + 1, 8))
        await settle()
    assert ends_of(await wire.heard())[-1] == (0, f.Error.ENHANCE_YOUR_CALM)
    assert number >= BURST_OF_RESETS
    assert stuck.gone == stuck.begun


async def test_pings_are_answered_while_somebody_reads_the_answers() -> None:
    wire = Http2Wire(echo)
    await wire.heard()
    wire.tell(f.frame(f.PING, 0, 0, b"12345678"))
    assert await wire.heard() == [(f.PING, f.ACK, 0, b"12345678")]
    wire.connection.pause_writing()
    for _ in range(MAX_UNHEARD):
        wire.tell(f.frame(f.PING, 0, 0, bytes(8)))
    assert not wire.transport.is_aborted
    wire.tell(f.frame(f.PING, 0, 0, bytes(8)))
    assert wire.transport.is_aborted


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


@pytest.mark.parametrize("begins", [False, True])
async def test_a_call_that_fails_is_answered_or_reset(begins: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("a bug")

    wire = Http2Wire(app)
    wire.ask(1)
    if begins:
        assert ends_of(await wire.heard()) == [(1, f.Error.INTERNAL_ERROR)]
    else:
        assert (await wire.answers())[1] == ("500", b"internal error", True)
    assert "a bug" in caplog.text


async def test_a_call_that_says_nothing_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    wire = Http2Wire(app)
    wire.ask(1)
    assert (await wire.answers())[1][0] == "500"


async def test_headers_that_are_too_many_are_told_in_the_call_s_own_words() -> None:
    wire = Http2Wire(echo)
    large = ("x-large", "y" * 20_000)
    for stream, headers in ((1, [*POST, ("content-type", "application/grpc"), large]), (3, [*POST, large])):
        block = wire.encoder.encode(headers)
        wire.tell(f.frame(f.HEADERS, f.END_STREAM, stream, block[:16_000]))
        wire.tell(f.frame(f.CONTINUATION, f.END_HEADERS, stream, block[16_000:]))
    (grpc_kind, _, _, grpc_block), (_, _, _, http_block), (_, _, _, body) = (
        frame for frame in await wire.heard() if frame[2]
    )
    assert grpc_kind == f.HEADERS
    told = wire.unpack(grpc_block)
    assert told["grpc-status"] == "8"
    assert "headers" in told["grpc-message"]
    assert wire.unpack(http_block)[":status"] == "400"
    assert b"headers" in body


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


async def test_heads_that_do_not_become_whole_and_idle_connections_are_ended() -> None:
    now = asyncio.get_running_loop().time()
    slow, idle, silent = Http2Wire(echo), Http2Wire(echo), Http2Wire(echo, begin=False)
    slow.tell(f.frame(f.HEADERS, 0, 1, b"x"))
    for wire in (slow, idle, silent):
        wire.connection.look(now + HEAD_SECONDS / 2, LATER)
        assert not wire.transport.is_closed
        wire.connection.look(now + HEAD_SECONDS + 1, LATER)
    assert [wire.transport.is_closed for wire in (slow, idle, silent)] == [True, False, True]
    idle.connection.look(now + 101, 100)
    assert idle.transport.is_closed
    assert not idle.transport.is_aborted
    for seconds, left, is_aborted in ((102, 9, False), (130, 7, False), (159, 7, False), (161, 7, True)):
        idle.transport.left = left  # as long as it reads that, it is let
        idle.connection.look(now + seconds, 100)
        assert idle.transport.is_aborted == is_aborted


async def test_nothing_is_logged_of_what_peers_do_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wire = Http2Wire(echo)
    wire.tell(f.frame(f.PING, 0, 0, b"short"))
    await settle()
    assert not caplog.records


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(24, 900), st.integers(0, 255)), max_size=4), st.integers(1, 400))
async def test_whatever_is_broken_on_the_way_ends_in_answers_or_in_goodbye(
    broken: list[tuple[int, int]], size: int
) -> None:
    wire = Http2Wire(echo, begin=False)
    said = bytearray(f.PREFACE + initial_window(100_000))
    for stream in (1, 3, 5, 7):
        said += wire.headers(stream, [*POST, ("x-number", str(stream))]) + f.frame(
            f.DATA, 0, stream, bytes(100)
        )
        said += f.frame(f.PING, 0, 0, bytes(8)) + window(0, 10) + f.frame(f.DATA, f.END_STREAM, stream)
    for place, value in broken:
        if place < len(said):
            said[place] = value
    for start in range(0, len(said), size):
        wire.tell(bytes(said[start : start + size]))
    ended = {stream for stream, (_, _, is_over) in (await wire.answers()).items() if is_over}
    assert ended == {1, 3, 5, 7} or broken
    wire.connection.connection_lost(None)
    await settle()
    assert not wire.connection.running
