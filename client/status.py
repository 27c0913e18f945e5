"""A `google.rpc.Status` within an answer, as the error that it stands for."""

from __future__ import annotations

from typing import Any

from earshot.errors import TABLE, EarshotError, Internal

__all__ = ["error_of"]

_CLASS_OF_NUMBER = {row.grpc: row.error for row in TABLE.values()}


def error_of(status: Any) -> EarshotError:
    """From a number and a sentence; an unknown number is Internal."""
    return _CLASS_OF_NUMBER.get(status.code, Internal)(status.message)
