"""Where a call that comes as HTTP begins and ends, whichever application answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earshot.errors import EarshotError, InvalidArgument, row_of

from .auth import Guard, act
from .deadline import deadline_of
from .error_headers import error_headers
from .json_codec import error_body
from .limits import MAX_HEADER_BYTES
from .refusal import forget_body
from .telemetry import CANCELLED, REQUEST_ID, Telemetry, current

__all__ = ["HttpCalls"]

PATIENCE_SECONDS = 0.05
API = "/v1/"  # pages about the service, such as /readyz and /metrics, are not calls of it


class HttpCalls:
    """Lets in those whom `guard` does, before a body is read; records the calls of `app`, reads their
    deadlines, and answers each with its request id."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry, guard: Guard) -> None:
        self._app = app
        self._telemetry = telemetry
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            # Not every server in front of this counts what came in one piece.
            too_large = InvalidArgument(f"the headers have more than {MAX_HEADER_BYTES} bytes")
            await _response(too_large)(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not scope["path"].startswith(API):
            await self._page(scope, headers, receive, send)
            return
        client = _Client(receive)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = (REQUEST_ID, record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), more]}
            await send(message)

        with self._telemetry.begin("http", "", headers) as record:
            try:
                await self._admit(scope, headers, receive)
                record.deadline = deadline_of(headers)
                with current(record):
                    await self._app(scope, client.receive, send_with_id)
            except asyncio.CancelledError:
                if not client.is_gone:
                    raise
                record.code = CANCELLED
            except EarshotError as error:
                record.error = error
                await _response(error)(scope, receive, send_with_id)
            finally:
                client.forget()
                record.method = _method(scope)

    async def _admit(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> None:
        try:
            act(self._guard.admit_http(scope["method"], scope["path"], headers))
        except EarshotError:
            await forget_body(scope["method"], headers, receive)
            raise

    async def _page(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        try:
            await self._admit(scope, headers, receive)
        except EarshotError as error:
            await _response(error)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _response(error: EarshotError) -> Response:
    return Response(
        error_body(error), row_of(error).http, headers=error_headers(error), media_type="application/json"
    )


class _Client:
    """The sender of a request: when it leaves before its answer, the task that works for it is cancelled."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._listening: asyncio.Task[Message] | None = None
        self.is_gone = False

    async def receive(self) -> Message:
        """What it sends. Once the body is whole, nobody else listens whether it is still there."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            # Most answers are ready before it would matter.
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._listen)
        return message

    def forget(self) -> None:
        """The answer is on its way, or nobody is left to have it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._listening is not None:
            self._listening.cancel()

    def _listen(self) -> None:
        self._listening = asyncio.ensure_future(self._until_gone())

    async def _until_gone(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._task is not None:
            self.is_gone = True
            self._task.cancel()
        return message


def _method(scope: Scope) -> str:
    """The RPC that the route mirrors: its function `batch_search` is `BatchSearch`."""
    endpoint = getattr(scope.get("endpoint"), "__name__", "")
    return "".join(map(str.capitalize, endpoint.split("_")))
