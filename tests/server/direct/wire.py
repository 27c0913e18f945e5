"""A connection without a socket: what it is told, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import hpack

from earshot.server.direct import frames as f
from earshot.server.direct.http1 import Http1Connection
from earshot.server.direct.http2 import Http2Connection
from earshot.server.direct.served import Served

Application = Callable[[Any, Any, Any], Any]
Frame = tuple[int, int, int, bytes]

POST = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "here")]


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.is_closed = self.is_aborted = self.is_paused = False
        self.left = 0

    def write(self, data: Any) -> None:
        self.written += bytes(data)
        self.writes += 1

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def get_write_buffer_size(self) -> int:
        return self.left

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def settle() -> None:
    """Lets everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Http2Wire:
    """A client that writes its frames by hand."""

    def __init__(self, app: Application, *, begin: bool = True, whole: Any = None) -> None:
        self.transport = Transport()
        self.lost = 0
        self.connection = Http2Connection(Served(app, whole), self._lose)
        self.connection.connection_made(self.transport)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self._read = 0
        if begin:
            self.connection.data_received(f.PREFACE + f.frame(f.SETTINGS, 0, 0))

    def _lose(self, _: object) -> None:
        self.lost += 1

    def tell(self, *frames: bytes) -> None:
        self.connection.data_received(b"".join(frames))

    def headers(self, stream: int, headers: Any = POST, flags: int = f.END_HEADERS) -> bytes:
        return f.frame(f.HEADERS, flags, stream, self.encoder.encode(headers))

    def ask(self, stream: int, body: bytes = b"", headers: Any = POST) -> None:
        self.tell(self.headers(stream, headers), f.frame(f.DATA, f.END_STREAM, stream, body))

    def unpack(self, block: bytes) -> dict[str, str]:
        """Headers of an answer."""
        return {
            bytes(name).decode(): bytes(value).decode()
            for name, value in self.decoder.decode(block, raw=True)
        }

    async def heard(self) -> list[Frame]:
        """The frames since the last call."""
        await settle()
        found, data = [], self.transport.written
        while self._read < len(data):
            high, low, kind, flags, stream = f.HEADER.unpack_from(data, self._read)
            start = self._read + f.HEADER.size
            self._read = start + (high << 8 | low)
            found.append((kind, flags, stream, data[start : self._read]))
        return found

    async def answers(self) -> dict[int, tuple[str, bytes, bool]]:
        """Status, body and whether it ended, by stream, of what came since the last call."""
        found: dict[int, tuple[str, bytes, bool]] = {}
        for kind, flags, stream, payload in await self.heard():
            status, body, _ = found.get(stream, ("", b"", False))
            if kind == f.HEADERS:
                status = self.unpack(payload).get(":status", status)
            elif kind == f.DATA:
                body += payload
            else:
                continue
            found[stream] = status, body, bool(flags & f.END_STREAM)
        return found


class Http1Wire:
    """A client that writes its requests by hand."""

    def __init__(self, app: Application, *, whole: Any = None) -> None:
        self.transport = Transport()
        self.lost = 0
        self.connection = Http1Connection(Served(app, whole), self._lose)
        self.connection.connection_made(self.transport)
        self._read = 0

    def _lose(self, _: object) -> None:
        self.lost += 1

    def tell(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def heard(self) -> bytes:
        """What was said since the last call."""
        await settle()
        found, self._read = self.transport.written[self._read :], len(self.transport.written)
        return found


async def body_of(receive: Any) -> bytes:
    """A whole request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise OSError("gone")
        body, more = body + message["body"], message["more_body"]
    return body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the method and the body."""
    body = scope["method"].encode() + b" " + await body_of(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def ends_of(frames: list[tuple[int, int, int, bytes]]) -> list[tuple[int, int]]:
    """Streams that were reset, and why; stream 0 is the connection."""
    found = []
    for kind, _, stream, payload in frames:
        if kind == f.RST_STREAM:
            found.append((stream, int.from_bytes(payload, "big")))
        elif kind == f.GOAWAY:
            found.append((0, int.from_bytes(payload[4:8], "big")))
    return found


def window(stream: int, size: int) -> bytes:
    return f.window_update(stream, size)


def initial_window(size: int) -> bytes:
    return f.frame(f.SETTINGS, 0, 0, f.setting(4, size))


class Stuck:
    """Never answers, and hears when its client goes."""

    def __init__(self) -> None:
        self.begun, self.gone = 0, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone += 1


async def answer_never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.get_running_loop().create_future()
