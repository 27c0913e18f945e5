"""gRPC's framing over HTTP/2, as pure functions and one small reader; no transport in here.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md) and "Compression" of the gRPC project's documentation.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable
from urllib.parse import quote

from earshot.errors import EarshotError, InvalidArgument, ResourceExhausted, Unimplemented, row_of

from ..error_headers import error_metadata

__all__ = [
    "GRPC_HEADERS",
    "OK_TRAILERS",
    "MessageReader",
    "failure_headers",
    "frame",
    "is_grpc",
    "status_trailers",
    "unframe",
]

Headers = list[tuple[bytes, bytes]]

PREFIX_BYTES = 5
SMALLEST_WORTH_COMPRESSING = 1024
MAX_MESSAGE_CHARACTERS = 1000  # a client takes 8 KiB of metadata by default; %XX triples a byte

# The second argument of zlib.decompressobj: which container surrounds the deflated bytes.
WINDOW_BITS = {b"gzip": 31, b"deflate": 15}

GRPC_HEADERS: Headers = [
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
]
OK_TRAILERS: Headers = [(b"grpc-status", b"0")]

_CONTENT_TYPE = re.compile(rb"application/grpc(\+proto)?\s*(;.*)?")
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def is_grpc(content_type: bytes) -> bool:
    """Whether it is `application/grpc` or `application/grpc+proto`: not grpc-web, not JSON in gRPC."""
    return content_type == b"application/grpc" or _CONTENT_TYPE.fullmatch(content_type) is not None


def status_trailers(error: EarshotError) -> Headers:
    """`grpc-status`, the percent-encoded `grpc-message`, and when to try again, of an error."""
    message = error.message
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    encoded = quote(message, safe=_PRINTABLE, errors="replace").encode("ascii")
    retry = [(name.encode(), value.encode()) for name, value in error_metadata(error)]
    return [(b"grpc-status", str(row_of(error).grpc).encode()), (b"grpc-message", encoded), *retry]


def failure_headers(error: EarshotError) -> Headers:
    """Of an answer of nothing but a status, which gRPC calls trailers-only: it travels in the headers."""
    return [*GRPC_HEADERS, *status_trailers(error)]


def frame(message: bytes, encoding: bytes = b"identity") -> bytes:
    """`message` with its prefix; compressed where `encoding` is gzip or deflate and it is worth it."""
    if encoding in WINDOW_BITS and len(message) >= SMALLEST_WORTH_COMPRESSING:
        packed = gzip.compress(message, 1) if encoding == b"gzip" else zlib.compress(message, 1)
        return b"\x01" + len(packed).to_bytes(4, "big") + packed
    return b"\x00" + len(message).to_bytes(4, "big") + message


def unframe(body: bytes, limit: int) -> bytes | None:
    """The message of a body that is exactly one uncompressed frame: the usual case, at one glance.

    None for everything else, errors included: `MessageReader` tells those apart.
    """
    size = len(body) - PREFIX_BYTES
    if 0 <= size <= limit and body[0] == 0 and int.from_bytes(body[1:5], "big") == size:
        return body[PREFIX_BYTES:]
    return None


class MessageReader:
    """Turns chunks, however the network cut them, into whole messages, decompressed.

    `limit` is the largest message in bytes, before and after decompression.
    """

    def __init__(self, encoding: bytes, limit: int) -> None:
        self._encoding = encoding
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """The messages that are complete with this chunk.

        Raises ResourceExhausted as soon as a prefix announces more than the limit or a message
        unpacks to more, Unimplemented for an unknown encoding, InvalidArgument for a broken frame.
        """
        self._buffer += chunk
        while len(self._buffer) >= PREFIX_BYTES:
            flag = self._buffer[0]
            if flag > 1:
                raise InvalidArgument(f"a message's compression flag is {flag}; it must be 0 or 1")
            size = int.from_bytes(self._buffer[1:PREFIX_BYTES], "big")
            if size > self._limit:
                raise self._too_large(f"a message of {size} bytes")
            end = PREFIX_BYTES + size
            if len(self._buffer) < end:
                return
            message = bytes(memoryview(self._buffer)[PREFIX_BYTES:end])
            del self._buffer[:end]
            yield self._unpack(message) if flag else message

    def close(self) -> None:
        """Call at the end of the stream. Raises InvalidArgument where it ended inside a message."""
        if self._buffer:
            raise InvalidArgument(
                f"the request ended inside a message, after {len(self._buffer)} of its bytes"
            )

    def _unpack(self, packed: bytes) -> bytes:
        if self._encoding == b"identity":
            raise InvalidArgument("a message is marked as compressed, but grpc-encoding does not say how")
        bits = WINDOW_BITS.get(self._encoding)
        if bits is None:
            raise Unimplemented(
                f"grpc-encoding is {self._encoding[:20]!r}; identity, deflate and gzip are taken"
            )
        decompressor = zlib.decompressobj(bits)
        try:
            message = decompressor.decompress(packed, self._limit + 1)
        except zlib.error as error:
            raise InvalidArgument(f"a message is not {self._encoding.decode('ascii')}: {error}") from error
        if len(message) > self._limit:
            raise self._too_large(f"a message that unpacks to more than {self._limit} bytes")
        if not decompressor.eof or decompressor.unused_data:
            raise InvalidArgument(f"a message is not one whole {self._encoding.decode('ascii')} stream")
        return message

    def _too_large(self, what: str) -> ResourceExhausted:
        return ResourceExhausted(f"{what}; the limit, max_message_bytes, is {self._limit}")
