"""The port: connections come in, their first bytes say which HTTP they speak, and in the end all go."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal, Protocol

from ..hot.asgi import Application
from ..hot.whole import WholeSearches
from .frames import PREFACE
from .http1 import Http1Connection
from .http2 import Http2Connection
from .served import Served

__all__ = ["Listener"]

LOOK_SECONDS = 1.0
IDLE_SECONDS = 3600.0  # health watchers may hear nothing for long
SILENT_SECONDS = 10.0
LAST_SECONDS = 0.5  # for the first request of a connection that was made just before the port closed
BACKLOG = 2048
TELLING = 4  # bytes that tell HTTP/2's preface from a request of HTTP/1


class Connection(Protocol):
    """What a listener does with a connection, whatever it speaks."""

    def look(self, now: float, idle_seconds: float) -> None:
        """End it where its client takes too long."""

    def leave(self) -> None:
        """Ask the client to go."""

    def close(self) -> None:
        """Close it once what was asked is answered."""

    def abort(self) -> None:
        """End it now."""


class Listener:
    """Serves an application, and `whole` where that is quicker, to whoever connects. Of one event loop."""

    def __init__(self, app: Application, whole: WholeSearches | None = None) -> None:
        self._app = app
        self._whole = whole
        self._connections: set[Connection] = set()
        self._stale: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._is_leaving = False

    def __len__(self) -> int:
        return len(self._connections)

    async def start(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Listens on a bound socket."""
        loop = asyncio.get_running_loop()
        served = Served(self._app, self._whole, "http" if tls is None else "https")
        self._server = await loop.create_server(
            lambda: _Silent(served, self._replace),
            sock=bound,
            ssl=tls,
            backlog=BACKLOG,
        )
        self._looking = loop.call_later(LOOK_SECONDS, self._look)

    def turn_over(self, notice_seconds: float, seconds: float) -> None:
        """Has all who are connected come anew: told now, closed after the notice, ended at last."""
        loop = asyncio.get_running_loop()
        self._stale |= self._connections
        for connection in list(self._stale):
            connection.leave()
        loop.call_later(notice_seconds, self._end_stale, "close")
        loop.call_later(seconds, self._end_stale, "abort")

    async def drain(self, notice_seconds: float, seconds: float) -> bool:
        """Lets all clients go; returns whether they went by themselves.

        They are told at once, and the port closes after the notice: who connects in the meantime is served.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        self._is_leaving = True
        for connection in list(self._connections):
            connection.leave()
        await asyncio.sleep(notice_seconds)
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        while self._connections and loop.time() < end:
            await asyncio.sleep(0.01)
        return not self._connections

    async def stop(self) -> None:
        """Ends what is left."""
        if self._looking is not None:
            self._looking.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        while self._connections:
            await asyncio.sleep(0)

    def _replace(self, before: Connection | None, after: Connection | None) -> None:
        """A connection came, was found to speak some HTTP, or went."""
        is_stale = before in self._stale
        if before is not None:
            self._connections.discard(before)
            self._stale.discard(before)
        if after is not None:
            self._connections.add(after)
            if is_stale:
                self._stale.add(after)
            if self._is_leaving or is_stale:
                after.leave()

    def _end_stale(self, how: Literal["close", "abort"]) -> None:
        for connection in list(self._stale):
            getattr(connection, how)()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            connection.look(now, IDLE_SECONDS)
        self._looking = loop.call_later(LOOK_SECONDS, self._look)


class _Silent(asyncio.Protocol):
    """A client that has not said enough yet to know what it speaks."""

    def __init__(
        self,
        served: Served,
        replace: Callable[[Connection | None, Connection | None], None],
    ) -> None:
        self._served, self._replace = served, replace
        self._since = asyncio.get_running_loop().time()
        self._first = b""
        self._transport: Any = None
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._replace(None, self)

    def data_received(self, data: bytes) -> None:
        self._first += data
        is_http2 = self._first[:TELLING] == PREFACE[: len(self._first[:TELLING])]
        if is_http2 and len(self._first) < TELLING:
            return
        kind, replace = Http2Connection if is_http2 else Http1Connection, self._replace
        connection = kind(self._served, lambda gone: replace(gone, None))
        self._transport.set_protocol(connection)
        connection.connection_made(self._transport)
        self._replace(self, connection)
        connection.data_received(self._first)
        if self._closing is not None:
            self._closing.cancel()
            connection.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._replace(self, None)

    def look(self, now: float, idle_seconds: float) -> None:
        if now - self._since > SILENT_SECONDS:
            self.abort()

    def leave(self) -> None: ...

    def close(self) -> None:
        # Its first request may be on its way, and it was not told to go elsewhere.
        if self._closing is None:
            self._closing = asyncio.get_running_loop().call_later(LAST_SECONDS, self._transport.close)

    def abort(self) -> None:
        self._transport.abort()
