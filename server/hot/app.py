"""One ASGI application for gRPC and HTTP: the content type decides. Runs in any ASGI server with trailers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from earshot.errors import EarshotError, Internal, Unimplemented

from ..auth import Admission, Guard, act
from ..limits import checked_size
from ..telemetry import CallRecord, Telemetry, current
from .asgi import Application, Receive, Scope, Send, forget_frames, patient_send
from .calls import Call, Vanished, Watch
from .framing import GRPC_HEADERS, OK_TRAILERS, WINDOW_BITS, failure_headers, frame, is_grpc, status_trailers

__all__ = ["HotApp", "Streaming", "Unary"]

log = logging.getLogger(__name__)

Unary = Callable[[bytes, CallRecord], Awaitable[bytes]]
"""From a request, and what is known of the call, to the answer."""

Streaming = Callable[[AsyncIterator[Sequence[bytes]], CallRecord], AsyncGenerator[Sequence[bytes]]]
"""From requests to answers, each in its own time: server, client and bidirectional streaming.

Both come in bundles: what arrived in one piece, and what is ready and leaves in one.
"""

_START = {"type": "http.response.start", "status": 200, "headers": GRPC_HEADERS, "trailers": True}
_OK = {"type": "http.response.trailers", "headers": OK_TRAILERS}


class HotApp:
    """Serves `unary` and `streaming`, by path such as `/package.Service/Method`, and `http` for the rest."""

    def __init__(
        self,
        unary: Mapping[str, Unary],
        streaming: Mapping[str, Streaming],
        http: Application,
        telemetry: Telemetry,
        guard: Guard,
        calls: Watch,
        *,
        max_message_bytes: int,
        max_answer_bytes: int,
    ) -> None:
        self._unary = unary
        self._streaming = streaming
        self._telemetry = telemetry
        self._guard = guard
        # Of the services that every gRPC server offers, such as health, nothing is recorded.
        self._names = {
            path: path.rpartition("/")[2] for path in (*unary, *streaming) if not path.startswith("/grpc.")
        }
        self._http = http
        self._max_message_bytes = max_message_bytes
        self._max_answer_bytes = max_answer_bytes
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it; never raises for anything a client does."""
        headers = dict(scope["headers"])
        try:
            if headers.get(b"content-type", b"").startswith(b"application/grpc"):
                await self._grpc(scope, headers, receive, send)
            else:
                await self._http(scope, receive, send)
        except (Vanished, OSError) as error:  # ASGI: OSError from send() where the client is gone
            forget_frames(error)
            log.debug("a client vanished")

    async def _grpc(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        if not is_grpc(headers[b"content-type"]) or scope["method"] != "POST":
            status = 405 if scope["method"] != "POST" else 415
            await send({"type": "http.response.start", "status": status, "headers": [(b"allow", b"POST")]})
            await send({"type": "http.response.body", "body": b""})
            return
        path = scope["path"]
        try:
            with self._begin(path, headers) as record:
                self._telemetry.check_room()
                admission = self._guard.admit(path, headers)
                act(admission)
                call = Call(headers, receive, self._max_message_bytes)
                record.deadline = call.deadline
                if (unary := self._unary.get(path)) is not None:
                    await self._answer_one(unary, call, record, admission, send)
                elif (streaming := self._streaming.get(path)) is not None:
                    await self._answer_many(streaming, call, record, send)
                else:
                    raise Unimplemented(f"there is no method {path}")
        except EarshotError as error:
            await _fail(error, send)

    def _begin(self, path: str, headers: Mapping[bytes, bytes]) -> CallRecord:
        name = self._names.get(path, "")
        if path.startswith("/grpc."):
            return CallRecord("grpc", name)
        if path in self._streaming:
            return self._telemetry.begin_stream("grpc", name, headers)
        return self._telemetry.begin("grpc", name, headers)

    async def _answer_one(
        self, method: Unary, call: Call, record: CallRecord, admission: Admission, send: Send
    ) -> None:
        message = await call.message()
        admission.check(message)
        try:
            answer = checked_size(
                await self._calls.run(call, method(message, record)), self._max_answer_bytes
            )
        except (EarshotError, Vanished, asyncio.CancelledError):
            raise
        except Exception:
            with current(record):
                log.exception("a request failed in a way that was not foreseen")
            raise Internal("internal error; the server's log has the cause") from None
        if call.encoding in WINDOW_BITS:
            await send({**_START, "headers": [*GRPC_HEADERS, (b"grpc-encoding", call.encoding)]})
        else:
            await send(_START)
        await send({"type": "http.response.body", "body": frame(answer, call.encoding)})
        await send(_OK)

    async def _answer_many(self, method: Streaming, call: Call, record: CallRecord, send: Send) -> None:
        send = patient_send(send)
        has_started = False
        failure: EarshotError | None = None
        self._calls.enter(call)
        try:
            async with aclosing(method(call.messages(), record)) as bundles:
                async for answers in bundles:
                    if not has_started:
                        await send(_START)
                        has_started = True
                    body = b"".join(map(frame, answers))
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        except EarshotError as error:
            failure = error
        except asyncio.CancelledError:
            reason = call.reason()
            if not isinstance(reason, EarshotError):
                raise reason from None
            failure = reason
        except Vanished:
            raise
        except Exception:
            with current(record):
                log.exception("a stream failed in a way that was not foreseen")
            failure = Internal("internal error; the server's log has the cause")
        finally:
            self._calls.leave(call)
        record.error = failure
        if not has_started:
            if failure is not None:
                raise failure
            await send(_START)
        await send({"type": "http.response.body", "body": b""})
        await send(
            {"type": "http.response.trailers", "headers": status_trailers(failure)} if failure else _OK
        )


async def _fail(error: EarshotError, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": failure_headers(error)})
    await send({"type": "http.response.body", "body": b""})
