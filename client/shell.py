"""What both clients are made of: where to, how to come in, how long, how often."""

from __future__ import annotations

from typing import Generic, TypeVar

from earshot.errors import (
    FailedPrecondition,
    InvalidArgument,
)

from .access import Access, Tls
from .retry import Budget, Retry, check_timeout
from .transport import parse_target

__all__ = ["DEFAULT_TIMEOUT", "Shell", "dial"]

T = TypeVar("T")

DEFAULT_TIMEOUT = 30.0


def dial(target: str, token: str | None, tls: Tls | None) -> tuple[bool, str, Access]:
    """Whether it is gRPC, where to, and how to come in."""
    scheme, address = parse_target(target)
    if scheme == "http" and tls is not None:
        raise InvalidArgument(f"target {target!r} is not encrypted: write 'https://'", field="target")
    is_grpc = scheme in {"grpc", "grpcs"}
    return is_grpc, address, Access(token, Tls() if scheme in {"grpcs", "https"} and tls is None else tls)


class Shell(Generic[T]):
    """What both clients know: where to, how long, how often."""

    def __init__(self, target: str, transport: T, timeout: float | None, retry: Retry) -> None:
        self.target = target
        self._transport = transport
        self._timeout = check_timeout(timeout)
        self._retry = retry
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r})"

    def _budget(self, timeout: float | None) -> Budget:
        if self._closed:
            raise FailedPrecondition(f"the client of {self.target} is closed")
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        return Budget(self._retry, seconds, self.target)
