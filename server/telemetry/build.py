"""A server's telemetry as its settings want it."""

from __future__ import annotations

from ..settings import Settings
from .call_log import CallLog
from .telemetry import Listener, Telemetry

__all__ = ["telemetry_for"]


def telemetry_for(settings: Settings) -> Telemetry:
    """Metrics always, lines in the log for what is slow or fails."""
    call_log = CallLog(slow_seconds=settings.log_slow_seconds, with_text=settings.log_queries)
    listeners: list[Listener] = [call_log.ended]
    return Telemetry(settings.transport, listeners)
