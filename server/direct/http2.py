"""HTTP/2 on the event loop: frames in, ASGI calls out, and what they answer as frames. Source: RFC 9113.

What a turn of the loop brings is read together, and what it has to say leaves in one piece. Limits stand
where a peer could make us keep or do more than it sends: headers, windows, streams, resets, pings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from ..auth.bucket import Bucket
from ..hot.asgi import forget_frames
from ..limits import MAX_HEADER_BYTES
from .closing import Closing
from .frame_reader import FrameReader
from .frames import (
    ACK,
    DATA,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFault,
    Error,
    StreamFault,
    frame,
    goaway,
    reset,
    setting,
    settings,
    unpadded,
    window_update,
)
from .header_blocks import MAX_BLOCK_BYTES, HeaderReader
from .heads import Head
from .refusals import refusal
from .served import HEAD_SECONDS, Served
from .stream import STREAM_WINDOW, Stream

__all__ = ["Http2Connection"]

log = logging.getLogger(__name__)

MAX_STREAMS = 100
"""At a time; more wait in the client, where they cost us nothing, and fewer RFC 9113 advises against."""
MAX_RUNNING = 2 * MAX_STREAMS
"""Calls of one connection that are not over, those included that the client has given up."""
CONNECTION_WINDOW = 16 << 20
RESETS_A_SECOND, BURST_OF_RESETS = 33.0, 1_000
"""By a client; more look like a flood (CVE-2023-44487). The numbers are nghttp2's."""


