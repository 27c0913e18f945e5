"""Searches that demand to see an update: they wait while it may be on its way, and then say so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from earshot.errors import Aborted
from earshot.index.live import LiveIndex

__all__ = ["NotYetVisible", "check_visible", "when_visible"]

T = TypeVar("T")

MAX_WAIT_SECONDS = 10.0
_ANSWER_SECONDS = 0.05  # before the deadline, so that the caller hears why
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class NotYetVisible(Aborted):
    """A request demands an update that this server has not seen; it may be on its way."""


def check_visible(index: LiveIndex, sequence: int) -> None:
    """Raises NotYetVisible where searches do not see an update yet."""
    if sequence > index.sequence:
        raise NotYetVisible(
            f"min_sequence is {sequence}; this server has seen updates up to {index.sequence}",
            field="min_sequence",
        )


async def when_visible(call: Callable[[], Awaitable[T]], deadline: float | None) -> T:
    """What `call` returns once it raises NotYetVisible no more.

    Args:
        call: May be called many times.
        deadline: A `time.monotonic()`; None for `MAX_WAIT_SECONDS` from now, which is the longest anyway.

    Raises:
        NotYetVisible: The time was not enough.
    """
    give_up, pause = 0.0, _FIRST_PAUSE
    while True:
        try:
            return await call()
        except NotYetVisible:
            now = time.monotonic()
            if not give_up:
                give_up = min(now + MAX_WAIT_SECONDS, (deadline or now + MAX_WAIT_SECONDS) - _ANSWER_SECONDS)
            if now + pause >= give_up:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
