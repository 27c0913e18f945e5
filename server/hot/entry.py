"""What runs inside Envoy's process: `app` puts the service together at start and drains it at the end.

It drains when the supervisor asks by closing its end of a pipe, which also happens when it dies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, TypedDict

from earshot.errors import Unavailable
from earshot.index import Store

from ..auth import Guard
from ..auth import current as admission_of_call
from ..compactor import Compactor
from ..embedders import Embedders
from ..grpc_methods import (
    BATCH_SEARCH,
    METHODS,
    SEARCH,
    SERVICES,
    STREAM_SEARCH,
    WRITES,
    Method,
)
from ..http_calls import HttpCalls
from ..http_face import http_app
from ..logs import configure_logging
from ..operations import Operations
from ..registry import Registry
from ..registry_metrics import index_metrics
from ..service import Service
from ..settings import Settings
from ..streams import stream_search
from ..telemetry import CallRecord, current, telemetry_for, telling_peers
from ..update_methods import REMOVE, UPSERT
from ..workers import Workers, multiply_on_one_thread, spare_what_is_loaded, take_short_turns
from .admin import Admin
from .app import HotApp, Streaming, Unary
from .asgi import Application, Receive, Scope, Send
from .calls import Watch
from .http import HotHttp
from .http3 import HandedOver
from .search import Searcher
from .standard import HEALTH_SERVICE, REFLECTION_SERVICES, Health, Reflection
from .stream import StreamSearches
from .updates import Updater

__all__ = ["ENVIRONMENT", "app", "http3"]

log = logging.getLogger(__name__)

ENVIRONMENT = "EARSHOT_HOT"
DRAIN_SECONDS = 30.0
END_SECONDS = 2.0  # for telling those that still run


class _Limits(TypedDict):
    max_message_bytes: int
    max_answer_bytes: int


class _Server:
    """The parts of a running server, and how it ends."""

    def __init__(self, settings: Settings, admin: Admin) -> None:
        self._admin = admin
        embedders = Embedders(settings.cache_dir)
        store = Store(settings.data_dir, cache_dir=settings.cache_dir)
        self.registry = Registry(
            store, poll_seconds=settings.poll_seconds, journal=settings.journal, embedders=embedders
        )
        self.operations = Operations(
            settings.data_dir,
            settings.cache_dir,
            allowed=settings.rebuild_sources,
            journal=settings.journal,
            ended=self.registry.look_at,
        )
        service = Service(self.registry, embedders, self.operations, workers=settings.workers)
        threads = settings.threads_of_a_worker
        self.compactor = Compactor(self.registry, settings)
        self.registry.on_short_recall = self.compactor.ask
        take_short_turns()
        multiply_on_one_thread()
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="earshot")
        self.engine = ThreadPoolExecutor(threads, thread_name_prefix="earshot-engine")
        self.telemetry = telemetry_for(settings)
        self.telemetry.metrics.add(partial(index_metrics, self.registry))
        self.telemetry.metrics.add(self.compactor.metrics)
        workers = Workers(self.executor, threads=threads, max_queue=settings.max_queue)
        self.telemetry.metrics.queues["worker"] = lambda: {"": workers.waiting}
        searcher = Searcher(
            service,
            workers,
            self.telemetry.metrics,
            self.executor,
            self.engine,
            threads=threads,
            max_queue=settings.max_queue,
            p99_seconds=settings.p99_seconds,
        )
        self.health = Health(SERVICES)

        async def search_stream(
            requests: AsyncIterator[Sequence[bytes]], stream: CallRecord
        ) -> AsyncGenerator[Sequence[bytes]]:
            searches = StreamSearches(searcher, self.telemetry, admission_of_call(), stream)
            try:
                async with aclosing(
                    stream_search(requests, searches.search, settings.max_answer_bytes)
                ) as bundles:
                    async for answers in bundles:
                        yield answers
            finally:
                searches.cancel()

        unary: dict[str, Unary] = {
            path: _off_loop(workers.write if path in WRITES else workers.run, service, method)
            for path, method in METHODS.items()
        }
        unary[SEARCH] = searcher.search_message
        unary[BATCH_SEARCH] = searcher.batch_search_message
        updater = Updater(service, workers, max_queue=settings.max_queue)
        unary[UPSERT] = updater.upsert_message
        unary[REMOVE] = updater.remove_message
        unary[f"/{HEALTH_SERVICE}/Check"] = self.health.check
        unary[f"/{HEALTH_SERVICE}/List"] = self.health.list
        reflection = Reflection((*SERVICES, HEALTH_SERVICE, REFLECTION_SERVICES[1]))
        streaming: dict[str, Streaming] = {
            f"/{name}/ServerReflectionInfo": reflection.info for name in REFLECTION_SERVICES
        }
        streaming[f"/{HEALTH_SERVICE}/Watch"] = self.health.watch
        streaming[STREAM_SEARCH] = search_stream
        limits = _Limits(
            max_message_bytes=settings.max_message_bytes, max_answer_bytes=settings.max_answer_bytes
        )
        guard = Guard(settings.tokens_path, shares=settings.workers)
        http = http_app(service, workers, self.telemetry.metrics, **limits)
        self.calls = Watch()
        shared = self.telemetry, guard, self.calls
        calls = HttpCalls(http, self.telemetry, guard)
        self.http = HotHttp(searcher, calls, *shared, **limits)
        self.app = HotApp(unary, streaming, self.http, *shared, **limits)

    async def drain(self) -> None:
        """Says NOT_SERVING, takes no new connections, lets requests finish, then ends the process."""
        log.info("draining: running requests finish, new ones are refused")
        self.health.shut_down()
        self.http.is_draining = True
        try:
            if not await asyncio.to_thread(self._admin.drain, DRAIN_SECONDS):
                log.warning("clients stayed for %.0f seconds; their calls are ended", DRAIN_SECONDS)
                self.calls.end_all(Unavailable("the server is shutting down"))
                await asyncio.to_thread(self._admin.wait_for_requests, END_SECONDS)
        except OSError:
            log.exception("the drain failed; the process ends now")
        os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """Ends the threads."""
        self.operations.stop()
        self.compactor.stop()
        self.registry.stop()
        self.telemetry.close()
        self.engine.shutdown()
        self.executor.shutdown()


def _off_loop(run: Callable[..., Awaitable[bytes]], service: Service, method: Method) -> Unary:
    async def call(data: bytes, record: CallRecord) -> bytes:
        with current(record):
            return await run(method, service, data)

    return call


class _Entry:
    def __init__(self) -> None:
        self._app: Application | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            assert scope["type"] == "lifespan"
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        told: dict[str, Any] = json.loads(os.environ[ENVIRONMENT])
        settings = Settings(**told["settings"])
        configure_logging(settings)
        server = _Server(settings, Admin(told["admin"]))
        spare_what_is_loaded()
        await asyncio.to_thread(server.registry.start)
        server.compactor.start()
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []  # asyncio itself keeps only weak references

        def supervisor_closed_the_pipe() -> None:
            loop.remove_reader(told["pipe"])
            draining.append(loop.create_task(server.drain()))

        loop.add_reader(told["pipe"], supervisor_closed_the_pipe)
        self._app = server.app
        http3.home = loop
        async with telling_peers(server.telemetry.metrics):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await loop.run_in_executor(None, partial(server.close))
        await send({"type": "lifespan.shutdown.complete"})


app = _Entry()
http3 = HandedOver(app)