class Http2Connection(asyncio.Protocol):
    """One connection, from its preface on.

    Args:
        served: Who is called for each request.
        lost: Called with the connection when it is no more.

    Attributes:
        window: Bytes that the peer will still take, of all streams together.
        is_full: The socket takes no more for now.
        touched: When something came last, by the loop's clock.
    """

    def __init__(self, served: Served, lost: Callable[[Http2Connection], None]) -> None:
        self._served, self._lost = served, lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader(MAX_BLOCK_BYTES)
        self._headers = HeaderReader(served.scheme)
        self._streams: dict[int, Stream] = {}
        self._begun: list[Stream] = []  # with what was read last
        self._running: set[Stream] = set()  # those whose call is not over
        self._waiting: dict[int, Stream] = {}  # for a window
        self._out: list[bytes] = []
        self._last = 0
        self._peer_window = INITIAL_WINDOW
        self._credit = CONNECTION_WINDOW
        self._consumed = 0
        self._resets = Bucket(RESETS_A_SECOND, BURST_OF_RESETS)
        self._is_leaving = self._is_ending = False
        self._closing = Closing()
        self.window = INITIAL_WINDOW
        self.is_full = False
        self.touched = self._loop.time()

    @property
    def running(self) -> int:
        """How many calls are not over."""
        return len(self._running)

    # The loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what we take."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        told = (
            setting(MAX_CONCURRENT_STREAMS, MAX_STREAMS),
            setting(INITIAL_WINDOW_SIZE, STREAM_WINDOW),
            setting(MAX_HEADER_LIST_SIZE, MAX_HEADER_BYTES),
        )
        self.write(frame(SETTINGS, 0, 0, b"".join(told)))
        self.write(window_update(0, CONNECTION_WINDOW - INITIAL_WINDOW))

    def data_received(self, data: bytes) -> None:
        """Reads whole frames; what is left waits for its rest."""
        self.touched = self._loop.time()
        if self._is_ending:
            return
        try:
            for kind, flags, number, payload in self._frames.frames(data, self.touched):
                # What is unknown is passed over, as section 4.1 asks, and so are PRIORITY and GOAWAY.
                if (on_frame := _ON.get(kind)) is not None:
                    on_frame(self, number, flags, payload)
            self._call_begun()
        except ConnectionFault as fault:
            log.debug("a connection is ended: %s", fault.reason)
            self._end(fault.code, fault.reason)

    def connection_lost(self, error: Exception | None) -> None:
        """All requests are given up."""
        self._is_ending = True
        self._transport = None
        for stream in list(self._streams.values()):
            stream.lose()
        self._streams.clear()
        self._waiting.clear()
        self._lost(self)

    def pause_writing(self) -> None:
        """The socket is full."""
        self.is_full = True
        # Who does not read what was asked for asks no more: answers would heap up here.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It takes more."""
        self.is_full = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        for stream in list(self._streams.values()):
            stream.can_write()

    # The listener tells

    def look(self, now: float, idle_seconds: float) -> None:
        """Ends a connection on which a head does not become whole, or nothing happens for long."""
        began = self._frames.block_since
        if self._is_ending:
            if self._transport is not None:
                self._closing.look(self._transport, now)
        elif began is not None and now - began > HEAD_SECONDS:
            self._end(Error.ENHANCE_YOUR_CALM, "headers did not become whole")
        elif not self._frames.has_preface and now - self.touched > HEAD_SECONDS:
            self._end(Error.PROTOCOL_ERROR, "there is no preface")
        elif now - self.touched > idle_seconds:
            self._end(Error.NO_ERROR, "idle")

    def leave(self) -> None:
        """Asks the client to go; requests that are on their way are still answered.

        Not one that has just come: told before its first request it would take that for a failure.
        """
        if self._last:
            self.write(goaway(MAX_WINDOW, Error.NO_ERROR))

    def close(self) -> None:
        """Takes no more requests, and closes once those that are here are answered."""
        if not self._is_leaving:
            self._is_leaving = True
            self.write(goaway(self._last, Error.NO_ERROR))
            self._close_when_done()

    def abort(self) -> None:
        """Ends now."""
        if self._transport is not None:
            self._transport.abort()

    # Streams tell

    def write(self, data: bytes) -> None:
        """Leaves with all else that this turn of the loop has to say."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def consumed(self, count: int) -> None:
        """So many bytes of bodies are read, and the peer may send as many more."""
        self._consumed += count
        if 2 * self._consumed >= CONNECTION_WINDOW:
            self._credit += self._consumed
            self.write(window_update(0, self._consumed))
            self._consumed = 0

    def wait(self, stream: Stream) -> None:
        """This stream has more to send than its window, or ours, allows."""
        self._waiting[stream.number] = stream

    def forget(self, stream: Stream) -> None:
        """Its answer is complete."""
        if self._streams.pop(stream.number, None) is not None:
            self._waiting.pop(stream.number, None)
            if not stream.has_ended:
                # It still sends what nobody reads any more; RFC 9113, section 8.1.
                self.write(reset(stream.number, Error.NO_ERROR))
            stream.lose()
            if self._is_leaving:
                self._close_when_done()

    # Frames

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._credit -= size
        if number > self._last:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "data of a stream that was not begun")
        if self._credit < 0:
            raise ConnectionFault(Error.FLOW_CONTROL_ERROR, "more data than the window allows")
        if flags & PADDED:
            payload = unpadded(payload, flags)
            self.consumed(size - len(payload))
        stream = self._streams.get(number)
        if stream is None:  # reset, or answered: what the client did not know when it sent this
            self.consumed(len(payload))
        elif code := stream.take(payload, size, is_last=bool(flags & END_STREAM)):
            self.consumed(len(payload))
            self._refuse(stream, code)

    def _on_headers(self, number: int, flags: int, block: bytes) -> None:
        if not number & 1:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if number <= self._last:
            self._headers.skip(block)
            stream = self._streams.get(number)
            if stream is not None:
                if not flags & END_STREAM or stream.has_ended or stream.expected:
                    self._refuse(stream, Error.PROTOCOL_ERROR)
                else:
                    stream.end()  # with trailers, of which none means anything to us
            return
        self._last = number
        if self._is_leaving:
            self._headers.skip(block)
            return
        try:
            head = self._headers.head(block)
        except StreamFault as fault:
            self.write(reset(number, fault.code))
            return
        if len(self._streams) >= MAX_STREAMS or len(self._running) >= MAX_RUNNING:
            self.write(reset(number, Error.REFUSED_STREAM))
        else:
            self._begin(number, head, is_whole=bool(flags & END_STREAM))

    def _begin(self, number: int, head: Head, *, is_whole: bool) -> None:
        stream = Stream(self, number, self._peer_window, head)
        self._streams[number] = stream
        if is_whole:
            stream.end()
        if head.problem is not None:
            stream.refuse(*refusal(head.problem, head.headers))
            return
        if head.length is not None and (head.length < 0 or (stream.has_ended and head.length)):
            self._refuse(stream, Error.PROTOCOL_ERROR)
            return
        self._begun.append(stream)

    def _call_begun(self) -> None:
        """Only now, for what has come whole may go without a task."""
        begun, self._begun = self._begun, []
        for stream in begun:
            if stream.is_gone or stream.begin(self._served.whole):
                continue
            stream.task = self._loop.create_task(self._call(stream))
            self._running.add(stream)

    async def _call(self, stream: Stream) -> None:
        try:
            await self._served.app(stream.scope(), stream.receive, stream.send)
        except OSError as error:  # the client is gone
            forget_frames(error)
        except Exception:
            log.exception("a call failed in a way that was not foreseen")
        finally:
            self._running.discard(stream)
            if not stream.has_answered and not stream.is_gone:
                if stream.has_started:
                    self._refuse(stream, Error.INTERNAL_ERROR)
                else:
                    stream.refuse(500, [(b"content-type", b"text/plain")], b"internal error")

    def _on_reset(self, number: int, flags: int, payload: bytes) -> None:
        if number > self._last:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "a stream is reset that was not begun")
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        self._waiting.pop(number, None)
        stream.lose()
        if self._resets.take(self.touched):
            raise ConnectionFault(Error.ENHANCE_YOUR_CALM, "too many resets")
        if self._is_leaving:
            self._close_when_done()

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:
        if flags & ACK:
            if payload:
                raise ConnectionFault(Error.FRAME_SIZE_ERROR, "an answer to SETTINGS is empty")
            return
        for name, value in settings(payload):
            if name == INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._peer_window
                    if stream.window > MAX_WINDOW:
                        raise ConnectionFault(Error.FLOW_CONTROL_ERROR, "a window is too large")
                self._peer_window = value
        self.write(frame(SETTINGS, ACK, 0))
        self._pump()

    def _on_ping(self, number: int, flags: int, payload: bytes) -> None:
        if not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))

    def _on_window(self, number: int, flags: int, payload: bytes) -> None:
        size = int.from_bytes(payload, "big") & MAX_WINDOW
        if not number:
            if not size:
                raise ConnectionFault(Error.PROTOCOL_ERROR, "a window grows by nothing")
            self.window += size
            if self.window > MAX_WINDOW:
                raise ConnectionFault(Error.FLOW_CONTROL_ERROR, "a window is too large")
        elif number > self._last:
            raise ConnectionFault(Error.PROTOCOL_ERROR, "a window of a stream that was not begun")
        elif (stream := self._streams.get(number)) is not None:
            stream.window += size
            if not size or stream.window > MAX_WINDOW:
                self._refuse(stream, Error.FLOW_CONTROL_ERROR if size else Error.PROTOCOL_ERROR)
                return
        self._pump()

    # What we do

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _pump(self) -> None:
        for number, stream in list(self._waiting.items()):
            if self.window <= 0:
                break
            del self._waiting[number]
            if not stream.pump():
                self._waiting[number] = stream  # behind the others, so that all get their share

    def _refuse(self, stream: Stream, code: int) -> None:
        """Ends one stream for something that is wrong with it."""
        if self._streams.pop(stream.number, None) is not None:
            self._waiting.pop(stream.number, None)
            self.write(reset(stream.number, code))
            stream.lose()
            if self._is_leaving:
                self._close_when_done()

    def _end(self, code: int, reason: str) -> None:
        self._is_ending = True
        self.write(goaway(self._last, code, reason))
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _close_when_done(self) -> None:
        if not self._streams and not self._is_ending:
            self._is_ending = True
            self._flush()
            if self._transport is not None:
                self._transport.close()


_ON = {
    DATA: Http2Connection._on_data,
    HEADERS: Http2Connection._on_headers,
    RST_STREAM: Http2Connection._on_reset,
    SETTINGS: Http2Connection._on_settings,
    PING: Http2Connection._on_ping,
    WINDOW_UPDATE: Http2Connection._on_window,
}
