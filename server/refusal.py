"""Before a refusal over HTTP: a small body that is on its way is let in and forgotten.

An answer that overtakes the body makes servers reset the stream, or close a connection with unread bytes, and
some clients then report the reset and not the answer. What is large is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

__all__ = ["forget_body"]

SMALL_BYTES = 64 << 10
PATIENCE_SECONDS = 1.0

_BODYLESS = ("GET", "HEAD")


async def forget_body(
    verb: str, headers: Mapping[bytes, bytes], receive: Callable[[], Awaitable[MutableMapping[str, Any]]]
) -> None:
    """Reads the body of a request that will be refused, if it is small. `receive` may be cancelled."""
    announced = headers.get(b"content-length", b"")
    if verb in _BODYLESS or (announced.isdigit() and int(announced) > SMALL_BYTES):
        return
    left, is_over = SMALL_BYTES, False
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while left > 0 and not is_over:
                message = await receive()
                left -= len(message.get("body", b""))
                is_over = not message.get("more_body", False)
    except TimeoutError:
        return
