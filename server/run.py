"""Runs the portable server: gRPC by grpcio and HTTP by uvicorn in one event loop, over one service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import uvicorn

from earshot.errors import Unavailable
from earshot.index import Store

from .auth import Guard, check_exposure
from .compactor import Compactor
from .embedders import Embedders
from .grpc_face import GrpcFace
from .http_calls import HttpCalls
from .http_face import http_app
from .limits import MAX_HEADER_BYTES
from .operations import Operations
from .registry import Registry
from .registry_metrics import index_metrics
from .renewal import when_renewed
from .service import Service
from .settings import Settings
from .telemetry import telemetry_for, telling_peers
from .tls import GrpcCertificates, check_tls, tls_context
from .workers import Workers, multiply_on_one_thread, spare_what_is_loaded, take_short_turns

__all__ = ["Addresses", "ended", "listen", "running", "serve", "serve_in_this_process", "serve_until"]

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
NOTICE_SECONDS = 0.5  # in which who asks again is told; connections idle for longer are closed without


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, with the ports really taken."""

    grpc: str
    http: str

    @classmethod
    def of(cls, settings: Settings, *, grpc_port: int, http_port: int) -> Addresses:
        """As a client takes them: over TLS they say so."""
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        if settings.tls_certificate is None:
            return cls(grpc=f"{host}:{grpc_port}", http=f"http://{host}:{http_port}")
        return cls(grpc=f"grpcs://{host}:{grpc_port}", http=f"https://{host}:{http_port}")


class _Http(uvicorn.Server):
    """uvicorn without hands on the process's signals, which `serve` owns, that takes leave of its clients: a
    connection closed without notice may lose the request that is just setting out on it."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # noqa: ANN202
        """Leaves signals to `serve`."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, says with each answer that its own closes, then closes what is idle."""
        for server in self.servers:
            server.close()
        self.server_state.default_headers.append((b"connection", b"close"))
        told = time.monotonic() + NOTICE_SECONDS
        while self.server_state.connections and time.monotonic() < told:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Addresses]:
    """The server, listening from enter to exit; on exit running requests finish.

    Raises Unavailable, naming the port, where one is in use.
    """
    embedders = Embedders(settings.cache_dir)
    store = Store(settings.data_dir, cache_dir=settings.cache_dir)
    registry = Registry(
        store,
        poll_seconds=settings.poll_seconds,
        journal=settings.journal,
        embedders=embedders,
        shared=settings.workers > 1,
    )
    operations = Operations(
        settings.data_dir,
        settings.cache_dir,
        allowed=settings.rebuild_sources,
        journal=settings.journal,
        ended=registry.look_at,
    )
    service = Service(registry, embedders, operations)
    compactor = Compactor(registry, settings)
    registry.on_short_recall = compactor.ask
    check_tls(settings)
    check_exposure(settings)
    guard = Guard(settings.tokens_path, shares=settings.workers)
    threads = settings.threads_of_a_worker
    with contextlib.ExitStack() as stack:
        telemetry = telemetry_for(settings.model_copy(update={"transport": "portable"}))
        stack.callback(telemetry.close)
        telemetry.metrics.add(partial(index_metrics, registry))
        telemetry.metrics.add(compactor.metrics)
        take_short_turns()
        multiply_on_one_thread()
        executor = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="earshot"))
        workers = Workers(executor, threads=threads, max_queue=settings.max_queue)
        telemetry.metrics.queues["worker"] = lambda: {"": workers.waiting}
        listener = stack.enter_context(listen(settings.host, settings.port, shared=settings.workers > 1))
        is_shared = settings.workers > 1
        if is_shared:  # who shares a port is given connections as soon as it listens
            await asyncio.to_thread(registry.start)
        certificates = GrpcCertificates(settings)
        grpc_face = GrpcFace(
            service,
            workers,
            telemetry,
            guard,
            host=settings.host,
            port=settings.grpc_port,
            is_port_shared=is_shared,
            credentials=certificates.credentials,
            max_message_bytes=settings.max_message_bytes,
            max_answer_bytes=settings.max_answer_bytes,
        )
        if not is_shared:
            await asyncio.to_thread(registry.start)
        stack.callback(registry.stop)
        stack.callback(operations.stop)
        compactor.start()
        stack.callback(compactor.stop)
        http = http_app(
            service,
            workers,
            telemetry.metrics,
            max_message_bytes=settings.max_message_bytes,
            max_answer_bytes=settings.max_answer_bytes,
        )
        context = tls_context(settings, ["http/1.1"])
        uvicorn_server = _Http(
            uvicorn.Config(
                HttpCalls(http, telemetry, guard),
                log_config=None,
                access_log=False,
                lifespan="off",
                http="h11",  # whose headers can be bounded
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                ssl_context_factory=None if context is None else lambda *_: context,
                timeout_graceful_shutdown=int(DRAIN_SECONDS),
            )
        )
        serving = asyncio.create_task(uvicorn_server.serve(sockets=[listener]))
        await grpc_face.start()
        while not uvicorn_server.started and not serving.done():
            await asyncio.sleep(0.005)

        def renew() -> None:
            certificates.renew()
            if context is not None:
                context.renew()

        renewing = asyncio.create_task(when_renewed(settings, renew))
        try:
            async with telling_peers(telemetry.metrics):
                yield Addresses.of(settings, grpc_port=grpc_face.port, http_port=listener.getsockname()[1])
        finally:
            renewing.cancel()
            uvicorn_server.should_exit = True
            await grpc_face.stop(DRAIN_SECONDS)
            await serving


def serve(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is called once with the addresses. Then drains and returns."""
    serve_in_this_process(running(settings), ready=ready)


def serve_in_this_process(
    server: contextlib.AbstractAsyncContextManager[Addresses],
    *,
    ready: Callable[[Addresses], None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """As `serve`, for any server that listens from enter to exit."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve_until(asyncio.Event(), server, ready))


async def serve_until(
    stop: asyncio.Event,
    server: contextlib.AbstractAsyncContextManager[Addresses],
    ready: Callable[[Addresses], None],
) -> None:
    """Serves, alone in this process, until `stop`, SIGTERM or SIGINT; then drains."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    spare_what_is_loaded()
    async with server as addresses:
        ready(addresses)
        await stop.wait()
        log.info("draining: running requests finish, new ones are refused")


async def ended(process: asyncio.subprocess.Process, what: str) -> None:
    """Waits for a child that was told to drain; kills it, and logs that, where it takes too long."""
    try:
        await asyncio.wait_for(process.wait(), DRAIN_SECONDS + 10)
    except TimeoutError:
        log.error("%s did not drain; it is killed", what)
        process.kill()
        await process.wait()


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket, which workers of ours may share.

    Raises Unavailable, naming the port, where it is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"port {port} on {host} cannot be used for HTTP ({error.strerror}): "
            "choose another with --port or EARSHOT_PORT",
            field="port",
        ) from error
    return listener
