"""HTTP on the hot path: searches go straight to the batcher, all else to the FastAPI app."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from earshot.errors import EarshotError, Internal, row_of

from ..auth import Guard
from ..error_headers import error_headers
from ..json_codec import encode, error_body
from ..limits import checked_size
from ..refusal import forget_body
from ..telemetry import CallRecord, Telemetry, current
from .asgi import Application, Receive, Scope, Send, patient_receive, patient_send
from .calls import Call, Vanished, Watch
from .framing import Headers
from .search import Check, Searcher

__all__ = ["HotHttp", "json_answer", "json_failure", "searched"]

Search = Callable[[str, bytes, CallRecord, Check], Awaitable[bytes]]

log = logging.getLogger(__name__)

_PREFIX = "/v1/indexes/"
_JSON = (b"content-type", b"application/json")


class HotHttp:
    """The same endpoints as `http_app`, and `/readyz` says so when the server is about to go."""

    def __init__(
        self,
        searcher: Searcher,
        http: Application,
        telemetry: Telemetry,
        guard: Guard,
        calls: Watch,
        *,
        max_message_bytes: int,
        max_answer_bytes: int,
    ) -> None:
        self._searches: dict[str, tuple[str, Search]] = {
            "search": ("Search", searcher.search_json),
            "batchSearch": ("BatchSearch", searcher.batch_search_json),
        }
        self._telemetry = telemetry
        self._guard = guard
        self._http = http
        self._calls = calls
        self._max_message_bytes = max_message_bytes
        self._max_answer_bytes = max_answer_bytes
        self.is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it. Raises Vanished where the client went away."""
        path = scope["path"]
        name, verb = searched(scope["method"], path)
        if verb in self._searches:
            method, search = self._searches[verb]
            headers = dict(scope["headers"])
            with self._telemetry.begin("http", method, headers) as record:
                await self._search(name, search, record, scope, headers, receive, send)
            return
        if self.is_draining and path == "/readyz":
            await _respond(send, *json_answer(encode({"status": "draining"}), 503))
            return
        await self._http(scope, patient_receive(receive), patient_send(send))

    async def _search(
        self,
        name: str,
        search: Search,
        record: CallRecord,
        scope: Scope,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            self._telemetry.check_room()
            try:
                admission = self._guard.admit_http(scope["method"], scope["path"], headers)
            except EarshotError:
                await forget_body(scope["method"], headers, patient_receive(receive))
                raise
            call = Call(headers, receive, self._max_message_bytes)
            record.deadline = call.deadline
            body = await call.body()
            answer = checked_size(
                await self._calls.run(call, search(name, body, record, admission.check_request)),
                self._max_answer_bytes,
            )
        except EarshotError as error:
            record.error = error
            await _respond(send, *json_failure(error))
        except (asyncio.CancelledError, Vanished):
            raise
        except Exception:
            with current(record):
                log.exception("a request failed in a way that was not foreseen")
            record.error = Internal("internal error; the server's log has the cause")
            await _respond(send, *json_failure(record.error))
        else:
            await _respond(send, *json_answer(answer))


def searched(verb: str, path: str) -> tuple[str, str]:
    """The index and the method, as `search`, that an HTTP request may be for; empty where it is for none."""
    if verb != "POST" or not path.startswith(_PREFIX):
        return "", ""
    name, _, method = path[len(_PREFIX) :].rpartition(":")
    return ("", "") if "/" in name else (name, method)


def json_answer(body: bytes, status: int = 200) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an answer."""
    return status, [_JSON, (b"content-length", b"%d" % len(body))], body


def json_failure(error: EarshotError) -> tuple[int, Headers, bytes]:
    """The same of an error."""
    status, headers, body = json_answer(error_body(error), row_of(error).http)
    more = [(name.encode(), value.encode()) for name, value in error_headers(error).items()]
    return status, headers + more, body


async def _respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
