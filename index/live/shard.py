"""A version and what came after it, searched as one: a live index at one sequence number.

The version's rows come first, fresh ones after them. Dead rows are left out wherever they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Self

import numpy as np

from earshot.errors import FailedPrecondition

from ..crowding import crowded_search
from ..distance import DistanceMeasure, Floats
from ..engines import QueryParameters, Rows
from ..filters import Plan, TokenRestrict, Where
from ..filters.plan import Path
from ..shard import Shard
from .fresh import Fresh, Hits
from .living import Found, living, merged, trimmed
from .parts import Ranked, Tags
from .segment import Flags

__all__ = ["LiveShard"]


@dataclass(frozen=True)
class LiveShard(Shard):
    """Immutable, as a version is.

    Attributes:
        base: The version; engine, exact and filters are its own.
        fresh: The rows after it.
        died: When each row of the version died, int64 [n]; None while none has.
        base_dead: How many have.
        count: Datapoints.
        tags: Of all rows.
    """

    base: Shard = None  # type: ignore[assignment]  # a dataclass that inherits defaults needs one
    fresh: Fresh = None  # type: ignore[assignment]
    died: Rows | None = None
    base_dead: int = 0
    count: int = 0
    tags: Tags = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return self.count

    @property
    def can_be_filtered(self) -> bool:
        """Whether any datapoint could have restricts."""
        return self.filters is not None or not len(self.base) or bool(self.fresh.restricts.namespaces)

    def rows(self) -> Rows:
        """The rows that hold a datapoint, ascending."""
        slots = np.arange(self.fresh.end)
        return np.concatenate((self._base_rows(), slots[self.fresh.is_alive(slots)] + len(self.base)))

    def restricts_of(self, row: int) -> Where:
        """What a row can be found by."""
        if row >= len(self.base):
            return self.fresh.columns.restricts[row - len(self.base)]
        return super().restricts_of(row)

    def watched(self, watch: Callable[[Any, str], Any]) -> Self:
        """As `Shard.watched`; fresh rows are a part."""
        return replace(super().watched(watch), fresh=watch(self.fresh, self.fresh.name))

    def search(
        self,
        queries: Floats,
        k: int,
        parameters: QueryParameters | None,
        crowding: int | None,
        target_recall: float | None = None,
    ) -> Found:
        """As `Shard.search`; `target_recall` is for the fresh rows."""
        target = _approximate(target_recall)
        if crowding is None:
            return trimmed(self._nearest(queries, min(k, len(self)), parameters, target))

        def near(queries: Floats, net: int, widening: int) -> Found:
            if 4 * net > len(self):
                return self._nearest(queries, net, None, None)
            return self._nearest(queries, net, _harder(parameters, widening), target)

        codes: Any = Ranked(self.tags, len(self))
        return trimmed(crowded_search(near, queries, min(k, len(self)), codes, crowding))

    def search_where(
        self, queries: Floats, k: int, where: Where, target_recall: float | None, crowding: int | None
    ) -> tuple[Rows, Floats, Plan]:
        """As `Shard.search_where`."""
        if not self.can_be_filtered:
            raise FailedPrecondition("the index was built without restricts, so it cannot be filtered")
        fresh = self.fresh.passing(where)
        in_base = self._base_passing(where)
        count = len(fresh) + (len(self.base) - self.base_dead if in_base is None else len(in_base))
        plans: list[Plan] = []

        def near(queries: Floats, net: int, widening: int) -> Found:
            del widening
            rows, distances, plan = self._nearest_where(queries, net, where, target_recall, fresh, in_base)
            plans.append(replace(plan, passing=count, total=len(self)))
            return rows, distances

        if crowding is None or not count:
            found = near(queries, min(k, count), 1)
        else:
            codes: Any = Ranked(self.tags, count)
            found = crowded_search(near, queries, min(k, count), codes, crowding)
        return *trimmed(found), plans[0]

    def _nearest(
        self, queries: Floats, k: int, parameters: QueryParameters | None, target: float | None
    ) -> Found:
        count, found = len(self.base), [_nothing(queries)]
        if self.base_dead < count and k:
            found.append(self._in_base(queries, min(k, count - self.base_dead), parameters))
        if self.fresh.end and k:
            rows, distances = found[-1]
            is_l1 = self.fresh.measure is DistanceMeasure.L1_DISTANCE
            if target is not None and not is_l1 and rows.shape[1] == k and rows[:, -1].min(initial=0) >= 0:
                hits = self.fresh.closer(queries, k, target, distances[:, -1])
                return self._with_fresh(found[-1], hits)
            slots, distances = self.fresh.search(queries, k, target)
            found.append((np.where(slots < 0, -1, slots + count), distances))
        return self._merged(found, k)

    def _with_fresh(self, in_base: Found, hits: Hits) -> Found:
        """The nearest of the version's rows, k for each query, and the fresh ones."""
        query, slots, distances = hits
        if not len(query):
            return in_base
        count, k = in_base[0].shape
        rows = np.concatenate((in_base[0].ravel(), slots + len(self.base)))
        values = np.concatenate((in_base[1].ravel(), distances))
        far = -values if self.fresh.measure.higher_is_closer else values
        owner = np.concatenate((np.repeat(np.arange(count), k), query))
        order = np.lexsort((far, owner))
        starts = np.searchsorted(owner[order], np.arange(count))
        best = order[starts[:, np.newaxis] + np.arange(k)]
        return rows[best], values[best]

    def _nearest_where(
        self,
        queries: Floats,
        k: int,
        where: Where,
        target: float | None,
        fresh: Rows,
        in_base: Rows | None,
    ) -> tuple[Rows, Floats, Plan]:
        count, found = len(self.base), [_nothing(queries)]
        plan = Plan(Path.EXACT, 0, 0)
        if in_base is None:
            alive = count - self.base_dead
            if alive and k:
                found.append(self._in_base(queries, min(k, alive), None))
        elif len(in_base) and k:
            rows, distances, plan = self._in_base_where(queries, min(k, len(in_base)), where, target, in_base)
            found.append((rows, distances))
        if len(fresh) and k:
            slots, distances = self.fresh.search(queries, k, _approximate(target), fresh)
            found.append((np.where(slots < 0, -1, slots + count), distances))
        return *self._merged(found, k), plan

    def _in_base(self, queries: Floats, k: int, parameters: QueryParameters | None) -> Found:
        """The k nearest of the version's living rows, of which there are as many."""
        if not self.base_dead:
            return self._search(queries, k, parameters)

        def search(queries: Floats, net: int, widening: float) -> Found:
            if net > k + 1 and 4 * net > len(self.base):
                return self.exact.search_rows(queries, self._base_rows(), k)
            return self._search(queries, net, _harder(parameters, widening))

        return living(search, self._base_alive, queries, k, len(self.base), self.base_dead)

    def _in_base_where(
        self, queries: Floats, k: int, where: Where, target: float | None, alive: Rows
    ) -> tuple[Rows, Floats, Plan]:
        """The k nearest of the version's rows that live and pass a filter, which are `alive`."""
        assert self.filters is not None
        filters = self.filters
        if not self.base_dead:
            return filters.search(queries, k, where, target)
        plans: list[Plan] = []
        passing = len(filters.passing(where).rows)

        def search(queries: Floats, net: int, widening: float) -> Found:
            if plans and (widening > 8 or 4 * net > passing):
                return self.exact.search_rows(queries, alive, k)
            rows, distances, plan = filters.search(queries, net, where, target)
            plans.append(plan)
            return rows, distances

        found = living(search, self._base_alive, queries, k, passing, passing - len(alive))
        return *found, plans[0]

    def _base_passing(self, where: Where) -> Rows | None:
        """The version's living rows that pass, ascending; None for all."""
        if self.filters is not None:
            rows = self.filters.passing(where).rows
            return np.sort(rows[self._base_alive(rows)]) if self.base_dead else rows
        # Without restricts a datapoint passes what only denies.
        if all(isinstance(each, TokenRestrict) and not each.allow for each in where):
            return None
        return np.empty(0, np.int64)

    def _base_alive(self, rows: Rows) -> Flags:
        alive: Flags = rows >= 0
        if self.died is not None:
            alive &= self.died[rows] > self.sequence
        return alive

    def _base_rows(self) -> Rows:
        rows = np.arange(len(self.base))
        return rows[self.died > self.sequence] if self.died is not None else rows

    def _merged(self, found: list[Found], k: int) -> Found:
        higher = self.fresh.measure.higher_is_closer
        return merged(found[1:] or found, k, higher_is_closer=higher)


def _nothing(queries: Floats) -> Found:
    return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)


def _approximate(target: float | None) -> float | None:
    """None where exact search is wanted."""
    return None if target is None or target >= 1 else target


def _harder(parameters: QueryParameters | None, widening: float) -> QueryParameters | None:
    if parameters is None or widening <= 1:
        return parameters
    return QueryParameters(ceil(parameters.leaves * widening), ceil(parameters.candidates * widening))
