"""What no client of ours would send, on raw sockets, to both transports: refused, survived, and forgotten."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from earshot.server.auth.rules import message_class
from earshot.server.grpc_methods import METHODS
from earshot.v1 import datapoint_pb2, search_service_pb2

from .conftest import Face

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
SEARCH = "/earshot.v1.SearchService/Search"
OURS_TO_SAY = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.ABORTED,
}

few = settings(max_examples=12, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def serves_on(face: Face) -> Iterator[None]:
    """Whatever a test did: the next ordinary requests are answered, and nothing was logged as a bug."""
    yield
    with grpc.insecure_channel(face.addresses.grpc) as channel:
        assert statuses(channel, SEARCH, request()) == grpc.StatusCode.OK
    assert httpx.get(f"{face.addresses.http}/healthz", timeout=10).status_code == 200
    assert "not foreseen" not in face.log()
    assert "Traceback" not in face.log()


def request() -> bytes:
    query = datapoint_pb2.Vector(values=[0.5] * 8)
    return search_service_pb2.SearchRequest(index="plain", vector=query).SerializeToString()


def statuses(channel: grpc.Channel, path: str, data: bytes) -> grpc.StatusCode:
    try:
        channel.unary_unary(path, bytes, bytes)(data, timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@contextlib.contextmanager
def connected(address: str) -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def told(connection: socket.socket, seconds: float = 20.0) -> bytes:
    """Everything until the other side closes, or says nothing for `seconds`; a reset is an end too."""
    connection.settimeout(seconds)
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def packed(headers: list[tuple[str, str]]) -> bytes:
    """HPACK without its tables: every field as a literal that is not to be remembered."""

    def text(value: str) -> bytes:
        raw, prefix = value.encode(), b""
        length = len(raw)
        if length < 127:
            return bytes([length]) + raw
        prefix, length = b"\x7f", length - 127
        while length > 127:
            prefix, length = prefix + bytes([length % 128 + 128]), length // 128
        return prefix + bytes([length]) + raw

    return b"".join(b"\x00" + text(name) + text(value) for name, value in headers)


def call(path: str = SEARCH, more: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The headers of a gRPC call on stream 1."""
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]
    return frame(HEADERS, END_HEADERS, 1, packed(fields))


def framed(message: bytes) -> bytes:
    return b"\x00" + len(message).to_bytes(4, "big") + message


def frames(received: bytes) -> list[tuple[int, int, int]]:
    """Kind, flags and stream of what came back."""
    found = []
    while len(received) >= 9:
        size = int.from_bytes(received[:3], "big")
        found.append((received[3], received[4], int.from_bytes(received[5:9], "big")))
        received = received[9 + size :]
    return found


def exchange(face: Face, *pieces: bytes) -> list[tuple[int, int, int]]:
    """Sends pieces after the preface, and reads until stream 1 or the connection has ended."""
    with connected(face.addresses.grpc) as connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        received, give_up = b"", time.monotonic() + 20
        connection.settimeout(20)
        while time.monotonic() < give_up:
            with contextlib.suppress(ConnectionError):
                if chunk := connection.recv(65536):
                    received += chunk
                    seen = frames(received)
                    ends = [kind for kind, flags, stream in seen if stream == 1 and flags & END_STREAM]
                    if ends or any(kind in {RST_STREAM, GOAWAY} for kind, _, _ in seen):
                        return seen
                    continue
            return frames(received)
    raise AssertionError("the server left the call hanging")


def test_the_frames_written_by_hand_are_a_call(face: Face) -> None:
    seen = exchange(face, call(), frame(DATA, END_STREAM, 1, framed(request())))
    assert any(kind == DATA and stream == 1 for kind, _, stream in seen)


@pytest.mark.parametrize("path", sorted(METHODS))
def test_bytes_that_are_no_message_are_refused_by_name(face: Face, path: str) -> None:
    valid = search_service_pb2.SearchRequest(index="plain", text="x").SerializeToString()

    @few
    @example(b"\xff" * 40)
    @example(b"\x0a\xff\xff\xff\xff\x0f")
    @given(st.binary(max_size=60) | st.binary(max_size=8).map(lambda tail: valid + tail))
    def refused(data: bytes) -> None:
        # Numbers of fields are small, so some of these are messages after all.
        message = message_class(path)()
        with contextlib.suppress(Exception):
            message.ParseFromString(data)
        assert statuses(channel, path, data) in OURS_TO_SAY

    with grpc.insecure_channel(face.addresses.grpc) as channel:
        refused()


@few
@example(b"", [])
@example(b"\x01" + framed(request())[1:], [])
@example(framed(request())[:-3], [7])
@example(b"\x00\xff\xff\xff\xff", [])
@example(framed(request()) * 2, [3, 9])
@given(
    st.binary(max_size=40) | st.binary(max_size=20).map(lambda tail: framed(request()) + tail),
    st.lists(st.integers(1, 50), max_size=4),
)
def test_any_bytes_in_place_of_a_message_end_the_call_with_a_status(
    face: Face, body: bytes, cuts: list[int]
) -> None:
    edges = [0, *sorted({cut for cut in cuts if cut < len(body)}), len(body)]
    pieces = [body[start:end] for start, end in itertools.pairwise(edges)]
    sent = [call(), *(frame(DATA, 0, 1, piece) for piece in pieces), frame(DATA, END_STREAM, 1, b"")]
    if face.transport != "portable":
        assert exchange(face, *sent)
    else:  # grpcio keeps a call that ended before its message until its client goes, and no longer
        with connected(face.addresses.grpc) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + b"".join(sent))
            told(connection, 0.2)


