"""One gRPC call's inbox, and the watch that ends calls whose deadline passed or whose client vanished.

One timer for all calls, because most are answered long before it looks at them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from earshot.errors import DeadlineExceeded, EarshotError, InvalidArgument

from ..deadline import deadline_of
from .asgi import Message, Receive, uncancelled
from .framing import MessageReader, unframe

__all__ = ["Call", "Vanished", "Watch", "Watched"]

Result = TypeVar("Result")

TICK_SECONDS = 0.02
LONGEST_PROBE_SECONDS = 1.0


class Vanished(Exception):  # not an error: nobody is left to tell
    """The client reset the stream or closed the connection."""

    code = "CANCELLED"


class Call:
    """What one call is given to read, until when, and how it is ended early."""

    __slots__ = (
        "_pending",
        "_receive",
        "deadline",
        "encoding",
        "ended",
        "failure",
        "limit",
        "probe_at",
        "task",
    )

    def __init__(self, headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> None:
        self.deadline = deadline_of(headers)
        self.encoding = headers.get(b"grpc-encoding", b"identity")
        self.limit = limit
        self.ended = False
        self.failure: EarshotError | Vanished | None = None
        self.task: asyncio.Task[Any] | None = None
        self.probe_at = 0.0
        self._receive = receive
        self._pending: asyncio.Future[Message] | None = None

    async def message(self) -> bytes:
        """The one message of a unary request.

        Raises InvalidArgument where there is none, more than one or a broken one, Vanished where the
        client went away, and what `MessageReader` raises.
        """
        first = await self._receive()
        self._note(first)
        body: bytes = first.get("body", b"")
        if self.ended and (whole := unframe(body, self.limit)) is not None:
            return whole
        reader = MessageReader(self.encoding, self.limit)
        messages = list(reader.feed(body))
        while not self.ended:
            message = await self._receive()  # nobody else reads yet, so no future needs to be kept
            self._note(message)
            messages += reader.feed(message.get("body", b""))
        reader.close()
        if len(messages) != 1:
            raise InvalidArgument(f"{len(messages)} messages came; this method takes exactly one")
        return messages[0]

    async def body(self) -> bytes:
        """The body of a request over HTTP. Raises InvalidArgument where it is too large, and Vanished."""
        received = b""
        while not self.ended:
            message = await self._receive()
            self._note(message)
            chunk: bytes = message.get("body", b"")
            received = received + chunk if received else chunk
            if len(received) > self.limit:
                raise InvalidArgument(
                    f"body: more than {self.limit} bytes; the limit is max_message_bytes", field="body"
                )
        return received

    async def messages(self) -> AsyncIterator[Sequence[bytes]]:
        """The messages of a streaming request as they become whole. Raises as `message` does."""
        reader = MessageReader(self.encoding, self.limit)
        while not self.ended:
            if messages := list(reader.feed(await self._chunk())):
                yield messages
        reader.close()

    def end(self, failure: EarshotError | Vanished) -> None:
        """Cancels the call's task, which finds the reason in `failure`."""
        if self.failure is None and self.task is not None:
            self.failure = failure
            self.task.cancel()

    def reason(self) -> EarshotError | Vanished | asyncio.CancelledError:
        """Why the running task was cancelled: by the watch, or by somebody else, whose business it is."""
        if self.failure is None:
            return asyncio.CancelledError()
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        return self.failure

    def probe(self) -> None:
        """Asks whether the client is still there, unless something is being read anyway."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
            self._pending.add_done_callback(self._probed)

    async def _chunk(self) -> bytes:
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        # Cleared only afterwards: where this wait is cancelled, the next one gets the same chunk.
        message = await uncancelled(self._pending)
        self._pending = None
        self._note(message)
        body: bytes = message.get("body", b"")
        return body

    def _note(self, message: Message) -> None:
        if message["type"] != "http.request":
            raise Vanished
        self.ended = not message.get("more_body", False)

    def _probed(self, pending: asyncio.Future[Message]) -> None:
        if pending.cancelled() or pending.exception() is not None:
            return
        if pending.result()["type"] != "http.request":
            self.end(Vanished())
        elif self.ended and self._pending is pending:
            self._pending = None  # nothing to read any more: ask again next time


class Watched(Protocol):
    """A call that may have to be ended before its answer."""

    deadline: float | None
    """A `time.monotonic()`."""
    probe_at: float
    """When to ask next."""

    def end(self, failure: EarshotError | Vanished) -> None:
        """Gives it up, for this reason."""

    def probe(self) -> None:
        """Asks whether the client is still there."""


class Watch:
    """Looks at all running calls a few times a second."""

    def __init__(self) -> None:
        self._calls: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._calls)

    async def run(self, call: Call, work: Awaitable[Result]) -> Result:
        """Waits for `work` on behalf of `call`; raises why where the call is ended."""
        self.enter(call)
        try:
            return await work
        except asyncio.CancelledError:
            raise call.reason() from None
        finally:
            self.leave(call)

    def enter(self, call: Call) -> None:
        """From now on the running task may be cancelled, with `call.failure` as the reason."""
        # Asked for once: before Python 3.12 it is a system call.
        self._loop = self._loop or asyncio.get_running_loop()
        call.task = asyncio.current_task(self._loop)
        self.add(call)

    def leave(self, call: Call) -> None:
        """The call is over; it is not cancelled any more."""
        self.discard(call)
        call.task = None

    def add(self, call: Watched) -> None:
        """From now on the call is looked at."""
        call.probe_at = time.monotonic() + TICK_SECONDS
        self._calls[call] = None
        if self._timer is None:
            self._loop = self._loop or asyncio.get_running_loop()
            self._timer = self._loop.call_later(TICK_SECONDS, self._look)

    def discard(self, call: Watched) -> None:
        """The call is over."""
        self._calls.pop(call, None)

    def end_all(self, failure: EarshotError) -> None:
        """Ends every running call."""
        for call in list(self._calls):
            call.end(failure)

    def _look(self) -> None:
        now = time.monotonic()
        for call in list(self._calls):
            if call.deadline is not None and now >= call.deadline:
                call.end(DeadlineExceeded("the deadline passed before the answer was ready"))
            elif now >= call.probe_at:
                # The longer a call lasts, the less it matters to notice at once.
                call.probe_at = now + min(LONGEST_PROBE_SECONDS, 2 * (now - call.probe_at) + 2 * TICK_SECONDS)
                call.probe()
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look) if self._calls else None
