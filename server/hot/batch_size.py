"""How many queries go to a GPU together: as many as leave the slowest answers inside the time asked for."""

from __future__ import annotations

from math import exp, log

__all__ = ["BatchSize"]

_SMALLEST, _LARGEST = 64, 8192
_SHRINK = 0.9
_SLOW_SHARE = 0.01  # of batches: what p99 allows
_GROW = _SHRINK ** (-_SLOW_SHARE / (1 - _SLOW_SHARE))  # so that steps balance where that share is slow
_STEEP = 1.25  # a batch; while none was slow yet, the size is far off
_ROUNDS = 2  # a query waits for the batch before its own, then for its own


class BatchSize:
    """Learns the largest batch whose time keeps `p99` seconds.

    Steps are multiplicative and balance where one batch in a hundred is slow (Robbins and Monro, 1951); that
    batches are sized by the time they take is Clipper's way (Crankshaw et al., NSDI 2017).

    Grows only on batches that were nearly full: what did not arrive says nothing of what would fit.
    """

    def __init__(self, p99: float, *, smallest: int = _SMALLEST, largest: int = _LARGEST) -> None:
        self._longest = p99 / _ROUNDS
        self._bounds = smallest, largest
        self._log = log(smallest)
        self._was_slow = False

    @property
    def limit(self) -> int:
        """Queries that may go together now."""
        return min(max(round(exp(self._log)), self._bounds[0]), self._bounds[1])

    def note(self, seconds: float, queries: int) -> None:
        """A call with so many queries took so long."""
        if seconds > self._longest:
            self._was_slow = True
            # A batch far from full that was slow anyway says that the next, as small, would be slow too.
            self._log = min(self._log, log(max(queries, 1))) + log(_SHRINK)
        elif queries >= self.limit / 2:
            self._log += log(_GROW if self._was_slow else _STEEP)
        low, high = self._bounds
        self._log = min(max(self._log, log(low)), log(high))
