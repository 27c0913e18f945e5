"""HTTP/2 that is broken, too much or too slow: what it is about ends, and nothing else."""

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
    MAX_RUNNING,
    MAX_STREAMS,
)
from earshot.server.direct.served import HEAD_SECONDS
from earshot.server.direct.stream import STREAM_WINDOW

from .wire import POST, Http2Wire, Stuck, answer_never, body_of, echo, ends_of, initial_window, settle, window

pytestmark = pytest.mark.anyio

LATER = 1e6  # seconds; a peer that keeps its connection


async def test_what_nobody_reads_is_bounded() -> None:
    wire = Http2Wire(answer_never)
    wire.tell(wire.headers(1))
    for _ in range(STREAM_WINDOW // f.FRAME_BYTES):
        wire.tell(f.frame(f.DATA, 0, 1, bytes(f.FRAME_BYTES)))
    assert not ends_of(await wire.heard())
    wire.tell(f.frame(f.DATA, 0, 1, b"x"))
    assert ends_of(await wire.heard()) == [(1, f.Error.FLOW_CONTROL_ERROR)]


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
        wire.tell(wire.headers(2 * number + 1))
        wire.tell(f.reset(2 * number + 1, 8))
        refused += len(ends_of(await wire.heard()))
    assert refused == 5


async def test_what_is_reset_in_the_same_piece_is_not_begun() -> None:
    stuck = Stuck()
    wire = Http2Wire(stuck)
    wire.tell(wire.headers(1), f.reset(1, 8), wire.headers(3))
    await settle()
    assert stuck.begun == 1


async def test_a_flood_of_resets_ends_the_connection() -> None:
    stuck = Stuck()
    wire = Http2Wire(stuck)
    for number in range(2 * BURST_OF_RESETS):
        if wire.transport.is_closed:
            break
        wire.tell(wire.headers(2 * number + 1))
        wire.tell(f.reset(2 * number + 1, 8))
        await settle()
    assert ends_of(await wire.heard())[-1] == (0, f.Error.ENHANCE_YOUR_CALM)
    assert number >= BURST_OF_RESETS
    assert stuck.gone == stuck.begun


async def test_pings_are_answered_and_nothing_is_read_of_who_does_not_read() -> None:
    wire = Http2Wire(echo)
    await wire.heard()
    wire.tell(f.frame(f.PING, 0, 0, b"12345678"))
    assert await wire.heard() == [(f.PING, f.ACK, 0, b"12345678")]
    wire.connection.pause_writing()
    assert wire.transport.is_paused
    wire.connection.resume_writing()
    assert not wire.transport.is_paused


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
