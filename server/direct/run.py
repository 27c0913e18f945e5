"""Runs the service with our own listener, in this process and its one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial

from earshot.errors import Unavailable

from ..auth import check_exposure
from ..hot.server import HotServer
from ..renewal import when_renewed
from ..run import DRAIN_SECONDS, Addresses, listen, serve_in_this_process
from ..settings import Settings
from ..telemetry import telling_peers
from ..tls import check_tls, tls_context
from .listener import Listener

__all__ = ["loop_factory", "running_direct", "serve_direct"]

log = logging.getLogger(__name__)

NOTICE_SECONDS = 0.5
END_SECONDS = 2.0  # for telling those whose calls are ended


@contextlib.asynccontextmanager
async def running_direct(settings: Settings) -> AsyncIterator[Addresses]:
    """The server, listening from enter to exit on `settings.port`; on exit running requests finish.

    Raises Unavailable, naming the port, where it is in use.
    """
    check_tls(settings)
    check_exposure(settings)
    with contextlib.closing(listen(settings.host, settings.port, shared=settings.workers > 1)) as bound:
        server = HotServer(settings.model_copy(update={"transport": "direct"}))
        listener = Listener(server.app, server.whole)
        context = tls_context(settings, ["h2", "http/1.1"])
        try:
            await server.start()
            await listener.start(bound, context)
            port = bound.getsockname()[1]

            def renew() -> None:
                if context is not None and context.renew():
                    listener.turn_over(NOTICE_SECONDS, DRAIN_SECONDS)

            renewing = asyncio.create_task(when_renewed(settings, renew))
            try:
                async with telling_peers(server.telemetry.metrics):
                    yield Addresses.of(settings, grpc_port=port, http_port=port)
            finally:
                renewing.cancel()
                await _drain(server, listener)
        finally:
            await listener.stop()
            await asyncio.get_running_loop().run_in_executor(None, partial(server.close))


async def _drain(server: HotServer, listener: Listener) -> None:
    server.say_goodbye()
    if await listener.drain(NOTICE_SECONDS, DRAIN_SECONDS):
        return
    log.warning("clients stayed for %.0f seconds; their calls are ended", DRAIN_SECONDS)
    server.calls.end_all(Unavailable("the server is shutting down"))
    await listener.drain(0, END_SECONDS)


def serve_direct(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is called once with the addresses. Then drains and returns."""
    serve_in_this_process(running_direct(settings), ready=ready, loop_factory=loop_factory())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's loop, which asks the kernel for less; None, for Python's own, where it does not run."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop
