"""gRPC, blocking and asyncio: a channel, and a status turned into an error by the one table."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from earshot.errors import EarshotError, Unavailable, from_code

from .access import Access

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

NO_TOKEN = Access()

OPTIONS = (
    # The server bounds what it reads; 10,000 neighbors with their vectors are more than the default 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Five minutes is the most often that servers allow unasked. Having it on also makes the kernel
    # give a silent connection up after keepalive_timeout_ms of unanswered data (TCP_USER_TIMEOUT).
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # `Retry` decides alone, and a channel must dial again as soon as it tries again.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

# grpc.health.v1, by hand because its generated module is a package of its own: an empty request asks for
# the whole server, and field 1 = 1 answers SERVING.
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"


class GrpcTransport:
    """One channel to `address` (`host:port`)."""

    def __init__(self, address: str, access: Access = NO_TOKEN) -> None:
        self._metadata = access.headers()
        self._channel: grpc.Channel = access.channel(grpc, address, OPTIONS)
        self._health: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH)

    def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        send = self._channel.unary_unary(**_wire(method))
        try:
            answer: Message = send(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _error(error) from error
        return answer

    def stream(
        self, method: MethodDescriptor, requests: Iterable[Message], timeout: float | None
    ) -> Generator[Message]:
        """Answers as they come; closing the generator ends the call."""
        send = self._channel.stream_stream(**_wire(method))
        call = send(iter(requests), timeout=timeout, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise _error(error) from error
        finally:
            call.cancel()

    def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether the server answers a health check; with `ready`, whether with SERVING."""
        try:
            answer = self._health(b"", timeout=timeout)
        except grpc.RpcError:
            return False
        return not ready or answer == SERVING

    def close(self) -> None:
        """Closes the channel; calls under way fail."""
        self._channel.close()


class AsyncGrpcTransport:
    """The same for asyncio; the channel opens at the first call, inside the running event loop."""

    def __init__(self, address: str, access: Access = NO_TOKEN) -> None:
        self._address = address
        self._access = access
        self._metadata = access.headers()
        self._opened: grpc.aio.Channel | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._opened is None:
            self._opened = self._access.channel(grpc.aio, self._address, OPTIONS)
        return self._opened

    async def call(self, method: MethodDescriptor, request: Message, timeout: float | None) -> Message:
        """The answer to `request`, within `timeout` seconds."""
        send = self._channel.unary_unary(**_wire(method))
        try:
            answer: Message = await send(request, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error
        return answer

    async def stream(
        self, method: MethodDescriptor, requests: AsyncIterable[Message], timeout: float | None
    ) -> AsyncGenerator[Message]:
        """Answers as they come; closing the generator ends the call."""
        send = self._channel.stream_stream(**_wire(method))
        call = send(aiter(requests), timeout=timeout, metadata=self._metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise _error(error) from error
        finally:
            call.cancel()

    async def probe(self, timeout: float | None, *, ready: bool) -> bool:
        """Whether the server answers a health check; with `ready`, whether with SERVING."""
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH)
        try:
            answer = await check(b"", timeout=timeout)
        except grpc.aio.AioRpcError:
            return False
        return not ready or answer == SERVING

    async def close(self) -> None:
        """Closes the channel; calls under way fail."""
        if self._opened is not None:
            await self._opened.close()


def _wire(method: MethodDescriptor) -> dict[str, Any]:
    return {
        "method": f"/{method.containing_service.full_name}/{method.name}",
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": GetMessageClass(method.output_type).FromString,
    }


def _error(error: Any) -> EarshotError:
    trailers = dict(error.trailing_metadata() or ())
    pushback = str(trailers.get("grpc-retry-pushback-ms", ""))
    if error.code() is grpc.StatusCode.CANCELLED and error.details() == "CANCELLED":
        # Nobody here gave it up: a server of grpcio does so to calls that it has not begun when it stops.
        return Unavailable("the server stopped before it began with the call")
    return from_code(
        error.code().name,
        error.details() or "no reason was given",
        retry_after=int(pushback) / 1000 if pushback.isdecimal() else None,
    )
