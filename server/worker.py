"""One worker of several: a server in a process of its own, which goes when its supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from earshot.errors import EarshotError, Internal, from_code

from .direct import loop_factory, running_direct
from .logs import configure_logging
from .run import Addresses, ended, running, serve_until
from .settings import Settings

__all__ = ["main", "worker_process"]

ENVIRONMENT = "EARSHOT_WORKER"


@contextlib.asynccontextmanager
async def worker_process(
    settings: Settings,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Addresses]]:
    """A direct or portable server in a child process. Raises what the child says keeps it from starting."""
    ours, theirs = os.pipe()[::-1]
    told = {"settings": settings.model_dump(mode="json"), "pipe": theirs}
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from earshot.server.worker import main; main()"),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, ENVIRONMENT: json.dumps(told)},
            pass_fds=(theirs,),
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on as a drain
        )
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    try:
        assert process.stdout is not None
        said: dict[str, str] = json.loads(await process.stdout.readline() or b"{}")
        if "error" in said:
            raise from_code(said["error"], said["message"])
        if not said:
            raise Internal("a worker ended while it started; the log has the cause")
        yield process, Addresses(**said)
    finally:
        os.close(ours)
        await ended(process, "a worker")


async def _serve(settings: Settings, pipe: int) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def supervisor_closed_the_pipe() -> None:
        loop.remove_reader(pipe)
        stop.set()

    loop.add_reader(pipe, supervisor_closed_the_pipe)
    server = (running_direct if settings.transport == "direct" else running)(settings)
    await serve_until(stop, server, lambda addresses: _say(dataclasses.asdict(addresses)))


def _say(what: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the supervisor has ended, and what it held open tells us to
        os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


def main() -> None:
    """What runs in the child."""
    told = json.loads(os.environ.pop(ENVIRONMENT))
    settings = Settings(**told["settings"])
    configure_logging(settings)
    try:
        factory = loop_factory() if settings.transport == "direct" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(_serve(settings, told["pipe"]))
    except EarshotError as error:
        _say({"error": error.code, "message": error.message})
        sys.exit(1)
