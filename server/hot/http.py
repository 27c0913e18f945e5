"""HTTP on the hot face: searches go straight to the batcher, all else to the FastAPI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from earshot.errors import EarshotError, Internal, InvalidArgument, row_of

from .. import messages
from ..auth import Guard
from ..deadline import deadline_of
from ..error_headers import error_headers
from ..json_codec import decode, encode, error_body
from ..telemetry import CallRecord, Telemetry, current
from .asgi import Application, Receive, Scope, Send
from .calls import Vanished
from .encode import JsonAnswers
from .search import Searcher

__all__ = ["HotHttp"]

Search = Callable[[Any, JsonAnswers, CallRecord], Awaitable[bytes]]

log = logging.getLogger(__name__)

_PREFIX = "/v1/indexes/"
_JSON = [(b"content-type", b"application/json")]


class HotHttp:
    """The same endpoints as `http_app`, and `/readyz` says so when the server is about to go."""

    def __init__(
        self,
        searcher: Searcher,
        http: Application,
        telemetry: Telemetry,
        guard: Guard,
        *,
        max_message_bytes: int,
    ) -> None:
        self._searches: dict[str, tuple[str, type[messages.SearchOptions], Search]] = {
            "search": ("Search", messages.SearchRequest, searcher.search),
            "batchSearch": ("BatchSearch", messages.BatchSearchRequest, searcher.batch_search),
        }
        self._telemetry = telemetry
        self._guard = guard
        self._http = http
        self._answers = JsonAnswers()
        self._max_message_bytes = max_message_bytes
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        path = scope["path"]
        if scope["method"] == "POST" and path.startswith(_PREFIX):
            name, _, verb = path[len(_PREFIX) :].rpartition(":")
            if verb in self._searches and "/" not in name:
                method, kind, search = self._searches[verb]
                headers = dict(scope["headers"])
                with self._telemetry.begin("http", method, headers) as record:
                    await self._search(name, kind, search, record, scope, headers, receive, send)
                return
        if self.is_draining and path == "/readyz":
            await _respond(send, 503, encode({"status": "draining"}))
            return
        await self._http(scope, receive, send)

    async def _search(
        self,
        name: str,
        kind: type[messages.SearchOptions],
        search: Search,
        record: CallRecord,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            admission = self._guard.admit_http(scope["method"], scope["path"], headers)
            record.deadline = deadline_of(headers)
            body = await self._body(receive)
            if body is None:
                raise Vanished
            request = msgspec.structs.replace(decode(body, kind), index=name)
            admission.check_request(request)
            answer = await search(request, self._answers, record)
        except EarshotError as error:
            record.error = error
            await _respond_error(send, error)
        except (asyncio.CancelledError, Vanished):
            raise
        except Exception:
            with current(record):
                log.exception("a request failed in a way that was not foreseen")
            record.error = Internal("internal error; the server's log has the cause")
            await _respond_error(send, record.error)
        else:
            await _respond(send, 200, answer)

    async def _body(self, receive: Receive) -> bytes | None:
        """None where the client is gone."""
        received = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            chunk: bytes = message.get("body", b"")
            received += chunk
            if len(received) > self._max_message_bytes:
                raise InvalidArgument(
                    f"body: more than {self._max_message_bytes} bytes; the limit is max_message_bytes",
                    field="body",
                )
            if not message.get("more_body", False):
                return received


async def _respond_error(send: Send, error: EarshotError) -> None:
    more = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
    await _respond(send, row_of(error).http, error_body(error), more)


async def _respond(send: Send, status: int, body: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [*_JSON, (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
