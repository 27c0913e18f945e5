"""HTTP/3: the application once more, which hands each call to the loop that owns the service.

pyvoy starts an application for every listener, in a thread with an event loop of its own, and QUIC is a
listener of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from ..hot.asgi import Application, Message, Receive, Scope, Send

__all__ = ["HandedOver"]

Result = TypeVar("Result")


class HandedOver:
    """Runs `app` in the loop `home` for whoever calls it in another."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self.home: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, as ASGI has it: receives and sends in this loop, and all else at home."""
        here = asyncio.get_running_loop()
        assert self.home is not None

        async def receive_here() -> Message:
            return await _run_in(here, receive)

        async def send_here(message: Message) -> None:
            await _run_in(here, partial(send, message))

        await _run_in(self.home, partial(self._app, scope, receive_here, send_here))


async def _run_in(loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[Result]]) -> Result:
    """What `call` returns or raises when called and awaited in `loop`; once begun it is not cancelled.

    Raises OSError, as ASGI has it for who is gone, where the loop has ended.
    """

    async def run() -> Result:
        return await call()

    running = run()
    try:
        future = asyncio.run_coroutine_threadsafe(running, loop)
    except RuntimeError as error:
        running.close()
        raise OSError("the other end of the call is closed") from error
    return await asyncio.shield(asyncio.wrap_future(future))
