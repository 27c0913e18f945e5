"""The portable gRPC face: a `grpc.aio` server over the table of methods, with health and reflection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from earshot.errors import EarshotError, Internal, Unavailable, row_of

from .auth import Admission, Guard, act
from .error_headers import error_metadata
from .grpc_methods import METHODS, SEARCH, SERVICES, STREAM_SEARCH, WRITES
from .limits import MAX_HEADER_BYTES, checked_size
from .service import Service
from .streams import stream_search
from .telemetry import REQUEST_ID, CallRecord, Telemetry, current
from .workers import Workers

__all__ = ["GrpcFace"]

log = logging.getLogger(__name__)

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
Call = Callable[[bytes], Awaitable[bytes]]
Begin = Callable[[str, str, Mapping[bytes, bytes]], CallRecord]

STATUS_OF_CODE = {status.value[0]: status for status in grpc.StatusCode}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(
        self,
        service: Service,
        workers: Workers,
        telemetry: Telemetry,
        guard: Guard,
        max_answer_bytes: int,
    ) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path: grpc.unary_unary_rpc_method_handler(
                _handler(
                    path,
                    partial(workers.write if path in WRITES else workers.run, method, service),
                    telemetry,
                    guard,
                    max_answer_bytes,
                )
            )
            for path, method in METHODS.items()
        }
        search = partial(workers.run, METHODS[SEARCH], service)
        self._handlers[STREAM_SEARCH] = grpc.stream_stream_rpc_method_handler(
            _stream_handler(STREAM_SEARCH, search, telemetry, guard, max_answer_bytes)
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(
    path: str, call: Call, telemetry: Telemetry, guard: Guard, max_answer_bytes: int
) -> Callable[[bytes, Context], Awaitable[bytes]]:
    async def handle(data: bytes, context: Context) -> bytes:
        try:
            headers = _headers(context)
            with _begin(telemetry.begin, path, headers, context) as record, current(record):
                try:
                    admission = guard.admit(path, headers)
                    admission.check(data)
                    act(admission)
                    return checked_size(await call(data), max_answer_bytes)
                except EarshotError:
                    raise
                except Exception:
                    log.exception("a request failed in a way that was not foreseen")
                    raise Internal("internal error; the server's log has the cause") from None
        except EarshotError as error:
            failure = error
        return await _abort(context, failure)

    return handle


def _stream_handler(
    path: str, call: Call, telemetry: Telemetry, guard: Guard, max_answer_bytes: int
) -> Callable[..., AsyncIterator[bytes]]:
    async def search(stream: CallRecord, admission: Admission, data: bytes) -> Sequence[bytes]:
        with telemetry.begin_in_stream(stream) as record, current(record):
            admission.check(data)
            return [await call(data)]

    async def one_by_one(requests: AsyncIterator[bytes]) -> AsyncIterator[Sequence[bytes]]:
        async for request in requests:
            yield [request]

    async def handle(requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        try:
            headers = _headers(context)
            with _begin(telemetry.begin_stream, path, headers, context) as stream:
                admission = guard.admit(path, headers)
                searches = stream_search(
                    one_by_one(requests),
                    lambda data: asyncio.ensure_future(search(stream, admission, data)),
                    max_answer_bytes,
                )
                async with aclosing(searches) as bundles:
                    async for answers in bundles:
                        for answer in answers:
                            yield answer
        except EarshotError as error:
            await _abort(context, error)

    return handle


def _headers(context: Context) -> dict[bytes, bytes]:
    return {
        key.encode(): value if isinstance(value, bytes) else value.encode()
        for key, value in context.invocation_metadata() or ()
    }


def _begin(begin: Begin, path: str, headers: Mapping[bytes, bytes], context: Context) -> CallRecord:
    record = begin("grpc", path.rpartition("/")[2], headers)
    context.set_trailing_metadata([(REQUEST_ID.decode(), record.request_id)])
    seconds = context.time_remaining()
    record.deadline = None if seconds is None else time.monotonic() + seconds
    return record


async def _abort(context: Context, error: EarshotError) -> NoReturn:
    await context.abort(
        STATUS_OF_CODE[row_of(error).grpc],
        error.message,
        (*context.trailing_metadata(), *error_metadata(error)),
    )
    raise AssertionError("abort always raises")


class GrpcFace:
    """One gRPC server on one port, over TLS where there are credentials.

    `port` is the one taken, also where 0 asked for a free one.
    Raises Unavailable where the port is in use or the address is not ours.
    """

    def __init__(
        self,
        service: Service,
        workers: Workers,
        telemetry: Telemetry,
        guard: Guard,
        *,
        host: str,
        port: int,
        is_port_shared: bool = False,
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int,
        max_answer_bytes: int,
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                # But for workers of ours, a port in use is an error and no second server.
                ("grpc.so_reuseport", int(is_port_shared)),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),  # we look ourselves, and say what to do
                ("grpc.max_metadata_size", MAX_HEADER_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),  # by itself it refuses some at random
            ]
        )
        self._server.add_generic_rpc_handlers(
            (_Handlers(service, workers, telemetry, guard, max_answer_bytes),)
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        try:
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise Unavailable(
                f"port {port} on {host} cannot be used for gRPC (in use?): "
                "choose another with --grpc-port or EARSHOT_GRPC_PORT",
                field="grpc_port",
            ) from error

    async def start(self) -> None:
        """Accepts calls and says SERVING for the whole server and for each service."""
        await self._server.start()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Says NOT_SERVING, takes no new calls and lets running ones finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)
