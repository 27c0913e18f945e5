"""The services every gRPC server offers: health (Check, List, Watch) and reflection (v1 and v1alpha)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from earshot.errors import InvalidArgument, NotFound

from ..telemetry import CallRecord

__all__ = ["HEALTH_SERVICE", "REFLECTION_SERVICES", "Health", "Reflection"]

HEALTH_SERVICE = "grpc.health.v1.Health"
# The two differ in nothing but their package's name, so the same messages serve both.
REFLECTION_SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

Status = health_pb2.HealthCheckResponse.ServingStatus


class Health:
    """Whether the server and each of its services answer. Belongs to one event loop.

    Source: the gRPC health checking protocol.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._status = dict.fromkeys(("", *services), Status.SERVING)
        self._changed = asyncio.Event()
        self._is_shut_down = False

    async def check(self, data: bytes, record: CallRecord) -> bytes:
        """`Check`. Raises NotFound for a service that is not here."""
        del record
        name = _health_request(data)
        if name not in self._status:
            raise NotFound(f"there is no service {name!r} here", field="service")
        return _response(self._status[name])

    async def list(self, data: bytes, record: CallRecord) -> bytes:
        """`List`: all of them."""
        del data, record
        answer: bytes = health_pb2.HealthListResponse(
            statuses={
                name: health_pb2.HealthCheckResponse(status=status) for name, status in self._status.items()
            }
        ).SerializeToString()
        return answer

    async def watch(
        self, requests: AsyncIterator[Sequence[bytes]], record: CallRecord
    ) -> AsyncGenerator[Sequence[bytes]]:
        """`Watch`: the status now and whenever it changes; ends when the server shuts down."""
        del record
        name = _health_request((await anext(requests, [b""]))[0])
        last = None
        while True:
            status = self._status.get(name, Status.SERVICE_UNKNOWN)
            if status != last:
                yield [_response(status)]
                last = status
            elif self._is_shut_down:
                return
            else:
                await self._changed.wait()

    def shut_down(self) -> None:
        """From now on nothing is serving; watchers hear it and are let go."""
        self._status = dict.fromkeys(self._status, Status.NOT_SERVING)
        self._is_shut_down = True
        self._changed.set()


class Reflection:
    """Descriptors of the services, for grpcurl and its like."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._servicer = reflection.ReflectionServicer(services)

    async def info(
        self, requests: AsyncIterator[Sequence[bytes]], record: CallRecord
    ) -> AsyncGenerator[Sequence[bytes]]:
        """`ServerReflectionInfo`: an answer for each question."""
        del record
        async for bundle in requests:
            try:
                asked = map(reflection_pb2.ServerReflectionRequest.FromString, bundle)
                answers = self._servicer.ServerReflectionInfo(asked, None)
                yield [answer.SerializeToString() for answer in answers]
            except DecodeError as error:
                raise InvalidArgument("a message is not a ServerReflectionRequest") from error


def _response(status: int) -> bytes:
    answer: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return answer


def _health_request(data: bytes) -> str:
    try:
        service: str = health_pb2.HealthCheckRequest.FromString(data).service
    except DecodeError as error:
        raise InvalidArgument("the request is not a grpc.health.v1.HealthCheckRequest") from error
    return service