@few
@example(frame(PING, 0, 0, b"short"))
@example(frame(WINDOW_UPDATE, 0, 0, b"\x00" * 4))
@example(frame(CONTINUATION, 0, 1, b"x"))
@example(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\xff" * 30))
@example(frame(DATA, 0, 7, b"of a stream that is not"))
@example(frame(SETTINGS, 0, 0, b"\x00\x05\xff\xff\xff\xff"))
@example(b"\xff\xff\xff" + b"\x00" * 20)
@given(st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=30)))
def test_frames_that_break_http2_cost_no_more_than_their_connection(face: Face, broken: bytes) -> None:
    with connected(face.addresses.grpc) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + broken + call())
            connection.shutdown(socket.SHUT_WR)
        told(connection, 1.0)


def test_giant_headers_are_refused(face: Face) -> None:
    with grpc.insecure_channel(face.addresses.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(SEARCH, bytes, bytes)(
            request(), metadata=(("x-giant", "y" * 200_000),), timeout=20
        )
    assert caught.value.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    with connected(face.addresses.http) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
            for number in range(400):
                connection.sendall(f"x-{number}: ".encode() + b"y" * 1000 + b"\r\n")
            connection.sendall(b"\r\n")
        answer = told(connection, 5.0)
    assert not answer or answer.split()[1] in {b"400", b"413", b"431"}


@pytest.mark.parametrize("abort", ["reset", "half closed", "gone"])
def test_calls_that_are_left_in_the_middle_hold_nothing(face: Face, abort: str) -> None:
    for _ in range(20):
        with connected(face.addresses.grpc) as connection:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + call())
            connection.sendall(frame(DATA, 0, 1, framed(request())[:9]))
            if abort == "reset":
                connection.sendall(frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")))
            elif abort == "half closed":
                connection.shutdown(socket.SHUT_WR)
                told(connection, 0.05)


@pytest.mark.parametrize("method", ["search", "batchSearch"])
def test_who_leaves_in_the_middle_of_a_body_is_no_error(
    face: Face, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    head = f"POST /v1/indexes/plain:{method} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{{"
    for _ in range(5):
        with connected(face.addresses.http) as connection:
            connection.sendall(head.encode())
            time.sleep(0.05)
    time.sleep(0.5)
    said = caplog.text + face.log()
    assert "Exception in ASGI" not in said
    assert "INTERNAL" not in said


@few
@example(b"GET / HTTP/9.9\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a TLS handshake
@example(b"POST /v1/indexes/plain:search HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n")
@example(
    b"POST /v1/indexes/plain:search HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"
)
@example(b"POST /v1/indexes/plain:search HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
@example(b"POST /v1/indexes/plain:search HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
@example(b"GET /v1/indexes/%00%ff%2e%2e HTTP/1.1\r\nhost: x\r\n\r\n")
@given(st.binary(min_size=1, max_size=200))
def test_what_is_no_http_is_refused_or_cut_off(face: Face, data: bytes) -> None:
    with connected(face.addresses.http) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        answer = told(connection, 5.0)
    assert b"Traceback" not in answer
    if answer.startswith(b"HTTP/"):
        assert answer.split()[1][:1] in {b"2", b"3", b"4"} or answer.split()[1] == b"505"


BODIES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["text", "vector", "values", "neighborCount", "restricts", "config", "ids", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
PATHS = [
    "indexes/plain:search",
    "indexes/plain:batchSearch",
    "indexes/plain/datapoints:read",
    "indexes/plain/datapoints:upsert",
    "indexes/plain/datapoints:remove",
    "indexes/nosuch:rebuild",
    "indexes/nosuch:rollback",
]


@pytest.mark.parametrize("path", PATHS)
def test_any_json_is_answered_with_an_answer_or_one_sentence(face: Face, path: str) -> None:
    with httpx.Client(base_url=face.addresses.http, timeout=20) as client:

        @few
        @given(BODIES)
        def answered(body: Any) -> None:
            import msgspec

            content = msgspec.json.encode(body)
            reply = client.post(f"/v1/{path}", content=content)
            assert reply.status_code in {200, 400, 404, 409}, reply.text
            if reply.status_code != 200:
                assert "\n" not in reply.json()["error"]["message"].strip()

        answered()


def test_slow_senders_keep_nobody_waiting(face: Face) -> None:
    """A hundred connections that send a byte of a header now and then, beside ordinary requests."""
    host, port = urlsplit(face.addresses.http).hostname, urlsplit(face.addresses.http).port
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, port), timeout=10)) for _ in range(100)]
        with grpc.insecure_channel(face.addresses.grpc) as channel:
            for letter in b"POST /v1/indexes":
                for connection in slow:
                    with contextlib.suppress(ConnectionError):
                        connection.sendall(bytes([letter]))
                started = time.monotonic()
                assert statuses(channel, SEARCH, request()) == grpc.StatusCode.OK
                assert httpx.get(f"{face.addresses.http}/healthz", timeout=10).status_code == 200
                assert time.monotonic() - started < 10
