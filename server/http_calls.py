"""Where a call that comes as HTTP begins and ends, whichever application answers it."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earshot.errors import InvalidArgument, row_of

from .deadline import deadline_of
from .json_codec import error_body
from .telemetry import REQUEST_ID, Telemetry, current

__all__ = ["HttpCalls"]

API = "/v1/"  # pages about the service, such as /readyz and /metrics, are not calls of it


class HttpCalls:
    """Records the calls of `app`, reads their deadlines, and answers each with its request id."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = (REQUEST_ID, record.request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), more]}
            await send(message)

        with self._telemetry.begin("http", "", headers) as record:
            try:
                record.deadline = deadline_of(headers)
                with current(record):
                    await self._app(scope, receive, send_with_id)
            except InvalidArgument as error:
                record.error = error
                answer = Response(error_body(error), row_of(error).http, media_type="application/json")
                await answer(scope, receive, send_with_id)
            finally:
                record.method = _method(scope)


def _method(scope: Scope) -> str:
    """The RPC that the route mirrors: its function `batch_search` is `BatchSearch`."""
    endpoint = getattr(scope.get("endpoint"), "__name__", "")
    return "".join(map(str.capitalize, endpoint.split("_")))
