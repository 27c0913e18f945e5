"""Several workers behind one port: started together, replaced when they die, drained together.

The kernel deals connections out among them (SO_REUSEPORT): a client with one connection talks to one
worker. What they map of an index's files lies in memory once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from earshot.errors import EarshotError, Unavailable

from .auth import check_exposure
from .run import DRAIN_SECONDS, Addresses, listen
from .settings import Settings
from .telemetry import PEERS
from .tls import check_tls

__all__ = ["Start", "supervise"]

log = logging.getLogger(__name__)

Worker = tuple[asyncio.subprocess.Process, Addresses]
Start = Callable[[Settings], AbstractAsyncContextManager[Worker]]
"""Starts a worker: it listens from the start of the block, and has drained at its end."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
LONGEST_TURN_SECONDS = 3.0  # of a worker that drains, until the next one begins to
WELL_AFTER_SECONDS = 60.0  # a worker that ran for so long did not die of how it was started


def supervise(settings: Settings, start: Start, *, ready: Callable[[Addresses], None]) -> None:
    """Runs `settings.workers` workers until SIGTERM or SIGINT; `ready` is called once, when all listen.

    Raises Unavailable where somebody else uses a port, and whatever keeps the first workers from starting.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        with _reserved(settings) as shared:
            begun = [loop.create_future() for _ in range(settings.workers)]
            ends = [asyncio.Event() for _ in begun]
            keepers = [
                asyncio.create_task(_keep(number, shared, start, end, future))
                for number, (end, future) in enumerate(zip(ends, begun, strict=True), 1)
            ]
            try:
                addresses = await asyncio.gather(*begun)
                ready(addresses[0])
                await stop.wait()
                log.info("draining all %d workers", settings.workers)
                # Clients that one worker sends away connect to another, which must not be leaving itself:
                # what reaches gRPC as it stops is now and then not answered at all.
                for end, keeper in zip(ends, keepers, strict=True):
                    end.set()
                    await asyncio.wait({keeper}, timeout=min(LONGEST_TURN_SECONDS, DRAIN_SECONDS / len(ends)))
            finally:
                for end in ends:
                    end.set()
                await asyncio.gather(*keepers, *begun, return_exceptions=True)

    check_tls(settings)
    check_exposure(settings)
    asyncio.run(main())


async def _keep(
    number: int, settings: Settings, start: Start, stop: asyncio.Event, begun: asyncio.Future[Addresses]
) -> None:
    """Keeps a worker alive until `stop`.

    What fails at the first start goes to `begun`; later it is tried again.
    """
    pause = FIRST_PAUSE_SECONDS
    while not stop.is_set():
        started = time.monotonic()
        try:
            async with start(settings) as (process, addresses):
                if not begun.done():
                    begun.set_result(addresses)
                await _either(process.wait(), stop.wait())
            if stop.is_set():
                return
            reason = f"ended with code {process.returncode}"
        except EarshotError as error:
            if not begun.done():
                begun.set_exception(error)
                return
            reason = error.message
        has_run_well = time.monotonic() - started > WELL_AFTER_SECONDS
        pause = FIRST_PAUSE_SECONDS if has_run_well else min(2 * pause, LONGEST_PAUSE_SECONDS)
        log.error("worker %d: %s; another starts in %.1f s", number, reason, pause)
        await _either(stop.wait(), asyncio.sleep(pause))
    if not begun.done():
        begun.set_exception(Unavailable("the server was told to stop while it started"))


async def _either(*waits: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


@contextlib.contextmanager
def _reserved(settings: Settings) -> Iterator[Settings]:
    """Ports that are ours alone, for the workers to share; with the numbers really taken."""
    names = ("port", "grpc_port") if settings.transport == "portable" else ("port",)
    with contextlib.ExitStack() as stack:
        taken = {}
        for name in names:
            with listen(settings.host, getattr(settings, name)) as alone:  # fails where anybody listens
                number = alone.getsockname()[1]
            # Bound and not listening, it keeps the number and is given no connection.
            stack.enter_context(listen(settings.host, number, shared=True))
            taken[name] = number
        os.environ[PEERS] = stack.enter_context(tempfile.TemporaryDirectory(prefix="earshot-"))
        stack.callback(os.environ.pop, PEERS)
        yield settings.model_copy(update=taken)
