"""What runs inside Envoy's process: `app` puts the service together at start and drains it at the end.

It drains when the supervisor asks by closing its end of a pipe, which also happens when it dies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from functools import partial
from typing import Any

from earshot.errors import Unavailable

from ..hot.asgi import Application, Receive, Scope, Send
from ..hot.server import HotServer
from ..logs import configure_logging
from ..run import DRAIN_SECONDS
from ..settings import Settings
from ..telemetry import telling_peers
from ..workers import spare_what_is_loaded
from .admin import Admin
from .http3 import HandedOver

__all__ = ["ENVIRONMENT", "app", "http3"]

log = logging.getLogger(__name__)

ENVIRONMENT = "EARSHOT_HOT"
END_SECONDS = 2.0  # for telling those that still run


async def _drain(server: HotServer, admin: Admin) -> None:
    """Says NOT_SERVING, takes no new connections, lets requests finish, then ends the process."""
    log.info("draining: running requests finish, new ones are refused")
    server.say_goodbye()
    try:
        if not await asyncio.to_thread(admin.drain, DRAIN_SECONDS):
            log.warning("clients stayed for %.0f seconds; their calls are ended", DRAIN_SECONDS)
            server.calls.end_all(Unavailable("the server is shutting down"))
            await asyncio.to_thread(admin.wait_for_requests, END_SECONDS)
    except OSError:
        log.exception("the drain failed; the process ends now")
    os.kill(os.getpid(), signal.SIGTERM)


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
        server = HotServer(settings)
        spare_what_is_loaded()
        await server.start()
        loop = asyncio.get_running_loop()
        draining: list[asyncio.Task[None]] = []  # asyncio itself keeps only weak references

        def supervisor_closed_the_pipe() -> None:
            loop.remove_reader(told["pipe"])
            draining.append(loop.create_task(_drain(server, Admin(told["admin"]))))

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
