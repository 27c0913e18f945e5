"""The words of ASGI, and channels on which giving up waiting is safe.

Some servers resolve what `receive()` and `send()` returned even after the waiting task was cancelled,
which asyncio reports as InvalidStateError; so nothing here ever cancels one of those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

__all__ = [
    "Application",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "forget_frames",
    "patient_receive",
    "patient_send",
    "uncancelled",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

T = TypeVar("T")

POLL_SECONDS = 0.1


async def uncancelled(awaitable: Awaitable[T]) -> T:
    """Waits for it; where the waiting task is cancelled, it runs on and its outcome is dropped."""
    future = asyncio.ensure_future(awaitable)
    future.add_done_callback(_look)
    return await asyncio.shield(future)


def patient_receive(receive: Receive) -> Receive:
    """`receive` that may be cancelled, and that after the body waits for the disconnect, as ASGI asks.

    pyvoy answers at once there, with an empty body, which makes a listener spin.
    """
    ended = False

    async def receive_patiently() -> Message:
        nonlocal ended
        while True:
            message = await uncancelled(receive())
            if message["type"] != "http.request":
                return message
            if not ended:
                ended = not message.get("more_body", False)
                return message
            await asyncio.sleep(POLL_SECONDS)

    return receive_patiently


def patient_send(send: Send) -> Send:
    """`send` that may be cancelled, and to which a vanished client is no error."""

    async def send_patiently(message: Message) -> None:
        try:
            await uncancelled(send(message))
        except OSError as error:  # ASGI: the client is gone, `receive` says so too
            forget_frames(error)

    return send_patiently


def forget_frames(error: BaseException) -> None:
    """Let go of what an error that is done with knows of where it was raised.

    pyvoy has one object for all clients that are gone, and each raise adds to its traceback: that kept the
    frames and futures of every such call, 11 KB of each.
    """
    error.__traceback__ = None


def _look(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()  # otherwise asyncio logs that nobody looked at it
