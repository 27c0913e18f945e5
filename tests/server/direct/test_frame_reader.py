"""Frames are the same however the network cuts them, and what is too much ends the connection."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.server.direct import frames as f
from earshot.server.direct.frame_reader import MAX_FRAGMENTS, FrameReader

Frame = tuple[int, int, int, bytes]
SIZES = {f.PRIORITY: 5, f.RST_STREAM: 4, f.PING: 8, f.WINDOW_UPDATE: 4}
OF_A_STREAM, OF_THE_CONNECTION = {f.DATA, f.PRIORITY, f.RST_STREAM}, {f.SETTINGS, f.PING, f.GOAWAY}
ANY = OF_A_STREAM | OF_THE_CONNECTION | {f.WINDOW_UPDATE, 77}


def read(reader: FrameReader, data: bytes) -> list[Frame]:
    return list(reader.frames(data, 0.0))


def begun(max_block: int = 1000) -> FrameReader:
    reader = FrameReader(max_block)
    assert read(reader, f.PREFACE) == []
    return reader


@st.composite
def legal(draw: st.DrawFn) -> Frame:
    kind = draw(st.sampled_from(sorted(ANY)))
    lowest, highest = int(kind in OF_A_STREAM), 0 if kind in OF_THE_CONNECTION else f.MAX_WINDOW
    size = SIZES.get(kind)
    payload = draw(st.binary() if size is None else st.binary(min_size=size, max_size=size))
    return kind, draw(st.integers(0, 255)), draw(st.integers(lowest, highest)), payload


@given(st.lists(legal()), st.sets(st.integers(1, 300)))
def test_frames_come_whole_however_they_are_cut(sent: list[Frame], cuts: set[int]) -> None:
    data = f.PREFACE + b"".join(itertools.starmap(f.frame, sent))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    reader = FrameReader(1000)
    found = [frame for start, end in itertools.pairwise(edges) for frame in read(reader, data[start:end])]
    assert found == sent


@given(st.binary(max_size=500), st.lists(st.integers(0, 500), max_size=5), st.integers(0, 20))
def test_headers_in_several_frames_are_one(block: bytes, cuts: list[int], padding: int) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(block)), len(block)]
    first, *more = [block[start:end] for start, end in itertools.pairwise(edges)]
    padded = bytes([padding]) + b"prior" + first + bytes(padding)
    flags = f.PADDED | f.PRIORITIZED | f.END_STREAM
    sent = [f.frame(f.HEADERS, flags | (0 if more else f.END_HEADERS), 3, padded)]
    for number, piece in enumerate(more, 1):
        sent.append(f.frame(f.CONTINUATION, f.END_HEADERS if number == len(more) else 0, 3, piece))
    reader = begun()
    (found,) = read(reader, b"".join(sent))
    assert (found[0], found[1] & f.END_STREAM, found[2:]) == (f.HEADERS, f.END_STREAM, (3, block))
    assert reader.block_since is None


def test_headers_that_are_not_whole_are_known_since_when() -> None:
    reader = begun()
    assert list(reader.frames(f.frame(f.HEADERS, 0, 1, b"x"), 7.0)) == []
    assert reader.block_since == 7.0


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x00\x40\x01" + bytes(6), f.Error.FRAME_SIZE_ERROR),
        (f.frame(f.CONTINUATION, 0, 1), f.Error.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, 0, 1) + f.frame(f.CONTINUATION, 0, 3), f.Error.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, 0, 1) + f.frame(f.DATA, 0, 1), f.Error.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, 0, 1) + f.frame(f.HEADERS, 0, 3), f.Error.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, f.PADDED, 1), f.Error.FRAME_SIZE_ERROR),
        (f.frame(f.HEADERS, f.PADDED, 1, b"\x05abc"), f.Error.PROTOCOL_ERROR),
        (f.frame(f.HEADERS, f.PRIORITIZED, 1, b"abc"), f.Error.PROTOCOL_ERROR),
        (
            f.frame(f.HEADERS, 0, 1, bytes(600)) + f.frame(f.CONTINUATION, 0, 1, bytes(600)),
            f.Error.ENHANCE_YOUR_CALM,
        ),
        (
            f.frame(f.HEADERS, 0, 1) + f.frame(f.CONTINUATION, 0, 1) * MAX_FRAGMENTS,
            f.Error.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_what_breaks_the_protocol_is_told_apart(sent: bytes, code: int) -> None:
    with pytest.raises(f.ConnectionFault) as caught:
        read(begun(), sent)
    assert caught.value.code == code


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSN"])
def test_another_preface_is_refused(first: bytes) -> None:
    reader = FrameReader(1000)
    with pytest.raises(f.ConnectionFault):
        [read(reader, first[at : at + 1]) for at in range(len(first))]


@given(st.binary(max_size=60_000), st.booleans())
def test_a_body_is_cut_into_frames_that_everybody_takes(body: bytes, is_last: bool) -> None:
    found = read(begun(), f.data_frames(5, body, end=is_last))
    assert b"".join(payload for *_, payload in found) == body
    assert [bool(flags & f.END_STREAM) for _, flags, _, _ in found] == [False] * (len(found) - 1) + [is_last]
    assert all(len(payload) <= f.FRAME_BYTES for *_, payload in found)
