"""Where every call of every face begins and ends: it is counted, and told to whoever listens.

A face calls `begin` when it has the headers, and its `with` block ends when answer or failure are known.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from earshot.errors import ResourceExhausted

from .metrics import Metrics
from .record import CallRecord

__all__ = ["Listener", "Telemetry"]

RETRY_SECONDS = 1.0

Listener = Callable[[CallRecord, float], None]
"""Is told of each call that is over, and of the seconds it took."""


class Telemetry:
    """One process's counts, logs and traces of its calls. Belongs to one event loop."""

    def __init__(
        self,
        transport: str,
        listeners: Sequence[Listener] = (),
        close: Callable[[], None] = lambda: None,
        *,
        max_in_flight: int = sys.maxsize,
    ) -> None:
        self._max_in_flight = max_in_flight
        self.close = close
        self.metrics = Metrics(transport)
        self._listeners = (self.metrics.ended, *listeners)

    def begin(self, protocol: str, method: str, headers: Mapping[bytes, bytes]) -> CallRecord:
        """A call that arrives now over `protocol`, `grpc` or `http`; the headers' names are lower case."""
        self.metrics.in_flight[protocol] += 1
        return CallRecord(protocol, method, headers, self._end)

    def check_room(self) -> None:
        """Raises ResourceExhausted where more calls are under way than the queues behind could hold.

        Then the event loop itself is what is too slow, and reading another request would slow it further.
        """
        in_flight = self.metrics.in_flight
        if in_flight["grpc"] + in_flight["http"] > self._max_in_flight:
            raise ResourceExhausted(
                "the server has more to do than it can; try again in a moment", retry_after=RETRY_SECONDS
            )

    def begin_stream(self, protocol: str, method: str, headers: Mapping[bytes, bytes]) -> CallRecord:
        """A stream that opens now; it is the queries in it that are counted, each by `begin_in_stream`."""
        self.metrics.open_streams += 1
        return CallRecord(protocol, method, headers, self._end_stream)

    def begin_in_stream(self, stream: CallRecord, calls: int = 1) -> CallRecord:
        """One query of a stream, or so many that are answered together and counted each."""
        self.metrics.in_flight[stream.protocol] += calls
        record = stream.part()
        record.calls = calls
        record.ended = self._end
        return record

    def _end(self, record: CallRecord) -> None:
        seconds = time.perf_counter() - record.started
        self.metrics.in_flight[record.protocol] -= record.calls
        for listener in self._listeners:
            listener(record, seconds)

    def _end_stream(self, record: CallRecord) -> None:
        self.metrics.open_streams -= 1
