"""The service as it is seen from outside: metrics, logs, traces. Knows no transport and no engine."""

from __future__ import annotations

from .build import telemetry_for
from .metrics import Metrics, Source
from .peers import PEERS, page_of_all, telling_peers
from .record import CANCELLED, CURRENT, REQUEST_ID, CallRecord, current, note_queries, stage
from .telemetry import Telemetry
from .tracing import is_traced

__all__ = [
    "CANCELLED",
    "CURRENT",
    "PEERS",
    "REQUEST_ID",
    "CallRecord",
    "Metrics",
    "Source",
    "Telemetry",
    "current",
    "is_traced",
    "note_queries",
    "page_of_all",
    "stage",
    "telemetry_for",
    "telling_peers",
]
