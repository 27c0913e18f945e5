"""A server's telemetry as its settings want it."""

from __future__ import annotations

from ..settings import Settings
from .call_log import CallLog
from .telemetry import Listener, Telemetry
from .tracing import tracing_for

__all__ = ["telemetry_for"]

QUEUES = 4  # full ones, of several indexes and of the stages of one: more than that cannot be waited for


def telemetry_for(settings: Settings) -> Telemetry:
    """Metrics always, lines in the log for what is slow or fails, traces where they are to go somewhere.

    Raises FailedPrecondition where traces are wanted and their packages are not installed.
    """
    call_log = CallLog(slow_seconds=settings.log_slow_seconds, with_text=settings.log_queries)
    listeners: list[Listener] = [call_log.ended]
    most = settings.max_queue * QUEUES
    tracing = tracing_for(settings.otlp_endpoint)
    if tracing is None:
        return Telemetry(settings.transport, listeners, max_in_flight=most)
    listeners.append(tracing.ended)
    return Telemetry(settings.transport, listeners, tracing.close, max_in_flight=most)
