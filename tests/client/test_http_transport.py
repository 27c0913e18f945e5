"""What only HTTP has: paths from the protos' options, strangers' answers, bodies that drip."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from earshot.client import Client, Retry
from earshot.client.codec import _DATAPOINT, INDEX_METHODS, SEARCH_METHODS
from earshot.client.http_transport import http_request, parse_reply
from earshot.errors import (
    DeadlineExceeded,
    EarshotError,
    Internal,
    PermissionDenied,
    Unavailable,
    Unimplemented,
)
from earshot.v1 import datapoint_pb2, datapoint_service_pb2, index_service_pb2, search_service_pb2

REQUESTS = [
    (
        SEARCH_METHODS["Search"],
        search_service_pb2.SearchRequest(
            index="indexes/p",
            vector=datapoint_pb2.Vector(float32=b"1234"),
            per_crowding_attribute_neighbor_count=0,
        ),
        ("POST", "/v1/indexes/p:search", None),
        {"vector": {"float32": "MTIzNA=="}, "perCrowdingAttributeNeighborCount": 0},
    ),
    (
        _DATAPOINT["ReadDatapoints"],
        datapoint_service_pb2.ReadDatapointsRequest(index="indexes/a b?", ids=["x"]),
        ("POST", "/v1/indexes/a%20b%3F/datapoints:read", None),
        {"ids": ["x"]},
    ),
    (
        INDEX_METHODS["GetIndex"],
        index_service_pb2.GetIndexRequest(name="indexes/ü:1"),
        ("GET", "/v1/indexes/%C3%BC%3A1", {}),
        None,
    ),
    (
        INDEX_METHODS["ListIndexVersions"],
        index_service_pb2.ListIndexVersionsRequest(parent="indexes/p", page_token="t", page_size=3),
        ("GET", "/v1/indexes/p/versions", {"pageToken": "t", "pageSize": 3}),
        None,
    ),
]


@pytest.mark.parametrize(("method", "message", "line", "body"), REQUESTS)
def test_a_request_goes_where_the_proto_says(method: Any, message: Any, line: Any, body: Any) -> None:
    outgoing = http_request(method, message)
    assert (outgoing.method, outgoing.url, outgoing.params) == line
    assert outgoing.json == body


def test_fields_of_a_newer_server_are_ignored() -> None:
    content = b'{"name": "indexes/p", "colour": "red", "distanceMeasure": "NEW_DISTANCE"}'
    assert parse_reply(INDEX_METHODS["GetIndex"], 200, content) == index_service_pb2.Index(name="indexes/p")


@pytest.mark.parametrize(
    ("status", "content", "kind", "message"),
    [
        (502, b"<html>\n<h1>Bad Gateway", Unavailable, "HTTP status 502: <html> <h1>Bad Gateway"),
        (403, b"", PermissionDenied, "HTTP status 403: no content"),
        (404, b'{"detail": "Not Found"}', Unimplemented, 'HTTP status 404: {"detail": "Not Found"}'),
        (500, b'{"error": "x"}', Internal, 'HTTP status 500: {"error": "x"}'),
        (500, b'["error"]', Internal, 'HTTP status 500: ["error"]'),
        (302, b"elsewhere", Internal, "HTTP status 302: elsewhere"),
        (200, b"<html>", Internal, "the answer is not a earshot.v1.Index: <html>"),
        (200, b'{"name": 1}', Internal, 'the answer is not a earshot.v1.Index: {"name": 1}'),
        (200, b"\xff", Internal, "the answer is not a earshot.v1.Index: \ufffd"),
        (418, b'{"error": {"status": "TEAPOT", "message": "short"}}', Internal, "short"),
    ],
)
def test_an_answer_that_is_not_earshots_is_shown_and_classed_as_grpc_would(
    status: Any, content: Any, kind: Any, message: Any
) -> None:
    with pytest.raises(EarshotError) as caught:
        parse_reply(INDEX_METHODS["GetIndex"], status, content)
    assert type(caught.value) is kind
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("content", "header", "seconds"),
    [
        (b"busy", "7", 7.0),
        (b"busy", "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (b'{"error": {"status": "UNAVAILABLE", "message": "m", "details": ["?"]}}', "7", 7.0),
        (
            b'{"error": {"status": "UNAVAILABLE", "message": "m", "details": [{"retryDelay": "0.250s"}]}}',
            "1",
            0.25,
        ),
    ],
)
def test_when_to_try_again_is_read_from_the_body_and_else_from_the_header(
    content: bytes, header: str, seconds: float | None
) -> None:
    with pytest.raises(Unavailable) as caught:
        parse_reply(INDEX_METHODS["GetIndex"], 503, content, header)
    assert caught.value.retry_after == seconds


@contextmanager
def listener(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A raw TCP server: each connection's first request is read, then `handle` says what happens."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                handle(connection)

    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=accept)
        thread.start()
        stack.callback(thread.join)
        stack.callback(listening.shutdown, socket.SHUT_RDWR)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_body_that_drips_does_not_outlive_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.03)
        except OSError:
            pass

    with listener(drip) as address, Client(address) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.2 seconds"):
            client.indexes(timeout=0.2)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", Unavailable),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Unavailable),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", Internal),
    ],
    ids=["hangs up", "body cut short", "not HTTP", "not gzip"],
)
def test_a_broken_answer_is_an_error_of_ours(answer: Any, kind: Any) -> None:
    with (
        listener(lambda connection: connection.sendall(answer)) as address,
        Client(address, retry=Retry(attempts=1), timeout=5) as client,
        pytest.raises(kind),
    ):
        client.indexes()
