"""How fast a queue moves, and so how long whoever joins it will wait."""

from __future__ import annotations

import time

__all__ = ["SHORTEST_RETRY_SECONDS", "Pace"]

# Who is let in to be answered at the last moment is often answered after it, all work in vain: the wait is an
# estimate, and the batch takes its time too.
CAUTION = 2.0
SHORTEST_RETRY_SECONDS = 0.05  # what is said to those who cannot join the queue now

_MEMORY = 10  # units; what was seen before fades by so much that as many new ones weigh the same


class Pace:
    """Seconds of work per unit, averaged over the recent past, done by `slots` threads side by side."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._seconds = 0.0

    def note(self, seconds: float, units: int = 1) -> None:
        """So many units took so long, in one of the slots."""
        newest = units / (units + _MEMORY) if self._seconds else 1.0
        self._seconds += newest * (seconds / units - self._seconds)

    def seconds(self, units: int) -> float:
        """How long so many units will take; 0 before anything was noted."""
        return units * self._seconds / self._slots

    def is_too_slow(self, units: int, deadline: float | None) -> bool:
        """Whether a deadline not passed yet, a `time.monotonic()`, will be before so many units are done.

        Who came too late already is not told to come again.
        """
        if deadline is None or not units:
            return False
        return 0 < deadline - time.monotonic() <= CAUTION * self.seconds(units)
