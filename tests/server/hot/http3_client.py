"""A client of HTTP/3, made of aioquic: requests whole or in parts, answers with their trailers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamReset

__all__ = ["GRPC", "Answer", "Http3", "frame", "http3"]

GRPC = {"content-type": "application/grpc", "te": "trailers"}


@dataclass
class Answer:
    """What came on a stream so far; header blocks in the order of their coming, the trailers last."""

    blocks: list[dict[str, str]] = field(default_factory=list)
    body: bytes = b""
    was_reset: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> int:
        return int(self.blocks[0][":status"])

    @property
    def trailers(self) -> dict[str, str]:
        return self.blocks[-1]

    @property
    def messages(self) -> list[bytes]:
        """Of gRPC, those that are whole."""
        found, rest = [], self.body
        while len(rest) >= 5 and len(rest) >= (size := 5 + int.from_bytes(rest[1:5], "big")):
            found.append(rest[5:size])
            rest = rest[size:]
        return found

    async def has(self, count: int) -> list[bytes]:
        """Messages of gRPC, as soon as there are so many."""
        while len(self.messages) < count:
            self.moved.clear()
            await asyncio.wait_for(self.moved.wait(), 30)
        return self.messages

    async def end(self) -> Answer:
        """This, as soon as it is whole or was reset."""
        await asyncio.wait_for(self.ended.wait(), 30)
        return self


class Http3(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._answers: dict[int, Answer] = {}

    def begin(self, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, Answer]:
        """Opens a stream; its number and what will come on it."""
        stream = self._quic.get_next_available_stream_id()
        answer = self._answers[stream] = Answer()
        pairs = {":method": method, ":scheme": "https", ":authority": "localhost", ":path": path}
        fields = [(name.encode(), value.encode()) for name, value in {**pairs, **(headers or {})}.items()]
        self._http.send_headers(stream, fields)
        return stream, answer

    def write(self, stream: int, data: bytes, *, end: bool) -> None:
        """Sends a part of the body."""
        self._http.send_data(stream, data, end_stream=end)
        self.transmit()

    def give_up(self, stream: int) -> None:
        """Cancels a request that is not answered yet, as browsers and gRPC clients do."""
        if self._answers[stream].ended.is_set():
            return
        self._quic.reset_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        self._quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
        self.transmit()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        """A whole request and its whole answer."""
        stream, answer = self.begin(method, path, headers)
        self.write(stream, body, end=True)
        return await answer.end()

    async def call(self, path: str, message: bytes, **headers: str) -> Answer:
        """A unary call of gRPC."""
        return await self.ask("POST", path, frame(message), {**GRPC, **headers})

    def quic_event_received(self, event: QuicEvent) -> None:
        """What aioquic calls with all that comes."""
        if isinstance(event, StreamReset) and event.stream_id in self._answers:
            self._answers[event.stream_id].was_reset = True
            self._answers[event.stream_id].ended.set()
        for come in self._http.handle_event(event):
            self._note(come)

    def _note(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived | DataReceived):
            answer = self._answers[event.stream_id]
            if isinstance(event, HeadersReceived):
                answer.blocks.append({name.decode(): value.decode() for name, value in event.headers})
            else:
                answer.body += event.data
            answer.moved.set()
            if event.stream_ended:
                answer.ended.set()


def frame(message: bytes) -> bytes:
    """gRPC's length prefix and the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


@asynccontextmanager
async def http3(address: str, ca: Path) -> AsyncIterator[Http3]:
    """A connection to an address such as https://127.0.0.1:8080."""
    host, port = address.removeprefix("https://").split(":")
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name="localhost", verify_mode=ssl.CERT_REQUIRED
    )
    configuration.load_verify_locations(str(ca))
    async with connect(host, int(port), configuration=configuration, create_protocol=Http3) as client:
        assert isinstance(client, Http3)
        yield client
