"""The service, the ASGI application over it, and the threads that work for both, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import TypedDict

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
from ..operations import Operations
from ..registry import Registry
from ..registry_metrics import index_metrics
from ..service import Service
from ..settings import Settings
from ..streams import stream_search
from ..telemetry import CallRecord, current, telemetry_for
from ..update_methods import REMOVE, UPSERT
from ..workers import Workers, multiply_on_one_thread, take_short_turns
from .app import HotApp, Streaming, Unary
from .calls import Watch
from .http import HotHttp
from .search import Searcher
from .standard import HEALTH_SERVICE, REFLECTION_SERVICES, Health, Reflection
from .stream import StreamSearches
from .updates import Updater
from .whole import WholeSearches

__all__ = ["HotServer"]


class _Limits(TypedDict):
    max_message_bytes: int
    max_answer_bytes: int


class HotServer:
    """The parts of a running server, whatever listens for it. Belongs to one event loop.

    Attributes:
        app: Answers every call.
        whole: Answers, for listeners that can ask it, searches that came in one piece.
        calls: Those that are being answered.
    """

    def __init__(self, settings: Settings) -> None:
        embedders = Embedders(settings.cache_dir)
        store = Store(settings.data_dir, cache_dir=settings.cache_dir)
        self.registry = Registry(
            store,
            poll_seconds=settings.poll_seconds,
            journal=settings.journal,
            embedders=embedders,
            shared=settings.workers > 1,
        )
        self.operations = Operations(
            settings.data_dir,
            settings.cache_dir,
            allowed=settings.rebuild_sources,
            journal=settings.journal,
            ended=self.registry.look_at,
        )
        service = Service(self.registry, embedders, self.operations)
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
        self.whole = WholeSearches(searcher, *shared, **limits)

    async def start(self) -> None:
        """Opens the indexes, and begins what happens in the background."""
        await asyncio.to_thread(self.registry.start)
        self.compactor.start()

    def say_goodbye(self) -> None:
        """From now on whoever asks after the server's health hears that it is about to go."""
        self.health.shut_down()
        self.http.is_draining = True

    def close(self) -> None:
        """Ends what happens in the background, and the threads; waits for them."""
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
