"""The end of a connection: what was said still arrives, unless its reader has stopped reading."""

from __future__ import annotations

import asyncio

__all__ = ["Closing"]

STALLED_SECONDS = 30.0


class Closing:
    """Watches a connection that is closed once everything is sent."""

    def __init__(self) -> None:
        self._left = -1
        self._since = 0.0

    def look(self, transport: asyncio.Transport, now: float) -> None:
        """Called now and then; ends it where nothing more went for a while."""
        left = transport.get_write_buffer_size()
        if left != self._left:
            self._left, self._since = left, now
        elif now - self._since > STALLED_SECONDS:
            transport.abort()
