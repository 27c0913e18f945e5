"""When to try again, in the words of each wire."""

from __future__ import annotations

import math

from earshot.errors import EarshotError

__all__ = ["retry_headers", "retry_metadata"]


def retry_metadata(error: EarshotError) -> list[tuple[str, str]]:
    """gRPC: `grpc-retry-pushback-ms`, which clients with a retry policy obey by themselves.

    Source: gRPC proposal A6, "Client Retries", on pushback.
    """
    if error.retry_after is None:
        return []
    return [("grpc-retry-pushback-ms", str(math.ceil(1000 * error.retry_after)))]


def retry_headers(error: EarshotError) -> dict[str, str]:
    """HTTP: `Retry-After` in whole seconds, rounded up (RFC 9110); the body has the fraction."""
    return {} if error.retry_after is None else {"retry-after": str(math.ceil(error.retry_after))}
