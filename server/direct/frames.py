"""Frames of HTTP/2 as bytes, and what may be wrong with them. Source: RFC 9113, sections 4, 6 and 7."""

from __future__ import annotations

from struct import Struct

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_BYTES",
    "GOAWAY",
    "HEADER",
    "HEADERS",
    "INITIAL_WINDOW",
    "INITIAL_WINDOW_SIZE",
    "MAX_CONCURRENT_STREAMS",
    "MAX_HEADER_LIST_SIZE",
    "MAX_WINDOW",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITIZED",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "WINDOW_UPDATE",
    "ConnectionFault",
    "Error",
    "StreamFault",
    "data_frames",
    "frame",
    "goaway",
    "reset",
    "setting",
    "settings",
    "unpadded",
    "window_update",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

(DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION) = (
    range(10)
)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITIZED = 0x4, 0x8, 0x20

HEADER = Struct(">HBBBI")
"""Of a frame: its length in two parts, type, flags and stream."""

FRAME_BYTES = 1 << 14  # the largest payload that everybody takes, and that we take
INITIAL_WINDOW = (1 << 16) - 1
MAX_WINDOW = (1 << 31) - 1

_pack = Struct(">xHBBI").pack  # the same of what we send, at most FRAME_BYTES
_SETTING = Struct(">HI")
_NUMBER = Struct(">I")
_NUMBERS = Struct(">II")

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(2, 7)


class Error:
    """Why a stream or a connection is ended; RFC 9113, section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


_RANGES = {
    ENABLE_PUSH: (Error.PROTOCOL_ERROR, 0, 1),
    INITIAL_WINDOW_SIZE: (Error.FLOW_CONTROL_ERROR, 0, MAX_WINDOW),
    MAX_FRAME_SIZE: (Error.PROTOCOL_ERROR, FRAME_BYTES, (1 << 24) - 1),
}
_ANY = (Error.NO_ERROR, 0, (1 << 32) - 1)


class ConnectionFault(Exception):
    """The peer broke the protocol in a way after which nothing it sends can be trusted."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamFault(Exception):
    """One stream is wrong; the others go on."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame; the payload has at most `FRAME_BYTES`."""
    return _pack(len(payload), kind, flags, stream) + payload


def data_frames(stream: int, body: bytes | memoryview, *, end: bool) -> bytes:
    """A body, cut into frames; where it is empty, one that only says the end."""
    if len(body) <= FRAME_BYTES:
        return frame(DATA, END_STREAM if end else 0, stream, body)
    last = (len(body) - 1) // FRAME_BYTES * FRAME_BYTES
    return b"".join(
        frame(DATA, END_STREAM if end and start == last else 0, stream, body[start : start + FRAME_BYTES])
        for start in range(0, len(body), FRAME_BYTES)
    )


def reset(stream: int, code: int) -> bytes:
    """A frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last_stream: int, code: int, reason: str = "") -> bytes:
    """A frame that says goodbye; streams above the last are not answered."""
    return frame(GOAWAY, 0, 0, _NUMBERS.pack(last_stream, code) + reason.encode()[:200])


def window_update(stream: int, size: int) -> bytes:
    """A frame that lets the peer send so many bytes more; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def setting(name: int, value: int) -> bytes:
    """One setting of a SETTINGS frame."""
    return _SETTING.pack(name, value)


def settings(payload: bytes) -> list[tuple[int, int]]:
    """Names and values of a client's SETTINGS frame. Raises ConnectionFault for one that cannot be."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(Error.FRAME_SIZE_ERROR, "SETTINGS have a broken length")
    found = list(_SETTING.iter_unpack(payload))
    for name, value in found:
        code, lowest, highest = _RANGES.get(name, _ANY)
        if not lowest <= value <= highest:
            raise ConnectionFault(code, f"setting {name} cannot be {value}")
    return found


def unpadded(payload: bytes, flags: int) -> bytes:
    """A payload without its padding and without its priority, which nobody heeds. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ConnectionFault(Error.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
        start, end = 1, end - payload[0]
    if flags & PRIORITIZED:
        start += 5
    if start > end:
        raise ConnectionFault(Error.PROTOCOL_ERROR, "more padding than there is payload")
    return payload[start:end]
