"""Searches that a listener has whole, head and body, in one piece: no task, no messages of ASGI, one answer.

What a task does for other calls, to be woken and ended, costs more than the search. Only what is sure to be a
search of the usual layout goes this way; all else is left to `HotApp`, which answers the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from earshot.errors import EarshotError, Internal

from ..auth import Admission, Guard
from ..deadline import deadline_of
from ..grpc_methods import SEARCH
from ..limits import checked_size
from ..telemetry import CallRecord, Telemetry, current
from .asgi import Scope
from .calls import Vanished, Watch
from .decode import Vectors
from .framing import (
    GRPC_HEADERS,
    OK_TRAILERS,
    PREFIX_BYTES,
    WINDOW_BITS,
    Headers,
    failure_headers,
    frame,
    is_grpc,
    unframe,
)
from .http import json_answer, json_failure, searched
from .search import Key, Searcher

__all__ = ["Reply", "Route", "WholeCall", "WholeSearches"]

log = logging.getLogger(__name__)


class Reply(Protocol):
    """Where a listener takes the answer to one call. Does not raise."""

    request_id: bytes

    def reply(self, status: int, headers: Headers, body: bytes, trailers: Headers | None = None) -> None:
        """The whole answer, which is the only one."""


class Route(Protocol):
    """What the head of a search says: which index and who asks, in the way of one protocol."""

    protocol: str
    headers: Mapping[bytes, bytes]

    def admit(self, guard: Guard) -> Admission:
        """Lets the call in. Raises as `Guard.admit`."""

    def find(self, searcher: Searcher, body: bytes, limit: int) -> tuple[Key, Vectors] | None:
        """The query of a body; None where it is not of the usual layout, or has more than `limit` bytes."""

    def check(self, admission: Admission, body: bytes) -> None:
        """What can be checked once there is a body. Raises as `Admission.check`."""

    def answer(self, reply: Reply, answer: bytes) -> None:
        """Sends it."""

    def fail(self, reply: Reply, error: EarshotError) -> None:
        """Sends why there is none."""


class WholeSearches:
    """Begins such searches. Belongs to one event loop."""

    def __init__(
        self,
        searcher: Searcher,
        telemetry: Telemetry,
        guard: Guard,
        calls: Watch,
        *,
        max_message_bytes: int,
        max_answer_bytes: int,
    ) -> None:
        self._searcher = searcher
        self._telemetry = telemetry
        self._guard = guard
        self.calls = calls
        self._max_message_bytes = max_message_bytes
        self.max_answer_bytes = max_answer_bytes

    def route(self, scope: Scope) -> Route | None:
        """What a request's head says where it is that of a search; it may be kept for all heads alike."""
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"")
        if kind.startswith(b"application/grpc"):
            is_search = is_grpc(kind) and scope["method"] == "POST" and scope["path"] == SEARCH
            # An answer that must be compressed is not ready to be sent.
            is_plain = headers.get(b"grpc-encoding") not in WINDOW_BITS
            return _GrpcRoute(headers) if is_search and is_plain else None
        index, verb = searched(scope["method"], scope["path"])
        return _JsonRoute(scope["path"], index, headers) if verb == "search" else None

    def begin(self, route: Route, body: bytes, reply: Reply) -> WholeCall | None:
        """A call that will be answered; None where it must go the ordinary way."""
        if not self._guard.knows(route.headers):
            return None  # and so nothing of strangers is read, or remembered, on this way
        try:
            found = route.find(self._searcher, body, self._max_message_bytes)
        except Exception:  # noqa: BLE001  # whatever it is, the ordinary way meets it too, and can tell
            return None
        if found is None:
            return None
        record = self._telemetry.begin(route.protocol, "Search", route.headers)
        record.given_id = reply.request_id
        call = WholeCall(self, route, record, reply)
        try:
            self._telemetry.check_room()
            admission = route.admit(self._guard)
            call.deadline = record.deadline = deadline_of(route.headers)
            route.check(admission, body)
            self.calls.add(call)
            self._searcher.put(call, *found, record)
        except Exception as error:  # noqa: BLE001  # it tells what was not foreseen
            call.set_exception(error)
        return call


