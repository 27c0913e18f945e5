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
from ..filters.scoring import best_of_each
from ..vectors import squared_norms
from .columns import Columns
from .living import Found, living, merged
from .restricts import FreshRestricts
from .segment import Flags, Segment

__all__ = ["Fresh", "Hits"]

_FEW = 2048
_MANY = 8

Hits = tuple[Rows, Rows, Floats]
"""Flat: the number of a query, a slot, and the distance between them."""


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
            if not len(passing):
                return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
            return self._everything.search_rows(queries, passing, min(k, len(passing)))
        flags = None
        if passing is not None:
            flags = np.zeros(self.end, bool)
            flags[passing] = True
        found = [self._in_segment(segment, queries, k, target, flags) for segment in self.segments]
        if self.start < self.end:
            found.append(self._in_tail(queries, k, flags))
        return merged(found, k, higher_is_closer=self.measure.higher_is_closer)

    def closer(self, queries: Floats, k: int, target: float, floors: Floats) -> Hits:
        """The rows that are as close as `floors` say, of which only the k nearest need be there.

        Most fresh rows are among nobody's nearest, and told from those by one comparison.

        Args:
            queries: float32 [q, dimension].
            k: Neighbors that are wanted in all.
            target: Recall.
            floors: A distance for each query, under a measure other than L1; float32 [q].
        """
        columns, count = self.columns, len(queries)
        lengths = squared_norms(queries)
        # This way round a product with few queries takes half the time.
        scores = columns.vectors[self.start : self.end] @ queries.T
        least = floors
        if self.measure is not DistanceMeasure.DOT_PRODUCT_DISTANCE:
            scores *= 2
            scores -= columns.squares[self.start : self.end, np.newaxis]
            least = lengths - floors
        least = least - self._tail.margins(np.sqrt(lengths), queries.shape[1])
        found = (scores >= least).ravel().nonzero()[0]
        place, query = np.divmod(found, count) if count > 1 else (found, np.zeros_like(found))
        hits = [(query, place + self.start, scores.ravel()[found])]
        hits += [segment.closer(queries, k, target, floors) for segment in self.segments]
        kept = [self._best(*each, count, k) for each in hits]
        query, slots = kept[0] if len(kept) == 1 else map(np.concatenate, zip(*kept, strict=True))
        alive = columns.died[slots] > self.sequence
        query, slots = query[alive], slots[alive]
        asked = queries[0] if count == 1 else queries[query]
        return query, slots, self._everything.distances(asked, slots)

    def _best(self, query: Rows, slots: Rows, scores: Floats, count: int, k: int) -> tuple[Rows, Rows]:
        """All, dead or alive; where there are very many, of those that live the better ones of each query."""
        if len(slots) <= _MANY * k * count:
            return query, slots
        alive = self.columns.died[slots] > self.sequence
        query, slots = query[alive], slots[alive]
        if len(slots) <= _MANY * k * count:
            return query, slots
        order = np.argsort(query, kind="stable")
        _, best = best_of_each(query[order], scores[alive][order], slots[order], count, 2 * k)
        return np.repeat(np.arange(count), 2 * k)[best.ravel() >= 0], best[best >= 0]

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
    def _everything(self) -> ExactEngine:
        columns = self.columns
        return ExactEngine(columns.vectors[: self.end], self.measure, columns.squares[: self.end])

    @cached_property
    def _tail(self) -> ExactEngine:
        columns, span = self.columns, slice(self.start, self.end)
        return ExactEngine(columns.vectors[span], self.measure, columns.squares[span])

    @cached_property
    def _tail_alive(self) -> Flags:
        return self.columns.died[self.start : self.end] > self.sequence
