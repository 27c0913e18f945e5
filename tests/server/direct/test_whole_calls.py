"""Which requests go without a task; their answers heed windows, order and slow readers as others do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.server.direct import frames as f

from .wire import POST, Http1Wire, Http2Wire, echo, ends_of, settle

pytestmark = pytest.mark.anyio

OK = [(b"grpc-status", b"0")]


class Whole:
    """Takes what is posted to /x, and answers at once or when told to."""

    def __init__(self, *, at_once: bool = True, takes: bool = True, trailers: Any = None) -> None:
        self.at_once, self.takes, self.trailers = at_once, takes, trailers
        self.routes = 0
        self.replies: list[Any] = []
        self.bodies: list[bytes] = []
        self.lost = 0

    def route(self, scope: Any) -> Any:
        self.routes += 1
        return self if scope["path"] == "/x" else None

    def begin(self, route: Any, body: bytes, reply: Any) -> Any:
        if not self.takes:
            return None
        self.bodies.append(body)
        self.replies.append(reply)
        if self.at_once:
            self.answer(reply, b"whole " + body)
        return self

    def answer(self, reply: Any, body: bytes) -> None:
        reply.reply(200, [(b"content-type", b"text/plain")], body, self.trailers)

    def lose(self) -> None:
        self.lost += 1


@pytest.mark.parametrize("trailers", [None, OK])
async def test_what_came_in_one_piece_goes_without_the_application(trailers: Any) -> None:
    whole = Whole(trailers=trailers)
    wire = Http2Wire(echo, whole=whole)
    wire.ask(1, b"one")
    wire.ask(3, b"two")
    frames = await wire.heard()
    assert whole.bodies == [b"one", b"two"]
    assert [payload for kind, _, _, payload in frames if kind == f.DATA] == [b"whole one", b"whole two"]
    heads = [wire.unpack(payload) for kind, _, _, payload in frames if kind == f.HEADERS]
    assert [head.get(":status", head.get("grpc-status")) for head in heads] == (
        ["200", "200"] if trailers is None else ["200", "0", "200", "0"]
    )
    assert heads[0]["x-request-id"] == whole.replies[0].request_id.decode()
    assert {kind for kind, flags, _, _ in frames if flags & f.END_STREAM and kind != f.SETTINGS} == {
        f.DATA if trailers is None else f.HEADERS
    }
    assert wire.connection.running == 0


async def test_what_came_in_pieces_or_is_for_others_goes_the_ordinary_way() -> None:
    whole = Whole()
    wire = Http2Wire(echo, whole=whole)
    wire.tell(wire.headers(1))
    wire.tell(f.frame(f.DATA, f.END_STREAM, 1, b"late"))
    wire.ask(3, b"else", [(name, value.replace("/x", "/y")) for name, value in POST])
    answers = await wire.answers()
    assert {stream: body for stream, (_, body, _) in answers.items()} == {1: b"POST late", 3: b"POST else"}
    assert whole.bodies == []


async def test_what_is_declined_goes_the_ordinary_way_with_its_body() -> None:
    for wire in (Http2Wire(echo, whole=Whole(takes=False)), Http2Wire(echo, whole=None)):
        wire.ask(1, b"body")
        assert (await wire.answers())[1] == ("200", b"POST body", True)


async def test_heads_alike_are_asked_about_once() -> None:
    whole = Whole()
    wire = Http2Wire(echo, whole=whole)
    wire.ask(1)
    wire.ask(3)  # the first one filled the table of headers
    for number in range(2, 6):
        wire.ask(2 * number + 1)
    assert len(await wire.answers()) == 6
    assert whole.routes <= 2


async def test_heads_alike_over_http1_are_asked_about_once() -> None:
    whole = Whole()
    wire = Http1Wire(echo, whole=whole)
    for body in (b"a", b"b", b"c", b"long"):
        wire.tell(b"POST /x HTTP/1.1\r\nhost: here\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert (await wire.heard()).count(b"\r\n\r\nwhole ") == 4
    assert whole.bodies == [b"a", b"b", b"c", b"long"]
    assert whole.routes == 2  # the last is longer, and says so


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3 * f.FRAME_BYTES), min_size=1, max_size=5),
    st.integers(0, 2 * f.FRAME_BYTES),
    st.booleans(),
)
async def test_answers_heed_the_windows(sizes: list[int], window: int, with_trailers: bool) -> None:
    whole = Whole(at_once=False, trailers=OK if with_trailers else None)
    wire = Http2Wire(echo, whole=whole)
    wire.tell(f.frame(f.SETTINGS, 0, 0, f.setting(f.INITIAL_WINDOW_SIZE, window)))
    for place in range(len(sizes)):
        wire.ask(2 * place + 1)
    for reply, size in zip(whole.replies, sizes, strict=True):
        whole.answer(reply, bytes(size))
    got = dict.fromkeys(range(1, 2 * len(sizes), 2), 0)
    ended: set[int] = set()
    allowed, left = dict.fromkeys(got, window), f.INITIAL_WINDOW
    for _ in range(1000):
        for kind, flags, stream, payload in await wire.heard():
            if kind == f.DATA:
                got[stream] += len(payload)
                left -= len(payload)
                assert got[stream] <= allowed[stream]
                assert left >= 0
            if stream and flags & f.END_STREAM:
                ended.add(stream)
        if len(ended) == len(sizes):
            break
        for stream in got.keys() - ended:
            wire.tell(f.window_update(stream, 5000))
            allowed[stream] += 5000
        wire.tell(f.window_update(0, 5000))
        left += 5000
    assert list(got.values()) == sizes
    assert wire.connection.running == 0


async def test_who_resets_a_stream_or_leaves_is_told_to_the_call_once() -> None:
    whole = Whole(at_once=False)
    wire = Http2Wire(echo, whole=whole)
    wire.ask(1)
    wire.ask(3)
    wire.tell(f.reset(1, 8))
    assert whole.lost == 1
    wire.connection.connection_lost(None)
    assert whole.lost == 2


async def test_a_connection_that_leaves_waits_for_their_answers() -> None:
    whole = Whole(at_once=False)
    wire = Http2Wire(echo, whole=whole)
    wire.ask(1)
    wire.connection.close()
    await settle()
    closed = [wire.transport.is_closed]
    whole.answer(whole.replies[0], b"there")
    await settle()
    assert [*closed, wire.transport.is_closed] == [False, True]
    assert (await wire.answers())[1][1] == b"there"


async def test_an_answer_to_a_body_that_still_comes_is_not_given_by_it() -> None:
    whole = Whole()
    wire = Http2Wire(echo, whole=whole)
    wire.tell(wire.headers(1), f.frame(f.DATA, 0, 1, b"a"))
    await settle()
    assert whole.bodies == []
    assert ends_of(await wire.heard()) == []


def post(body: bytes, path: bytes = b"/x") -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b" % (path, len(body), body)


async def test_http_1_too_and_in_order() -> None:
    whole = Whole()
    wire = Http1Wire(echo, whole=whole)
    wire.tell(post(b"a") + post(b"b", b"/y") + post(b"c"))
    said = await wire.heard()
    assert [line for line in said.split(b"\r\n") if line.startswith((b"whole", b"POST"))] == [
        b"whole aHTTP/1.1 200 OK",
        b"POST bHTTP/1.1 200 OK",
        b"whole c",
    ]
    assert whole.bodies == [b"a", b"c"]
    assert said.count(b"x-request-id: ") == 3


async def test_http_1_in_pieces_goes_the_ordinary_way() -> None:
    whole = Whole()
    wire = Http1Wire(echo, whole=whole)
    asked = post(b"abc")
    wire.tell(asked[:-1])
    wire.tell(asked[-1:])
    assert (await wire.heard()).endswith(b"POST abc")
    assert whole.bodies == []


async def test_an_http_1_client_that_does_not_read_has_no_more_requests_begun() -> None:
    whole = Whole()
    wire = Http1Wire(echo, whole=whole)
    wire.connection.pause_writing()
    for _ in range(5):
        wire.tell(post(b"x"))
    await settle()
    assert whole.bodies == []
    wire.connection.resume_writing()
    await settle()
    assert whole.bodies == [b"x"] * 5


async def test_an_http_1_client_that_leaves_is_told_to_the_call() -> None:
    whole = Whole(at_once=False)
    wire = Http1Wire(echo, whole=whole)
    wire.tell(post(b"x"))
    wire.connection.connection_lost(None)
    assert whole.lost == 1
