"""How often a call is tried and how long that may take, without I/O: the callers sleep.

Exponential back-off with full jitter, after Brooker, "Exponential Backoff and Jitter" (AWS, 2015).
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import NoReturn

from earshot.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable

__all__ = ["Budget", "Retry", "check_timeout"]


@dataclass(frozen=True, slots=True)
class Retry:
    """What to do when a service is UNAVAILABLE and the call may be repeated without doing anything twice.

    RESOURCE_EXHAUSTED means that the service has not begun, so any call is tried again where the service says
    when; what it says is the least that is waited.

    `attempts` counts the first one: 1 means no retry. Before the n-th retry the client waits a random
    time between 0 and `initial_seconds` x 2^(n-1), at most `max_seconds`, and never past the deadline.
    Raises InvalidArgument for values out of range.
    """

    attempts: int = 3
    initial_seconds: float = 0.1
    max_seconds: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= 100:
            raise InvalidArgument(f"attempts is {self.attempts}; it must be 1 to 100", field="attempts")
        if not 0 <= self.initial_seconds <= self.max_seconds < math.inf:
            raise InvalidArgument(
                f"initial_seconds is {self.initial_seconds} and max_seconds {self.max_seconds}; "
                "they must be finite, 0 or more, and the first not above the second",
                field="initial_seconds",
            )

    def pause_seconds(self, failures: int) -> float:
        """How long to wait after so many failures (1 or more), drawn anew at each call."""
        longest = min(self.max_seconds, self.initial_seconds * 2 ** (failures - 1))
        return random.uniform(0.0, longest)  # noqa: S311  # spreads load, keeps no secret


class Budget:
    """The time and the attempts that one call of a user may take, over all its pages."""

    def __init__(self, retry: Retry, timeout: float | None, address: str) -> None:
        self._retry = retry
        self._timeout = timeout
        self._address = address
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._failures = 0

    def remaining(self) -> float | None:
        """Seconds left, None without a deadline. Raises DeadlineExceeded when there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            self._expire()
        return None if self._timeout is None else left

    def pause_after(
        self, error: Unavailable | ResourceExhausted | DeadlineExceeded, *, may_repeat: bool
    ) -> float:
        """Seconds to wait before the next attempt; raises the error, with the address, when there is none.

        There is none where the call may have done its work and must not be repeated.
        """
        if isinstance(error, DeadlineExceeded):
            self._expire(error)
        if isinstance(error, ResourceExhausted) and error.retry_after is None:
            raise error  # too large, not too soon
        self._failures += 1
        # The jitter comes on top, or all who were told the same time would come back together.
        pause = (error.retry_after or 0.0) + self._retry.pause_seconds(self._failures)
        is_last = self._failures >= self._retry.attempts or time.monotonic() + pause >= self._deadline
        if is_last or not (may_repeat or isinstance(error, ResourceExhausted)):
            if isinstance(error, ResourceExhausted):
                raise error
            tried = f" after {self._failures} attempts" if self._failures > 1 else ""
            message = f"{self._address} is unavailable{tried}: {error.message}"
            raise Unavailable(message, retry_after=error.retry_after) from error.__cause__
        return pause

    def _expire(self, cause: DeadlineExceeded | None = None) -> NoReturn:
        raise DeadlineExceeded(
            f"{self._address} did not answer within {self._timeout:g} seconds"
            if self._timeout is not None
            else f"{self._address} gave up: {cause.message if cause else ''}"
        ) from (cause and cause.__cause__)


def check_timeout(seconds: float | None) -> float | None:
    """`seconds`, or raises InvalidArgument where it is not a positive number; None means without end."""
    if seconds is not None and not seconds > 0:
        raise InvalidArgument(f"timeout is {seconds}; it must be more than 0 seconds", field="timeout")
    return seconds
