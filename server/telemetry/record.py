"""One call of the service as it is seen from outside: what was asked, how long each stage took, how it ended.

A face begins a record and ends it; in between, whoever does a stage of the work notes it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any

from earshot.errors import EarshotError

__all__ = ["CANCELLED", "CURRENT", "REQUEST_ID", "STAGES", "CallRecord", "current", "note_queries", "stage"]

STAGES = ("queue", "embed", "engine", "write", "encode")

REQUEST_ID = b"x-request-id"

_FIT_FOR_LOGS = re.compile(rb"[\x21-\x7e]{1,128}")
# Unique across processes by the first part, within one by the second.
_PROCESS = secrets.token_hex(8)
_NUMBERS = itertools.count(1)

CANCELLED = "CANCELLED"  # gRPC's name where the caller went away; nobody is told, so it is no error of ours


class CallRecord:
    """What is known of one call, from the `with` block's start to its end.

    Times are of `time.perf_counter()`, the deadline of `time.monotonic()`. `headers` have lower-case names.
    `error` may be set by whoever turned it into an answer. `method` is the RPC's short name, also where it
    came as HTTP; `index` stays empty until the index is known to exist: what clients make up never becomes
    a metric's label. `calls` is how many calls it stands for, where several are done as one. `given_id` is
    the id that the answer will have, where that is settled.
    """

    __slots__ = (
        "_request_id",
        "calls",
        "code",
        "deadline",
        "ended",
        "error",
        "given_id",
        "headers",
        "index",
        "method",
        "protocol",
        "queries",
        "stages",
        "started",
        "text",
        "version",
    )

    def __init__(
        self,
        protocol: str,
        method: str,
        headers: Mapping[bytes, bytes] = MappingProxyType({}),
        ended: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self.ended = ended
        self.protocol = protocol
        self.method = method
        self.headers = headers
        self._request_id = ""
        self.given_id = b""
        self.started = time.perf_counter()
        self.deadline: float | None = None
        self.index = ""
        self.version = ""
        self.queries = 0
        self.calls = 1
        self.text: str | None = None
        self.error: EarshotError | None = None
        self.code = "OK"
        self.stages: list[tuple[str, float, float]] = []

    @property
    def request_id(self) -> str:
        """The caller's own where it may stand in a log, else one that is made when it is first asked for."""
        if not self._request_id:
            given = self.given_id or self.headers.get(REQUEST_ID, b"")
            fits = _FIT_FOR_LOGS.fullmatch(given) is not None
            self._request_id = given.decode("ascii") if fits else f"{_PROCESS}-{next(_NUMBERS):x}"
        return self._request_id

    def part(self) -> CallRecord:
        """The record of one query of this call, a stream: it has the stream's id, headers and deadline."""
        part = CallRecord(self.protocol, self.method, self.headers)
        part._request_id = self.request_id
        part.deadline = self.deadline
        return part

    def __enter__(self) -> CallRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(raised)

    def end(self, raised: BaseException | None = None) -> None:
        """The call is over, with its answer, or with what was raised."""
        if isinstance(raised, EarshotError):
            self.error = raised
        if self.error is not None:
            self.code = self.error.code
        elif raised is not None:
            gone = isinstance(raised, asyncio.CancelledError | GeneratorExit | OSError)
            self.code = CANCELLED if gone else getattr(raised, "code", "INTERNAL")
        if self.ended is not None:
            self.ended(self)
        self.error = None  # whose traceback has the frames that have this record

    def end_with(self, future: asyncio.Future[Any]) -> None:
        """The call is over with this future, as with the end of the `with` block."""
        if future.cancelled():
            self.end(asyncio.CancelledError())
        else:
            self.end(future.exception())

    def note(self, name: str, started: float, ended: float) -> None:
        """One of `STAGES`, from when to when; one that happens more than once counts in sum."""
        self.stages.append((name, started, ended))

    def seconds(self) -> dict[str, float]:
        """How long each stage took that happened."""
        totals: dict[str, float] = {}
        for name, started, ended in self.stages:
            totals[name] = totals.get(name, 0.0) + ended - started
        return totals


CURRENT: ContextVar[CallRecord | None] = ContextVar("earshot_call", default=None)
"""The call that the running thread or task works for; None where nobody is looking."""


@contextmanager
def current(record: CallRecord) -> Iterator[None]:
    """Within the block, `record` is the call that is worked for."""
    token = CURRENT.set(record)
    try:
        yield
    finally:
        CURRENT.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Notes the block as a stage of the current call, also where it raises."""
    started = time.perf_counter()
    try:
        yield
    finally:
        record = CURRENT.get()
        if record is not None:
            record.note(name, started, time.perf_counter())


def note_queries(index: str, version: str, queries: int, text: str | None = None) -> None:
    """Says of the current call which index it is about and how many queries it brings."""
    record = CURRENT.get()
    if record is not None:
        record.index, record.version, record.queries, record.text = index, version, queries, text
