"""What an error says beside its message, in each wire's words: when to try again, that a token is wanted."""

from __future__ import annotations

import math

from earshot.errors import EarshotError, Unauthenticated

__all__ = ["error_headers", "error_metadata"]


def error_metadata(error: EarshotError) -> list[tuple[str, str]]:
    """gRPC: `grpc-retry-pushback-ms`, which clients with a retry policy obey by themselves.

    Source: gRPC proposal A6, "Client Retries", on pushback.
    """
    if error.retry_after is None:
        return []
    return [("grpc-retry-pushback-ms", str(math.ceil(1000 * error.retry_after)))]


def error_headers(error: EarshotError) -> dict[str, str]:
    """HTTP: `Retry-After` in whole seconds, rounded up (the body has the fraction), and `WWW-Authenticate`.

    Source: RFC 9110 for both; RFC 6750 for the challenge of bearer tokens.
    """
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="earshot"'
    return headers
