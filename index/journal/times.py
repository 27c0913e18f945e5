"""How journals write time."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["as_time"]


def as_time(microseconds: int) -> str:
    """Microseconds since 1970 as RFC 3339, whole seconds."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
