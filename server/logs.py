"""How the server's log looks: a line of text, or of JSON, for each entry, on standard error."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from .settings import Settings
from .telemetry import CURRENT

__all__ = ["ENVOY_FORMAT", "configure_logging"]

# Envoy's own lines, in its words for the same (spdlog's, and %j for a message fit for JSON).
ENVOY_FORMAT = {
    "text": "%Y-%m-%d %H:%M:%S,%e %l envoy.%n: %v",
    "json": '{"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","logger":"envoy.%n","message":"%j"}',
}


def configure_logging(settings: Settings) -> None:
    """Sends all loggers of this process to standard error; `log_level` is for ours, others stay at info."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Text())
    level = logging.getLevelName(settings.log_level.upper())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("earshot").setLevel(level)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's name
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in _fields(record).items())
        # What others put into a message may hold line breaks, and an entry is one line.
        return " ".join(filter(None, (super().formatMessage(record).replace("\n", "\\n"), fields)))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the entry says of a call, or else which call was being worked for."""
    told: dict[str, Any] | None = getattr(record, "call", None)
    if told is not None:
        return told
    call = CURRENT.get()
    return {} if call is None else {"request_id": call.request_id}


def _quoted(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and '"' not in text else repr(text)
