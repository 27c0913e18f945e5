"""What a batch will take, from what batches took: a fixed part, and one for each query."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["LEAST", "Cost", "Costs"]

Key = TypeVar("Key", bound=Hashable)

_NEWEST = 1 / 8  # the weight of the last batch among those before
# One batch that the machine held up shall not make all that follow look dear; one that did become dearer
# is known for it after a few.
_MOST_TIMES = 8.0
MAX_REMEMBERED = 1024
# Of which fewer fit, a hand-over costs little beside, and large batches off the loop cost less a query.
LEAST = 8


class Cost:
    """A line through what was noted, whose older points fade: exponentially weighted least squares.

    `room` is how many units will be done in `limit` seconds: 0 where fewer than `LEAST` will, or nothing is
    known. `is_small` says whether one will be.
    """

    __slots__ = ("_covariance", "_limit", "_seconds", "_units", "_variance", "is_small", "room")

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.room = 0
        self.is_small = False
        self._seconds = 0.0  # the mean
        self._units = 0.0
        self._variance = 0.0  # of the units
        self._covariance = 0.0

    def note(self, seconds: float, units: int) -> None:
        """So many units, one or more, took so long together."""
        if self._units:
            seconds = min(seconds, _MOST_TIMES * self.seconds(units))
            off = units - self._units
            kept = 1 - _NEWEST
            self._variance = kept * (self._variance + _NEWEST * off * off)
            self._covariance = kept * (self._covariance + _NEWEST * off * (seconds - self._seconds))
            self._units += _NEWEST * off
            self._seconds += _NEWEST * (seconds - self._seconds)
        else:
            self._seconds, self._units = seconds, units
        slope = self._slope
        room = int(self._units + (self._limit - self._seconds) / slope) if slope > 0 else 0
        self.room = room if room >= LEAST else 0
        self.is_small = self.seconds(1) <= self._limit

    def seconds(self, units: int) -> float:
        """What so many units will take. Only after something was noted."""
        return self._seconds + self._slope * (units - self._units)

    @property
    def _slope(self) -> float:
        """Seconds for one unit more: not below nothing, and not so much that the fixed part would be."""
        proportional = self._seconds / self._units
        if self._variance < 1e-9:  # all had the same size
            return proportional
        return min(max(self._covariance / self._variance, 0.05 * proportional), proportional)


class Costs(Generic[Key]):
    """The cost of each key that was lately used, with a `limit` that they share."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._of: dict[Key, Cost] = {}

    def of(self, key: Key) -> Cost:
        """What is known of a key; it is the one that learns."""
        cost = self._of.get(key)
        if cost is None:
            if len(self._of) >= MAX_REMEMBERED:
                self._of.clear()
            cost = self._of[key] = Cost(self._limit)
        return cost

    def clear(self) -> None:
        """Forgets all; any thread may say so."""
        self._of.clear()
