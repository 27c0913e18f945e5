"""Headers mean what another implementation of HPACK says, however often and in which order they come."""

from __future__ import annotations

from typing import Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.server.direct.frames import ConnectionFault, StreamFault
from earshot.server.direct.header_blocks import MAX_BLOCK_BYTES, HeaderReader, answer_block, header_block
from earshot.server.limits import MAX_HEADER_BYTES

from .wire import POST

NAMES = st.sampled_from(["grpc-timeout", "content-type", "x-one", "x-two", "authorization", "user-agent"])
VALUES = st.sampled_from(["", "1S", "999m", "a", "b" * 40, "c" * 2000]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=20
)
BYTES = st.binary(max_size=300).filter(lambda text: not set(text) & set(b"\r\n\0"))


def as_bytes(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


@given(
    st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=6), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    st.lists(st.sampled_from([0, 64, 4096]), max_size=3),
)
def test_requests_of_one_connection_mean_what_they_meant(
    kinds: list[list[tuple[str, str]]], order: list[tuple[int, bool]], sizes: list[int]
) -> None:
    """Blocks that are remembered, blocks that change the table, and tables that change their size."""
    encoder, reader = hpack.Encoder(), HeaderReader("http")
    for turn, (kind, huffman) in enumerate(order):
        if turn % 7 == 6 and sizes:
            encoder.header_table_size = sizes.pop()
        headers = kinds[kind % len(kinds)]
        block = encoder.encode([*POST, *headers], huffman=huffman)
        scope = reader.head(block).scope(b"an-id")
        expected = [(b"host", b"here"), *as_bytes(headers)]
        assert [header for header in scope["headers"] if header[0] != b"x-request-id"] == expected
        assert (scope["method"], scope["path"]) == ("POST", "/x")


def test_a_block_is_unpacked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, encoder = HeaderReader("http"), hpack.Encoder()
    reader.head(encoder.encode(POST))  # fills the table
    block = encoder.encode(POST)
    first = reader.head(block)
    monkeypatch.setattr(reader, "skip", None)
    assert reader.head(block) is first


def test_each_request_has_headers_and_an_id_of_its_own() -> None:
    reader, block = HeaderReader("http"), header_block(as_bytes(POST))
    assert reader.head(block).request_id() != reader.head(block).request_id()
    one, two = (reader.head(block).scope(b"an-id") for _ in range(2))
    one["headers"].append((b"x", b"y"))
    one["app"] = object()
    assert (b"x", b"y") not in two["headers"]
    assert "app" not in reader.head(block).scope(b"an-id")


@pytest.mark.parametrize(("given_id", "is_kept"), [("mine-1", True), ("x" * 129, False), ("a b", False)])
def test_an_id_of_the_client_is_kept_where_a_log_may_hold_it(given_id: str, is_kept: bool) -> None:
    block = header_block(as_bytes([*POST, ("x-request-id", given_id)]))
    head = HeaderReader("http").head(block)
    found = head.request_id()
    scope = head.scope(found)
    assert (found == given_id.encode()) == is_kept
    assert [value for name, value in scope["headers"] if name == b"x-request-id"] == [found]


def without(name: str) -> list[tuple[str, str]]:
    return [header for header in POST if header[0] != name]


@pytest.mark.parametrize(
    "headers",
    [
        without(":method"),
        without(":scheme"),
        without(":path"),
        [*without(":path"), (":path", "no-slash")],
        [*without(":method"), (":method", "GE T")],
        [*POST, (":path", "/twice")],
        [*POST, (":status", "200")],
        [*POST, ("x", "y"), (":late", "z")],
        [*POST, ("Upper", "case")],
        [*POST, ("connection", "close")],
        [*POST, ("transfer-encoding", "chunked")],
        [*POST, ("te", "gzip")],
        [*POST, ("x", "a\r\nb")],
        [*POST, ("", "y")],
    ],
)
def test_what_is_no_request_ends_its_stream(headers: Any) -> None:
    with pytest.raises(StreamFault):
        HeaderReader("http").head(hpack.Encoder().encode(headers))


@pytest.mark.parametrize("block", [b"\xff" * 30, b"\x00", b"\xc5", b"\x00\x05ab"])
def test_what_cannot_be_unpacked_ends_the_connection(block: bytes) -> None:
    with pytest.raises(ConnectionFault):
        HeaderReader("http").head(block)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_a_request_or_a_fault(blocks: list[bytes]) -> None:
    reader = HeaderReader("http")
    for block in blocks:
        try:
            reader.head(block)
        except StreamFault:
            continue
        except ConnectionFault:
            return


def test_too_many_headers_are_told_and_far_too_many_end_the_connection() -> None:
    reader = HeaderReader("http")
    problem = reader.head(hpack.Encoder().encode([*POST, ("x", "y" * 2 * MAX_HEADER_BYTES)])).problem
    assert problem is not None
    assert str(MAX_HEADER_BYTES) in problem
    with pytest.raises(ConnectionFault):
        reader.head(hpack.Encoder().encode([*POST, ("x", "y" * 2 * MAX_BLOCK_BYTES)]))


@pytest.mark.parametrize("path", ["/%ff", "/%c3", "/a%80b"])
def test_a_path_that_is_not_utf8_is_a_problem(path: str) -> None:
    head = HeaderReader("http").head(hpack.Encoder().encode([*without(":path"), (":path", path)]))
    assert head.problem == "the path is not percent-encoded UTF-8"


@given(st.lists(st.tuples(BYTES.filter(len), BYTES)))
def test_what_is_written_is_read_by_others(headers: list[tuple[bytes, bytes]]) -> None:
    read = hpack.Decoder(max_header_list_size=1 << 20).decode(header_block(headers), raw=True)
    assert [tuple(header) for header in read] == [(name.lower(), value) for name, value in headers]


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize("has_id", [True, False])
def test_an_answer_says_when_it_was_made_and_to_which_request(status: int, has_id: bool) -> None:
    headers = [(b"content-type", b"text/plain"), *([(b"x-request-id", b"own")] if has_id else [])]
    read = dict(hpack.Decoder().decode(answer_block(status, headers, b"given"), raw=True))
    assert read[b":status"] == b"%d" % status
    assert read[b"x-request-id"] == (b"own" if has_id else b"given")
    assert read[b"date"].endswith(b" GMT")


@pytest.mark.parametrize("header", [(b"", b"x"), (b"a\r\nb", b"x"), (b"a", b"x\ny"), (b"a", b"\0")])
def test_a_header_that_would_split_the_answer_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="header"):
        header_block([header])
