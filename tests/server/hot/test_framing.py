from __future__ import annotations

import gzip
import zlib
from itertools import pairwise
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.errors import InvalidArgument, NotFound, ResourceExhausted, Unimplemented
from earshot.server.deadline import timeout_seconds
from earshot.server.hot.framing import (
    MessageReader,
    frame,
    is_grpc,
    status_trailers,
    unframe,
)

LIMIT = 4096
messages = st.lists(st.binary(max_size=LIMIT), max_size=5)
encodings = st.sampled_from([b"identity", b"gzip", b"deflate"])


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(messages, encodings, st.lists(st.integers(min_value=0)))
def test_messages_survive_any_cutting_into_chunks(
    sent: list[bytes], encoding: bytes, places: list[int]
) -> None:
    reader = MessageReader(encoding, LIMIT)
    stream = b"".join(frame(message, encoding) for message in sent)
    received = [message for chunk in cut(stream, places) for message in reader.feed(chunk)]
    reader.close()
    assert received == sent


@given(messages, st.integers(min_value=1))
def test_a_stream_that_ends_inside_a_message_is_told(sent: list[bytes], missing: int) -> None:
    stream = b"".join(frame(message) for message in [*sent, b"last"])
    cut_short = stream[: -(missing % 8 + 1)]
    reader = MessageReader(b"identity", LIMIT)
    assert list(reader.feed(cut_short)) == sent
    with pytest.raises(InvalidArgument, match="ended inside a message"):
        reader.close()


@given(st.binary(max_size=64), encodings)
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes, encoding: bytes) -> None:
    reader = MessageReader(encoding, LIMIT)
    try:
        list(reader.feed(noise))
        reader.close()
    except (InvalidArgument, ResourceExhausted):
        return
    assert not noise or noise[0] in (0, 1)


@given(st.binary(max_size=LIMIT + 10), st.integers(0, LIMIT))
def test_the_short_way_agrees_with_the_reader(message: bytes, limit: int) -> None:
    assert unframe(frame(message), limit) == (message if len(message) <= limit else None)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0", b"\0\0\0\0\2a", b"\0\0\0\0\1ab", b"\1\0\0\0\1a"])
def test_the_short_way_leaves_everything_unusual_to_the_reader(body: bytes) -> None:
    assert unframe(body, LIMIT) is None


def test_an_oversized_message_is_refused_at_its_prefix() -> None:
    with pytest.raises(ResourceExhausted, match="4097 bytes"):
        list(MessageReader(b"identity", LIMIT).feed(b"\0" + (LIMIT + 1).to_bytes(4, "big")))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(b"\0" * (100 << 20))
    with pytest.raises(ResourceExhausted, match="unpacks to more than"):
        list(MessageReader(b"gzip", 1 << 20).feed(b"\1" + len(bomb).to_bytes(4, "big") + bomb))


@pytest.mark.parametrize(
    ("packed", "encoding", "error", "words"),
    [
        (b"not gzip", b"gzip", InvalidArgument, "is not gzip"),
        (gzip.compress(b"x", mtime=0)[:-3], b"gzip", InvalidArgument, "not one whole gzip"),
        (gzip.compress(b"x", mtime=0) + b"tail", b"gzip", InvalidArgument, "not one whole gzip"),
        (zlib.compress(b"x"), b"gzip", InvalidArgument, "is not gzip"),
        (b"x", b"identity", InvalidArgument, "does not say how"),
        (b"x", b"br", Unimplemented, "b'br'"),
    ],
)
def test_what_cannot_be_unpacked_is_told(
    packed: bytes, encoding: bytes, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        list(MessageReader(encoding, LIMIT).feed(b"\1" + len(packed).to_bytes(4, "big") + packed))


def test_a_flag_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="flag is 2"):
        list(MessageReader(b"identity", LIMIT).feed(b"\2\0\0\0\0"))


def test_small_answers_are_not_worth_compressing() -> None:
    assert frame(b"x" * 1023, b"gzip")[0] == 0
    assert frame(b"x" * 1024, b"gzip")[0] == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1S", 1),
        (b"100m", 0.1),
        (b"2M", 120),
        (b"1H", 3600),
        (b"5u", 5e-6),
        (b"7n", 7e-9),
        (b"99999999H", 359999996400),
    ],
)
def test_timeouts(value: bytes, seconds: float) -> None:
    assert timeout_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"5", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"1S ", b"\xb2S"])
def test_malformed_timeouts_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidArgument, match="grpc-timeout"):
        timeout_seconds(value)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_status_message_survives_percent_encoding(message: str) -> None:
    (_, code), (_, encoded) = status_trailers(NotFound(message))
    assert code == b"5"
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote(encoded.decode("ascii"), errors="strict") == message


def test_long_and_broken_messages_still_fit_in_a_header() -> None:
    (_, encoded) = status_trailers(NotFound("ä\ud800" * 100_000))[1]
    assert len(encoded) < 8192


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"application/json", False),
    ],
)
def test_which_content_types_are_grpc(content_type: bytes, expected: bool) -> None:
    assert is_grpc(content_type) is expected
