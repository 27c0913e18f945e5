"""Search of the fresh rows as one view sees them: sealed segments by their leaves, the others row by row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ..distance import DistanceMeasure, Floats
from ..engines import ExactEngine, Rows
from ..filters import Where
from ..filters.inverted import as_array
from .columns import Columns
from .living import Found, living, merged
from .restricts import FreshRestricts
from .segment import Flags, Segment

__all__ = ["Fresh"]

_FEW = 2048


@dataclass(frozen=True)
class Fresh:
    """The fresh rows that were there at a sequence number. Safe from many threads.

    Attributes:
        columns: What belongs to each row; later rows are there too.
        restricts: What they can be filtered by.
        measure: As engines see it.
        sequence: Of the view.
        end: Rows below it belong to the view.
        start: Rows from it on are not sealed.
        segments: The sealed ones.
        dead: Rows of the segments that are dead.
    """

    name: ClassVar[str] = "fresh"

    columns: Columns
    restricts: FreshRestricts
    measure: DistanceMeasure
    sequence: int
    end: int
    start: int
    segments: tuple[Segment, ...]
    dead: int

    def is_alive(self, slots: Rows) -> Flags:
        """Which slots, all below `end`, live; −1 does not."""
        flags: Flags = (self.columns.died[slots] > self.sequence) & (slots >= 0)
        return flags

    def passing(self, where: Where) -> Rows:
        """The living slots that pass a filter, ascending, int64."""
        slots = as_array(self.restricts.compile(where, self.end)).astype(np.int64)
        return slots[self.is_alive(slots)]

    def search(self, queries: Floats, k: int, target: float | None, passing: Rows | None = None) -> Found:
        """The k nearest rows, or all there are.

        Args:
            queries: float32 [q, dimension].
            k: Rows wanted, at least 1.
            target: Recall; None for exact search.
            passing: Only these slots, ascending and alive; None for all that live.

        Returns:
            slots int64 [q, w] and distances float32 [q, w], best first; −1 and NaN where there are fewer.
        """
        if passing is not None and len(passing) <= max(_FEW, k):
            columns = self.columns
            exact = ExactEngine(columns.vectors[: self.end], self.measure, columns.squares[: self.end])
            if not len(passing):
                return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
            return exact.search_rows(queries, passing, min(k, len(passing)))
        flags = None
        if passing is not None:
            flags = np.zeros(self.end, bool)
            flags[passing] = True
        found = [self._in_segment(segment, queries, k, target, flags) for segment in self.segments]
        if self.start < self.end:
            found.append(self._in_tail(queries, k, flags))
        return merged(found, k, higher_is_closer=self.measure.higher_is_closer)

    def _in_tail(self, queries: Floats, k: int, flags: Flags | None) -> Found:
        allowed = self._tail_alive if flags is None else flags[self.start :]
        rows, distances = self._tail.search_rows(
            queries, None, min(k, len(allowed)), None if allowed.all() else allowed
        )
        return np.where(rows < 0, -1, rows + self.start), distances

    def _in_segment(
        self, segment: Segment, queries: Floats, k: int, target: float | None, flags: Flags | None
    ) -> Found:
        if flags is not None:
            slots, scores = segment.search(queries, k, target, flags[segment.slots])
        else:
            sealed = sum(map(len, self.segments))

            def search(queries: Floats, net: int, widening: float) -> Found:
                del widening  # a segment looks as hard as the net is wide
                return segment.search(queries, net, target)

            dead = len(segment) * self.dead // sealed
            slots, scores = living(search, self.is_alive, queries, min(k, len(segment)), len(segment), dead)
        vectors = self.columns.vectors[slots] if segment.lift.origin is not None else scores
        return slots, segment.lift.distances(scores, queries, vectors)

    @cached_property
    def _tail(self) -> ExactEngine:
        columns, span = self.columns, slice(self.start, self.end)
        return ExactEngine(columns.vectors[span], self.measure, columns.squares[span])

    @cached_property
    def _tail_alive(self) -> Flags:
        return self.columns.died[self.start : self.end] > self.sequence
