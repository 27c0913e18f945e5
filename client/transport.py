"""The seam between calls and wires: a transport carries one message there and its answer back.

One target string decides which: `host:port` and `grpc(s)://host:port` speak gRPC, `http(s)://` speaks HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from earshot.errors import InvalidArgument

__all__ = ["AsyncStreaming", "AsyncTransport", "Streaming", "Transport", "parse_target"]


class Transport(Protocol):
    """Carries messages and blocks. All methods raise only `earshot.errors`."""

    def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        ...

    def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether the server answers; with `ready`, whether it also says that it serves."""
        ...

    def close(self) -> None:
        """Lets go of all connections."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """What a transport has besides where its wire carries streams."""

    def stream(
        self, method: MethodDescriptor, requests: Iterable[Message], timeout: float | None
    ) -> Generator[Message]:
        """Answers as they come; closing the generator ends the call."""
        ...


class AsyncTransport(Protocol):
    """The same for asyncio."""

    async def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        ...

    async def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether the server answers; with `ready`, whether it also says that it serves."""
        ...

    async def close(self) -> None:
        """Lets go of all connections."""
        ...


@runtime_checkable
class AsyncStreaming(Protocol):
    """The same for asyncio."""

    def stream(
        self, method: MethodDescriptor, requests: AsyncIterable[Message], timeout: float | None
    ) -> AsyncGenerator[Message]:
        """Answers as they come; closing the generator ends the call."""
        ...


def parse_target(target: str) -> tuple[str, str]:
    """Splits a target into its scheme (`grpc`, `grpcs`, `http` or `https`) and what the transport dials.

    Raises InvalidArgument for another scheme, or where host or port are missing or wrong.
    """
    scheme, separator, rest = target.partition("://")
    if not separator:
        scheme, rest = "grpc", target
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    is_http = scheme in {"http", "https"}
    if not host or not (is_http or (scheme in {"grpc", "grpcs"} and port and parts.netloc == rest)):
        raise InvalidArgument(
            f"target {target!r} is not an address: write 'host:port' or 'grpc://host:port' for gRPC, "
            "'http://host:port' for HTTP, 'grpcs://' or 'https://' for TLS",
            field="target",
        )
    return scheme, target if is_http else rest
