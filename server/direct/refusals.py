"""What the connection itself refuses, said as the application would."""

from __future__ import annotations

from earshot.errors import InvalidArgument, ResourceExhausted, row_of

from ..hot.framing import Headers, status_trailers
from ..json_codec import error_body

__all__ = ["refusal"]


def refusal(problem: str, headers: Headers) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an answer that names what is wrong with a request's head."""
    if any(name == b"content-type" and value.startswith(b"application/grpc") for name, value in headers):
        told = status_trailers(ResourceExhausted(problem))
        return 200, [(b"content-type", b"application/grpc"), *told], b""
    error = InvalidArgument(problem)
    body = error_body(error)
    return (
        row_of(error).http,
        [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
        body,
    )
