"""HTTP/1.1 as the connection keeps it: order, ends of bodies, connections that stay or go."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.server.direct.http1 import (
    LATELY_SECONDS,
    MAX_UNREAD,
    MAX_WAITING,
    REMEMBERED,
    REMEMBERED_BYTES,
)
from earshot.server.direct.served import HEAD_SECONDS
from earshot.server.limits import MAX_HEADER_BYTES

from .wire import Http1Wire, body_of, echo, settle

pytestmark = pytest.mark.anyio

LATER = 1e6  # seconds; a peer that keeps its connection


def post(body: bytes, *headers: bytes, version: bytes = b"1.1") -> bytes:
    lines = [b"POST /x HTTP/" + version, b"host: here", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def parsed(said: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Status, headers and body of each answer, all with a length."""
    found = []
    while said:
        head, said = said.split(b"\r\n\r\n", 1)
        line, *fields = head.split(b"\r\n")
        headers = dict(field.split(b": ", 1) for field in fields)
        size = int(headers.get(b"content-length", b"0"))
        found.append((int(line.split()[1]), headers, said[:size]))
        said = said[size:]
    return found


async def test_an_answer_has_a_length_a_time_and_the_request_s_id() -> None:
    wire = Http1Wire(echo)
    wire.tell(post(b"abc", b"x-request-id: mine"))
    ((status, headers, body),) = parsed(await wire.heard())
    assert (status, body) == (200, b"POST abc")
    assert headers[b"x-request-id"] == b"mine"
    assert headers[b"date"].endswith(b"GMT")
    assert not wire.transport.is_closed


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=2 * MAX_WAITING),
    st.sets(st.integers(1, 2000), max_size=20),
    st.booleans(),
)
async def test_requests_are_answered_in_order_however_they_are_cut(
    bodies: list[bytes], cuts: set[int], chunked: bool
) -> None:
    if chunked:
        head = b"POST /x HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
        sent = b"".join(
            head + (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n" for body in bodies
        )
    else:
        sent = b"".join(map(post, bodies))
    wire = Http1Wire(echo)
    edges = [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    for start, end in itertools.pairwise(edges):
        wire.tell(sent[start:end])
    said = b""
    for _ in bodies:
        said += await wire.heard()
    assert [body for _, _, body in parsed(said)] == [b"POST " + body for body in bodies]


async def test_a_large_body_comes_in_pieces_and_another_request_after_it() -> None:
    body = b"x" * 10 * MAX_HEADER_BYTES
    sent, wire = post(body) + post(b"next"), Http1Wire(echo)
    for start in range(0, len(sent), 3 * MAX_HEADER_BYTES):
        wire.tell(sent[start : start + 3 * MAX_HEADER_BYTES])
        await settle()
    said = await wire.heard() + await wire.heard()
    assert [answer for _, _, answer in parsed(said)] == [b"POST " + body, b"POST next"]


async def test_an_answer_in_pieces_is_chunked_and_to_http_1_0_ends_with_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one", b"", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    wire = Http1Wire(app)
    wire.tell(post(b""))
    said = await wire.heard()
    assert b"transfer-encoding: chunked\r\n" in said
    assert said.endswith(b"\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")
    assert not wire.transport.is_closed
    wire = Http1Wire(app)
    wire.tell(post(b"", b"connection: keep-alive", version=b"1.0"))
    said = await wire.heard()
    assert b"chunked" not in said
    assert said.endswith(b"\r\n\r\nonethree")
    assert wire.transport.is_closed


@pytest.mark.parametrize(
    ("version", "headers", "stays"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"connection: close"], False),
        (b"1.0", [], False),
        (b"1.0", [b"connection: keep-alive"], True),
    ],
)
async def test_a_connection_stays_where_its_client_wants_it(
    version: bytes, headers: list[bytes], stays: bool
) -> None:
    wire = Http1Wire(echo)
    wire.tell(post(b"", *headers, version=version))
    ((_, told, _),) = parsed(await wire.heard())
    assert wire.transport.is_closed == (not stays)
    assert (told.get(b"connection") == b"close") == (not stays)


