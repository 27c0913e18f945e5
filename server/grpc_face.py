"""The portable gRPC face: a `grpc.aio` server over the table of methods, with health and reflection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from earshot.errors import EarshotError, Internal, Unavailable, row_of

from .grpc_methods import METHODS, SEARCH, SERVICES, STREAM_SEARCH, Method
from .retry import retry_metadata
from .service import Service
from .streams import stream_search

__all__ = ["GrpcFace"]

log = logging.getLogger(__name__)

STATUS_OF_CODE = {status.value[0]: status for status in grpc.StatusCode}


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, service: Service, executor: Executor) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            path: grpc.unary_unary_rpc_method_handler(_handler(service, method, executor))
            for path, method in METHODS.items()
        }
        self._handlers[STREAM_SEARCH] = grpc.stream_stream_rpc_method_handler(
            _stream_handler(service, executor)
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


def _handler(
    service: Service, method: Method, executor: Executor
) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    async def handle(data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, method, service, data)
        except EarshotError as error:
            failure = error
        except Exception:
            log.exception("a request failed in a way that was not foreseen")
            failure = Internal("internal error; the server's log has the cause")
        await context.abort(
            STATUS_OF_CODE[row_of(failure).grpc], failure.message, tuple(retry_metadata(failure))
        )
        raise AssertionError("abort always raises")

    return handle


def _stream_handler(service: Service, executor: Executor) -> Callable[..., AsyncIterator[bytes]]:
    def search(data: bytes) -> asyncio.Future[bytes]:
        return asyncio.get_running_loop().run_in_executor(executor, METHODS[SEARCH], service, data)

    async def one_by_one(requests: AsyncIterator[bytes]) -> AsyncIterator[Sequence[bytes]]:
        async for request in requests:
            yield [request]

    async def handle(
        requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        del context
        async with aclosing(stream_search(one_by_one(requests), search)) as bundles:
            async for answers in bundles:
                for answer in answers:
                    yield answer

    return handle


class GrpcFace:
    """One gRPC server on one port. `port` is the one taken, also where 0 asked for a free one.

    Raises Unavailable where the port is in use or the address is not ours.
    """

    def __init__(
        self, service: Service, executor: Executor, *, host: str, port: int, max_message_bytes: int
    ) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
            ]
        )
        self._server.add_generic_rpc_handlers((_Handlers(service, executor),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        try:
            self.port = self._server.add_insecure_port(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            )
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
