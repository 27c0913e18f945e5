"""Headers as HTTP/2 compresses them. Source: RFC 7541 (HPACK), RFC 9113, section 8."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import hpack

from ..hot.framing import Headers
from ..telemetry import REQUEST_ID
from .frames import ConnectionFault, Error, StreamFault
from .heads import Head, head_of, http_date

__all__ = ["MAX_BLOCK_BYTES", "HeaderReader", "answer_block", "header_block", "trailer_block"]

MAX_BLOCK_BYTES = 64 << 10
"""Of headers as they travel, and unpacked: more than we take, so that who brings them can be told."""

_REMEMBERED = 256  # blocks a connection
_REMEMBERED_BYTES = 2 << 10  # of a block; one that is larger does not come again and again
_PSEUDO = {b":method", b":scheme", b":authority", b":path"}
_OF_A_CONNECTION = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_STATUS_200 = b"\x88"  # in the static table
_STATUS = b"\x08\x03"  # its name is in the static table, and three digits follow


class HeaderReader:
    """One connection's request headers.

    A client that asks again and again sends the same bytes: a block that left the table of names and values
    as it was means the same next time, and is not unpacked again.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._decoder = hpack.Decoder(max_header_list_size=MAX_BLOCK_BYTES)
        self._known: dict[bytes, Head] = {}

    def head(self, block: bytes) -> Head:
        """A request's head.

        Raises:
            ConnectionFault: The block is broken.
            StreamFault: It is none of a request.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._state()
        headers = self.skip(block)
        head = self._head(headers)
        if self._state() != before:
            self._known.clear()
        elif len(block) <= _REMEMBERED_BYTES:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[block] = head
        return head

    def skip(self, block: bytes) -> Headers:
        """Reads headers for what they do to the connection's table. Raises ConnectionFault."""
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except hpack.HPACKError as error:
            raise ConnectionFault(Error.COMPRESSION_ERROR, f"headers cannot be unpacked: {error}") from error

    def _state(self) -> tuple[int, list[object]]:
        table = self._decoder.header_table
        return table.maxsize, list(table.dynamic_entries)

    def _head(self, headers: Headers) -> Head:
        pseudo: dict[bytes, bytes] = {}
        plain: Headers = []
        for name, value in headers:
            if not name or not _UNCLEAN.isdisjoint(name) or not _UNCLEAN.isdisjoint(value):
                raise StreamFault(Error.PROTOCOL_ERROR)
            if name.startswith(b":"):
                if plain or name in pseudo or name not in _PSEUDO:
                    raise StreamFault(Error.PROTOCOL_ERROR)
                pseudo[name] = value
            elif name in _OF_A_CONNECTION or name != name.lower() or (name == b"te" and value != b"trailers"):
                raise StreamFault(Error.PROTOCOL_ERROR)
            else:
                plain.append((name, value))
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if not method.isalpha() or b":scheme" not in pseudo or not (path.startswith(b"/") or path == b"*"):
            raise StreamFault(Error.PROTOCOL_ERROR)
        if b":authority" in pseudo and all(name != b"host" for name, _ in plain):
            plain.insert(0, (b"host", pseudo[b":authority"]))
        return head_of(method.decode(), path, plain, scheme=self._scheme, version="2")


def answer_block(status: int, headers: Iterable[tuple[bytes, bytes]], request_id: bytes) -> bytes:
    """The headers of an answer, with the time and, unless it is among them, the request's id.

    Raises as `header_block`.
    """
    block, has_id = _dated_block(status, tuple(headers), http_date())
    return block if has_id else block + _ID + _string(request_id)


@lru_cache(_REMEMBERED)
def _dated_block(status: int, headers: tuple[tuple[bytes, bytes], ...], date: bytes) -> tuple[bytes, bool]:
    line = _STATUS_200 if status == 200 else _STATUS + b"%03d" % status
    block = line + header_block(headers) + _DATE + _string(date)
    return block, any(name == REQUEST_ID for name, _ in headers)


def trailer_block(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Trailers. Raises as `header_block`."""
    return _trailer_block(tuple(trailers))


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as literals that leave the peer's table alone.

    Raises ValueError for what no header may hold.
    """
    parts = []
    for name, value in headers:
        if not name or not _UNCLEAN.isdisjoint(name) or not _UNCLEAN.isdisjoint(value):
            raise ValueError(f"the header {name!r} has no name, or holds the end of a line")
        parts.append(b"\x00" + _string(name.lower()) + _string(value))
    return b"".join(parts)


def _string(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return _BYTES[size] + text
    size -= 127
    prefix = bytearray((127,))
    while size >= 128:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + text


_BYTES = [bytes((size,)) for size in range(127)]
_UNCLEAN = frozenset(b"\r\n\0")
_DATE = b"\x0f\x12"  # its name is in the static table
_ID = b"\x00" + _string(REQUEST_ID)
_trailer_block = lru_cache(_REMEMBERED)(header_block)