@pytest.mark.parametrize("status", [200, 204, 304])
async def test_what_has_no_body_sends_none(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x" if status == 200 else b""})

    wire = Http1Wire(app)
    wire.tell(b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
    said = await wire.heard()
    assert said.count(b"HTTP/1.1 %d " % status) == 2
    assert said.endswith(b"\r\n\r\nx" if status == 200 else b"\r\n\r\n")
    assert (b"content-length: 1\r\n" in said.split(b"\r\n\r\n")[0] + b"\r\n") == (status == 200)


async def test_a_client_that_asks_before_it_sends_is_told_to() -> None:
    wire = Http1Wire(echo)
    head, body = post(b"abc", b"expect: 100-continue")[:-3], b"abc"
    wire.tell(head)
    assert await wire.heard() == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.tell(body)
    assert parsed(await wire.heard())[0][2] == b"POST abc"


async def test_what_nobody_reads_is_no_longer_taken_from_the_socket() -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    wire = Http1Wire(app)
    body = b"x" * (MAX_UNREAD + 1)
    wire.tell(post(body))
    await settle()
    assert wire.transport.is_paused
    go_on.set()
    assert parsed(await wire.heard())[0][2] == b"POST " + body
    assert not wire.transport.is_paused


async def test_a_body_that_nobody_wants_does_not_disturb_the_next_request() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/x":
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
        else:
            await echo(scope, receive, send)

    wire = Http1Wire(app)
    request = post(b"y" * 1000)
    wire.tell(request[:-500])
    assert parsed(await wire.heard())[0][0] == 401
    wire.tell(request[-500:] + post(b"next").replace(b"/x", b"/y"))
    assert parsed(await wire.heard())[0][2] == b"POST next"


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 3 * MAX_HEADER_BYTES,
        b"GET / HTTP/1.1\r\nx: " + b"y" * 2 * MAX_HEADER_BYTES + b"\r\n\r\n",
        b"GET /%ff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_wrong_is_told_and_ends_the_connection(sent: bytes) -> None:
    wire = Http1Wire(echo)
    for start in range(0, len(sent), 1000):
        wire.tell(sent[start : start + 1000])
    ((status, headers, body),) = parsed(await wire.heard())
    assert status == 400
    assert headers[b"connection"] == b"close"
    assert b"INVALID_ARGUMENT" in body
    assert wire.transport.is_closed


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
@pytest.mark.parametrize("body", [b"", b"abc"])
@pytest.mark.parametrize("cut", [None, -1, -3, -7])
async def test_who_would_like_another_protocol_is_answered_in_this_one(
    protocol: bytes, body: bytes, cut: int | None
) -> None:
    wire = Http1Wire(echo)
    sent = post(body, b"connection: Upgrade, HTTP2-Settings", b"upgrade: " + protocol)
    wire.tell(sent[:cut])
    if cut is not None:
        await settle()
        wire.tell(sent[cut:])
    ((status, headers, answer),) = parsed(await wire.heard())
    assert (status, headers[b"connection"], answer) == (200, b"close", b"POST " + body)
    assert wire.transport.is_closed


async def test_an_absolute_target_is_a_path() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode() + scope["query_string"]})

    wire = Http1Wire(app)
    wire.tell(b"GET http://here/a%20b?c HTTP/1.1\r\nhost: here\r\n\r\n")
    assert parsed(await wire.heard())[0][2] == b"/a bc"


@pytest.mark.parametrize("begins", [False, True])
async def test_a_call_that_fails_is_answered_or_cut_off(
    begins: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if begins:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("a bug")

    wire = Http1Wire(app)
    wire.tell(post(b""))
    said = await wire.heard()
    assert said.startswith(b"HTTP/1.1 200" if begins else b"HTTP/1.1 500")
    assert wire.transport.is_aborted == begins
    assert b"a bug" not in said
    assert "a bug" in caplog.text


@pytest.mark.parametrize("how", ["lost", "half a body", "after the request"])
async def test_who_leaves_is_told_to_the_call(how: str) -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await body_of(receive)
            heard.append((await receive())["type"])
        except OSError as error:
            heard.append(str(error))

    wire = Http1Wire(app)
    wire.tell(post(b"abc")[: -1 if how == "half a body" else None])
    await settle()
    if how == "lost":
        wire.connection.connection_lost(None)
        wire.connection.connection_lost(None)
    else:
        stays = wire.connection.eof_received()  # a client that sends no more may still read
        assert stays == (how == "after the request")
        if not stays:
            wire.connection.connection_lost(None)
    await settle()
    expected = {"lost": ["http.disconnect"], "half a body": ["gone"], "after the request": []}
    assert heard == expected[how]


async def test_the_last_answer_says_so_and_idle_connections_close_at_once() -> None:
    busy, idle = Http1Wire(echo), Http1Wire(echo)
    busy.tell(post(b"abc")[:-1])
    await settle()
    idle.connection.touched -= LATELY_SECONDS
    for wire in (busy, idle):
        wire.connection.leave()
        wire.connection.close()
    assert [wire.transport.is_closed for wire in (busy, idle)] == [False, True]
    busy.tell(b"c")
    ((_, headers, body),) = parsed(await busy.heard())
    assert (body, headers[b"connection"]) == (b"POST abc", b"close")
    assert busy.transport.is_closed


async def test_heads_that_do_not_become_whole_and_idle_connections_are_ended() -> None:
    now = asyncio.get_running_loop().time()
    slow, idle, busy = Http1Wire(echo), Http1Wire(echo), Http1Wire(echo)
    slow.tell(b"GET / HTTP/1.1\r\nx:")
    busy.tell(post(b"abc")[:-1])
    await settle()
    for wire in (slow, idle, busy):
        wire.connection.look(now + HEAD_SECONDS / 2, LATER)
        assert not wire.transport.is_closed
        wire.connection.look(now + HEAD_SECONDS + 1, LATER)
    assert [wire.transport.is_closed for wire in (slow, idle, busy)] == [True, False, False]
    idle.connection.look(now + 101, 100)
    assert idle.transport.is_closed
    for seconds, left, is_aborted in ((20, 9, False), (49, 7, False), (78, 7, False), (80, 7, True)):
        slow.transport.left = left  # as long as it reads its answer, it is let
        slow.connection.look(now + seconds, LATER)
        assert slow.transport.is_aborted == is_aborted


async def tell_scope(scope: Any, receive: Any, send: Any) -> None:
    """Answers with all that the head says."""
    await body_of(receive)
    said = [scope[name] for name in ("method", "http_version", "raw_path", "query_string", "headers")]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(said).encode()})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"GET", b"PUT"]),
            st.sampled_from([b"/", b"/x", b"/x?q", b"/x?q=1", b"http://here/x"]),
            st.sampled_from([b"1.1", b"1.0"]),
            st.lists(
                st.sampled_from(
                    [b"a: 1", b"a: 2", b"A: 1", b"b: 1", b"a: " + bytes(65 for _ in range(3000))]
                ),
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=3 * REMEMBERED,
    )
)
async def test_a_head_that_came_before_says_what_it_says(heads: list[Any]) -> None:
    """Whatever one connection has heard, each request means what it means on a connection of its own."""

    def request(method: bytes, target: bytes, version: bytes, headers: list[bytes]) -> bytes:
        stays = [b"connection: keep-alive", b"x-request-id: one"]
        return b"\r\n".join([b" ".join((method, target, b"HTTP/" + version)), *headers, *stays]) + b"\r\n\r\n"

    async def answer(wire: Http1Wire, head: Any) -> bytes:
        wire.tell(request(*head))
        return parsed(await wire.heard())[0][2]

    one = Http1Wire(tell_scope)
    for head in heads:
        assert await answer(one, head) == await answer(Http1Wire(tell_scope), head)
    assert len(one.connection._known) <= REMEMBERED


async def test_heads_that_are_large_or_ask_for_another_protocol_are_not_kept() -> None:
    wire = Http1Wire(echo)
    wire.tell(post(b"abc", b"large: " + bytes(65 for _ in range(REMEMBERED_BYTES))))
    assert len(parsed(await wire.heard())) == 1
    wire.tell(post(b"abc", b"connection: upgrade", b"upgrade: else"))
    assert len(parsed(await wire.heard())) == 1
    assert wire.connection._known == {}
