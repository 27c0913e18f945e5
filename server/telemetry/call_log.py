"""A line in the log for a call that failed or was slow, and at level debug for every call.

Vectors are never in it, and texts only where the setting `log_queries` asks for them.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from .record import CallRecord

__all__ = ["CallLog"]

log = logging.getLogger("earshot.request")

# The caller's own mistakes are news to the caller, not to the operator; whatever else fails is for both.
_MISTAKES = frozenset(
    {
        "ABORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)
_MOST_A_SECOND = 20  # above debug: an overload of thousands of refusals a second shall not fill the disk
_MOST_CHARACTERS = 1_000
_TRACE = re.compile(rb"[\da-f]{2}-([\da-f]{32})-")  # W3C Trace Context


class CallLog:
    """Writes the lines. Belongs to one event loop."""

    def __init__(self, *, slow_seconds: float, with_text: bool) -> None:
        self._slow_seconds = slow_seconds
        self._with_text = with_text
        self._second = 0
        self._written = 0
        self._left_out = 0

    def ended(self, record: CallRecord, seconds: float) -> None:
        """Tells of a call that is over, where it is worth telling."""
        if record.code == "OK" and seconds < self._slow_seconds:
            level = logging.DEBUG
        elif record.code in _MISTAKES and seconds < self._slow_seconds:
            level = logging.INFO
        else:
            level = logging.WARNING
        if log.isEnabledFor(level) and (level == logging.DEBUG or self._may_write()):
            what = "slow" if record.code == "OK" and level == logging.WARNING else record.code
            log.log(
                level, "%s %s", record.method or "a call", what, extra={"call": self._fields(record, seconds)}
            )

    def _may_write(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        may = self._written <= _MOST_A_SECOND
        self._left_out += not may
        return may

    def _fields(self, record: CallRecord, seconds: float) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "request_id": record.request_id,
            "protocol": record.protocol,
            "method": record.method,
            "index": record.index,
            "version": record.version,
            "code": record.code,
            "seconds": round(seconds, 6),
            **{f"{name}_seconds": round(took, 6) for name, took in record.seconds().items()},
        }
        if record.queries > 1:
            fields["queries"] = record.queries
        if (trace := _TRACE.match(record.headers.get(b"traceparent", b""))) is not None:
            fields["trace_id"] = trace[1].decode("ascii")
        if record.error is not None:
            fields["error"] = record.error.message[:_MOST_CHARACTERS]
        if self._with_text and record.text is not None:
            fields["text"] = record.text[:_MOST_CHARACTERS]
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        return {name: value for name, value in fields.items() if value != ""}
