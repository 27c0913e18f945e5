"""A token bucket, kept as the one number it needs.

Source: the generic cell rate algorithm (ITU-T I.371), in its virtual scheduling form.
"""

from __future__ import annotations

from math import ceil

__all__ = ["Bucket"]

EPSILON = 1e-9  # seconds; monotonic clocks are not finer


class Bucket:
    """`per_second` requests, and `burst` (1 or more) at once after a pause; or one of `shares` of that.

    Not for several threads.
    """

    __slots__ = ("_due", "_gap", "_slack", "per_second")

    def __init__(self, per_second: float, burst: int, *, shares: int = 1) -> None:
        self.per_second = per_second
        self._gap = shares / per_second
        self._slack = (ceil(burst / shares) - 1) * self._gap
        self._due = 0.0  # when the next request would come that kept to the rate

    def take(self, now: float) -> float:
        """0.0 and one request less, or the seconds until there is one."""
        wait = self._due - self._slack - now
        if wait > EPSILON:
            return wait
        self._due = max(self._due, now) + self._gap
        return 0.0

    def owe(self, requests: int) -> None:
        """More requests, for one that was let in and is so many; what comes next waits longer."""
        self._due += requests * self._gap