class WholeCall:
    """One search, from its whole request to its whole answer; what its answer is put into.

    Attributes:
        deadline: A `time.monotonic()`.
        probe_at: Of no use here: who has the connection says when the client is gone.
    """

    __slots__ = ("_is_over", "_record", "_reply", "_route", "_searches", "deadline", "probe_at")

    def __init__(self, searches: WholeSearches, route: Route, record: CallRecord, reply: Reply) -> None:
        self._searches = searches
        self._route = route
        self._record = record
        self._reply = reply
        self._is_over = False
        self.deadline: float | None = None
        self.probe_at = 0.0

    def done(self) -> bool:
        """As a future's."""
        return self._is_over

    def set_result(self, answers: Sequence[bytes], /) -> None:
        """As a future's: the answer, alone."""
        try:
            answer = checked_size(answers[0], self._searches.max_answer_bytes)
        except EarshotError as error:
            self.end(error)
            return
        if self._is_first():
            self._route.answer(self._reply, answer)
            self._record.end()

    def set_exception(self, exception: BaseException, /) -> None:
        """As a future's."""
        if not isinstance(exception, EarshotError):
            with current(self._record):
                log.error("a request failed in a way that was not foreseen", exc_info=exception)
            exception = Internal("internal error; the server's log has the cause")
        self.end(exception)

    def end(self, failure: EarshotError | Vanished) -> None:
        """Sends this failure for an answer, unless there was one; what is under way is dropped."""
        if self._is_first():
            if isinstance(failure, EarshotError):
                self._route.fail(self._reply, failure)
            self._record.end(failure)

    def probe(self) -> None:
        """Nothing: see `lose`."""

    def lose(self) -> None:
        """The client is gone."""
        if not self._is_over:
            self.end(Vanished())

    def _is_first(self) -> bool:
        if self._is_over:
            return False
        self._is_over = True
        self._searches.calls.discard(self)
        return True


class _GrpcRoute:
    """`/earshot.v1.SearchService/Search`."""

    __slots__ = ("headers",)
    protocol = "grpc"

    def __init__(self, headers: Mapping[bytes, bytes]) -> None:
        self.headers = headers

    def admit(self, guard: Guard) -> Admission:
        return guard.admit(SEARCH, self.headers)

    def find(self, searcher: Searcher, body: bytes, limit: int) -> tuple[Key, Vectors] | None:
        message = unframe(body, limit)
        return None if message is None else searcher.usual(message)

    def check(self, admission: Admission, body: bytes) -> None:
        admission.check(body[PREFIX_BYTES:])

    def answer(self, reply: Reply, answer: bytes) -> None:
        reply.reply(200, GRPC_HEADERS, frame(answer), OK_TRAILERS)

    def fail(self, reply: Reply, error: EarshotError) -> None:
        reply.reply(200, failure_headers(error), b"")


class _JsonRoute:
    """`POST /v1/indexes/{index}:search`."""

    __slots__ = ("_index", "_path", "headers")
    protocol = "http"

    def __init__(self, path: str, index: str, headers: Mapping[bytes, bytes]) -> None:
        self._path = path
        self._index = index
        self.headers = headers

    def admit(self, guard: Guard) -> Admission:
        return guard.admit_http("POST", self._path, self.headers)

    def find(self, searcher: Searcher, body: bytes, limit: int) -> tuple[Key, Vectors] | None:
        return searcher.usual_json(self._index, body) if len(body) <= limit else None

    def check(self, admission: Admission, body: bytes) -> None:
        """One query of the index in the path: nothing that is not checked by now."""

    def answer(self, reply: Reply, answer: bytes) -> None:
        reply.reply(*json_answer(answer))

    def fail(self, reply: Reply, error: EarshotError) -> None:
        reply.reply(*json_failure(error))
