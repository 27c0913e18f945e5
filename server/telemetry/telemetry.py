"""Where every call of every face begins and ends: it is counted, and told to whoever listens.

A face calls `begin` when it has the headers, and its `with` block ends when answer or failure are known.
"""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Mapping

from .metrics import Metrics
from .record import CallRecord

__all__ = ["REQUEST_ID", "Telemetry"]

REQUEST_ID = b"x-request-id"
_FIT_FOR_LOGS = re.compile(rb"[\x21-\x7e]{1,128}")


class Telemetry:
    """One process's counts, logs and traces of its calls. Belongs to one event loop."""

    def __init__(self, transport: str) -> None:
        self.metrics = Metrics(transport)
        # Unique across processes by the first part, within one by the second; a UUID takes ten times as long.
        self._process = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    def begin(self, protocol: str, method: str, headers: Mapping[bytes, bytes]) -> CallRecord:
        """A call that arrives now over `protocol`, `grpc` or `http`; the headers' names are lower case."""
        self.metrics.in_flight[protocol] += 1
        return CallRecord(protocol, method, self._request_id(headers.get(REQUEST_ID)), self._end)

    def begin_stream(self, protocol: str, method: str, headers: Mapping[bytes, bytes]) -> CallRecord:
        """A stream that opens now; it is the queries in it that are counted, each by `begin_in_stream`."""
        self.metrics.open_streams += 1
        return CallRecord(protocol, method, self._request_id(headers.get(REQUEST_ID)), self._end_stream)

    def begin_in_stream(self, stream: CallRecord) -> CallRecord:
        """One query of a stream."""
        self.metrics.in_flight[stream.protocol] += 1
        record = CallRecord(stream.protocol, stream.method, stream.request_id, self._end)
        record.deadline = stream.deadline
        return record

    def _end(self, record: CallRecord) -> None:
        seconds = time.perf_counter() - record.started
        self.metrics.in_flight[record.protocol] -= 1
        self.metrics.ended(record, seconds)

    def _end_stream(self, record: CallRecord) -> None:
        self.metrics.open_streams -= 1

    def _request_id(self, given: bytes | None) -> str:
        """The client's own where it may stand in a log, else a new one."""
        if given is not None and _FIT_FOR_LOGS.fullmatch(given):
            return given.decode("ascii")
        return f"{self._process}-{next(self._numbers):x}"
