"""Until when a caller waits, as gRPC says it: the `grpc-timeout` header, which we honour over HTTP too.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md); that transcoders take the same header from HTTP clients is
the habit of grpc-gateway and its like.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from earshot.errors import InvalidArgument

__all__ = ["TIMEOUT", "deadline_of", "timeout_seconds"]

TIMEOUT = b"grpc-timeout"

_VALUE = re.compile(rb"(\d{1,8})([HMSmun])")
_SECONDS_OF_UNIT = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def deadline_of(headers: Mapping[bytes, bytes]) -> float | None:
    """A `time.monotonic()`, or None where the caller did not say. Raises InvalidArgument."""
    timeout = headers.get(TIMEOUT)
    return None if timeout is None else time.monotonic() + timeout_seconds(timeout)


def timeout_seconds(value: bytes) -> float:
    """Seconds from a `grpc-timeout` such as `100m`. Raises InvalidArgument where it is malformed."""
    match = _VALUE.fullmatch(value)
    if match is None:
        raise InvalidArgument(
            f"grpc-timeout is {value[:20]!r}; it must be 1 to 8 digits and one of H, M, S, m, u, n"
        )
    return int(match[1]) * _SECONDS_OF_UNIT[match[2]]
