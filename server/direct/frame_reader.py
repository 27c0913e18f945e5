"""Bytes in, whole frames out; headers that came in several are one."""

from __future__ import annotations

from collections.abc import Iterator

from .frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    FRAME_BYTES,
    GOAWAY,
    HEADER,
    HEADERS,
    MAX_WINDOW,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    Error,
    unpadded,
)

__all__ = ["Frame", "FrameReader"]

Frame = tuple[int, int, int, bytes]
"""Type, flags, stream and payload."""

MAX_FRAGMENTS = 16  # of one request's headers

_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_USUAL = {DATA, HEADERS}
_OF_A_STREAM = {DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION}
_OF_THE_CONNECTION = {SETTINGS, PING, GOAWAY}


class FrameReader:
    """Of one connection.

    Attributes:
        has_preface: The client has said that it speaks HTTP/2.
        block_since: When headers began that are not whole yet; None where there are none.
    """

    def __init__(self, max_block: int) -> None:
        self._max_block = max_block
        self._unread = b""
        self._block: tuple[int, int] | None = None  # flags and stream
        self._fragments: list[bytes] = []
        self.has_preface = False
        self.block_since: float | None = None

    def frames(self, data: bytes, now: float) -> Iterator[Frame]:
        """What is whole with these bytes, which came `now`; HEADERS have the whole block, without padding.

        Raises ConnectionFault.
        """
        data, at = self._unread + data if self._unread else data, 0
        if not self.has_preface:
            if data[: len(PREFACE)] != PREFACE[: len(data)]:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "the preface is wrong")
            if len(data) < len(PREFACE):
                self._unread = data
                return
            self.has_preface, at = True, len(PREFACE)
        end = len(data)
        while end - at >= HEADER.size:
            high, low, kind, flags, number = HEADER.unpack_from(data, at)
            size = high << 8 | low
            if size > FRAME_BYTES:
                raise ConnectionFault(Error.FRAME_SIZE_ERROR, f"a frame has more than {FRAME_BYTES} bytes")
            start = at + HEADER.size
            if start + size > end:
                break
            at = start + size
            number &= MAX_WINDOW
            if kind not in _USUAL or not number:
                _check(kind, size, number)
            found = kind, flags, number, data[start:at]
            if kind == DATA and self._block is None:
                yield found
            elif (whole := self._whole(found, now)) is not None:
                yield whole
        self._unread = data[at:]

    def _whole(self, found: Frame, now: float) -> Frame | None:
        kind, flags, number, payload = found
        if kind == CONTINUATION:
            if self._block is None or number != self._block[1]:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "headers go on that were not begun")
            self._fragments.append(payload)
            many = len(self._fragments) > MAX_FRAGMENTS
            if many or sum(map(len, self._fragments)) > self._max_block:
                raise ConnectionFault(Error.ENHANCE_YOUR_CALM, "too many headers")
            if not flags & END_HEADERS:
                return None
            block, self._block, self.block_since = self._block, None, None
            return HEADERS, block[0], number, b"".join(self._fragments)
        if self._block is not None:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "something came between a request's headers")
        if kind != HEADERS:
            return found
        fragment = unpadded(payload, flags)
        if flags & END_HEADERS:
            return HEADERS, flags, number, fragment
        self._block, self._fragments, self.block_since = (flags, number), [fragment], now
        return None


def _check(kind: int, size: int, number: int) -> None:
    if _SIZES.get(kind, size) != size:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, f"a frame of type {kind} has {size} bytes")
    if kind in (_OF_THE_CONNECTION if number else _OF_A_STREAM):
        raise ConnectionFault(Error.PROTOCOL_ERROR, f"a frame of type {kind} cannot be of stream {number}")
    if kind == PUSH_PROMISE:
        raise ConnectionFault(Error.PROTOCOL_ERROR, "a client pushes nothing")
