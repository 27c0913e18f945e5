"""Several shards that search as one: asked side by side, merged where engines meet the index.

A row of the whole is a row of a shard plus the number of rows in the shards before it. All above the seam of
the engines (tuning, crowding, recall, ids) sees one shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .attributes import Attributes
from .distance import DistanceMeasure, Floats
from .engines import QueryParameters, Rows
from .filters import Collected, Filters, Plan, Where
from .ids import hash_of
from .manifest import FilterEntry
from .shard import Shard
from .tuning import Progress

# Fewer queries, or fewer products of numbers a shard, take less time than threads do to start on them.
_WORTH_THREADS = 8
_WORTH_PRODUCTS = 1 << 24

T = TypeVar("T")
Found = tuple[Rows, Floats]


def shard_of(hashes: npt.NDArray[np.uint64], shards: int) -> npt.NDArray[np.int64]:
    """Which shard holds the id of each hash, int64 [n]. Versions on disk depend on it: it never changes."""
    return (hashes % np.uint64(shards)).astype(np.int64)


def combine(parts: Sequence[Shard], measure: DistanceMeasure) -> Shard:
    """One shard that stands for all; `measure` as engines see it."""
    if len(parts) == 1:
        return parts[0]
    whole = _Whole(tuple(parts), measure.higher_is_closer)
    norms = [part.norms for part in parts]
    engine: Any = _Engine(whole)
    exact: Any = _Exact(whole)
    ids: Any = _Ids(whole)
    filters: Any = None if parts[0].filters is None else _Filters(whole, _filters_of(parts))
    vectors: Any = _Matrix(whole, [part.vectors for part in parts])
    lengths: Any = None if norms[0] is None else _Matrix(whole, norms)
    return Shard(vectors, lengths, engine, exact, ids, _Attributes(whole), filters, parts=whole.parts)


def in_one_thread(shard: Shard) -> Shard:
    """The same shard, which does all its work in the thread that asks: what tuning can see the cost of."""
    if not shard.parts:
        return shard
    of: Any = shard.engine
    whole = copy(of.whole)
    whole.in_one_thread = True
    engine: Any = _Engine(whole)
    exact: Any = _Exact(whole)
    return replace(shard, engine=engine, exact=exact)


def with_filters(
    shard: Shard, collected: Collected, numbers: npt.NDArray[np.int64], measure: DistanceMeasure, **how: Any
) -> Shard:
    """A shard, or each of those it stands for, with filters.

    Args:
        shard: One, or what `combine` made.
        collected: Restricts by row as the user gave them.
        numbers: The shard of each of those rows; see `shard_of`.
        measure: As engines see it.
        how: See `Filters.build`.
    """
    if not shard.parts:
        return shard.with_filters(collected, measure, **how)
    pieces = collected.split(numbers, len(shard.parts))
    found = [
        part.with_filters(piece, measure, **how) for part, piece in zip(shard.parts, pieces, strict=True)
    ]
    return combine(found, measure)


def filter_entry(filters: Filters) -> FilterEntry:
    """What the manifest says of the filters of one shard, or of those that stand for many."""
    parts: Sequence[Filters] = getattr(filters, "parts", (filters,))
    namespaces = sorted(set().union(*(part.restricts.namespaces for part in parts)))
    return FilterEntry(namespaces, parts[0].tuning, [part.tuning for part in parts[1:]])


class _Whole:
    """The shards, where each begins, and the threads that ask them."""

    in_one_thread = False

    def __init__(self, parts: tuple[Shard, ...], higher_is_closer: bool) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *(len(part) for part in parts)])
        self._higher_is_closer = higher_is_closer
        self._pool = ThreadPoolExecutor(
            min(len(parts), os.cpu_count() or 1), thread_name_prefix="earshot-shard"
        )

    def __len__(self) -> int:
        return int(self.starts[-1])

    def each(self, ask: Callable[[int], T], *, side_by_side: bool = False) -> list[T]:
        """What `ask` says of each shard's number."""
        numbers = range(len(self.parts))
        in_threads = side_by_side and not self.in_one_thread
        return list(self._pool.map(ask, numbers) if in_threads else map(ask, numbers))

    def is_worth_threads(self, queries: Floats, rows: int) -> bool:
        """Whether so many rows of all shards, scored for each query, are enough for a thread each."""
        return queries.size * rows >= _WORTH_PRODUCTS * len(self.parts)

    def merge(self, found: Sequence[Found], k: int) -> Found:
        """The k best of (rows of the shard, distances) of each shard; equal distances by row."""
        moved = [
            np.where(rows < 0, -1, rows + start) for (rows, _), start in zip(found, self.starts, strict=False)
        ]
        rows = np.concatenate(moved, axis=1)
        distances = np.concatenate([distances for _, distances in found], axis=1)
        far = np.where(rows < 0, np.inf, -distances if self._higher_is_closer else distances)
        best = np.argsort(far, axis=1, kind="stable")[:, :k]
        best += rows.shape[1] * np.arange(len(rows))[:, np.newaxis]
        return rows.ravel()[best], distances.ravel()[best]

    def place(self, row: int) -> tuple[Shard, int]:
        """The shard that holds a row, and the row there."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.parts[number], int(row - self.starts[number])

    def split(self, rows: Rows) -> Iterator[tuple[int, npt.NDArray[np.intp], Rows]]:
        """(shard, places among `rows`, rows there) for each shard that holds any of them."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield number, places, rows[places] - self.starts[number]


class _Matrix:
    """Rows of all shards, gathered when asked for."""

    def __init__(self, whole: _Whole, parts: Sequence[Any]) -> None:
        self._whole, self._parts = whole, parts
        self.shape = (len(whole), *parts[0].shape[1:])

    def __len__(self) -> int:
        return len(self._whole)

    def __getitem__(self, key: Any) -> Floats:
        if isinstance(key, tuple):  # norms[rows, None]
            return self[key[0]][(slice(None), *key[1:])]
        rows = np.asarray(key, np.int64)
        found = np.empty((len(rows), *self.shape[1:]), np.float32)
        for number, places, within in self._whole.split(rows):
            found[places] = self._parts[number][within]
        return found


class _Engine:
    """The shards' engines under the seam of one; query parameters hold for each."""

    def __init__(self, whole: _Whole) -> None:
        self.whole = whole
        first = whole.parts[0].engine
        self.name, self.parameters, self.rescores = first.name, first.parameters, first.rescores
        self.on_device, self.served_by = first.on_device, first.served_by
        self.leaves = max(part.engine.leaves for part in whole.parts)

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> Found:
        parts = self.whole.parts

        def ask(number: int) -> Found:
            return parts[number].engine.search(queries, min(k, len(parts[number])), parameters)

        return self.whole.merge(self.whole.each(ask, side_by_side=len(queries) >= _WORTH_THREADS), k)


class _Exact:
    """The shards' exact engines as one."""

    name = "exact"

    def __init__(self, whole: _Whole) -> None:
        self._whole = whole

    def search(self, queries: Floats, k: int, parameters: QueryParameters | None = None) -> Found:
        del parameters
        parts = self._whole.parts

        def ask(number: int) -> Found:
            return parts[number].exact.search(queries, min(k, len(parts[number])))

        side_by_side = self._whole.is_worth_threads(queries, len(self._whole))
        return self._whole.merge(self._whole.each(ask, side_by_side=side_by_side), k)

    def search_rows(self, queries: Floats, subset: Rows, k: int) -> Found:
        numbers = np.searchsorted(self._whole.starts, subset, side="right") - 1

        def ask(number: int) -> Found:
            within = subset[numbers == number] - self._whole.starts[number]
            return self._whole.parts[number].exact.search_rows(queries, within, k)

        side_by_side = self._whole.is_worth_threads(queries, len(subset))
        return self._whole.merge(self._whole.each(ask, side_by_side=side_by_side), k)

    def distances(self, queries: Floats, rows: Rows) -> Floats:
        found = np.empty(len(rows), np.float32)
        for number, places, within in self._whole.split(rows):
            asked = queries if queries.ndim == 1 else queries[places]
            found[places] = self._whole.parts[number].exact.distances(asked, within)
        return found


class _Ids:
    """The shards' ids."""

    def __init__(self, whole: _Whole) -> None:
        self._whole = whole

    def __len__(self) -> int:
        return len(self._whole)

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        return np.sort(np.concatenate([part.ids.hashes for part in self._whole.parts]))

    def of(self, rows: Rows) -> npt.NDArray[np.object_]:
        found = np.full(rows.size, None, object)
        flat = rows.ravel()
        for number, places, within in self._whole.split(flat):
            if number >= 0:  # row −1 is nowhere
                found[places] = self._whole.parts[number].ids.of(within)
        return found.reshape(rows.shape)

    def rows_of(self, ids: Sequence[str]) -> Rows:
        rows = np.full(len(ids), -1, np.int64)
        hashes = np.fromiter((hash_of(name) for name in ids), np.uint64, len(ids))
        numbers = shard_of(hashes, len(self._whole.parts))
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            found = self._whole.parts[number].ids.rows_of([ids[place] for place in places.tolist()])
            rows[places] = np.where(found < 0, -1, found + self._whole.starts[number])
        return rows


class _Attributes(Attributes):
    """The shards' attributes; one code for a tag, in whichever shards it occurs."""

    def __init__(self, whole: _Whole) -> None:
        self._whole = whole
        self._table = pa.concat_tables([part.attributes.tags_table for part in whole.parts])

    def crowding_tag(self, row: int) -> str | None:
        part, within = self._whole.place(row)
        return part.attributes.crowding_tag(within)

    def metadata_json(self, row: int) -> bytes | None:
        part, within = self._whole.place(row)
        return part.attributes.metadata_json(within)


@dataclass(frozen=True)
class _Passing:
    """What passes a filter, by row of the whole."""

    rows: Rows


@dataclass(frozen=True, eq=False)
class _Filters:
    """The shards' filters, each with what it measured for itself."""

    whole: _Whole
    parts: tuple[Filters, ...]

    def passing(self, where: Where) -> _Passing:
        found = self.whole.each(lambda number: self.parts[number].passing(where).rows)
        return _Passing(
            np.concatenate([rows + start for rows, start in zip(found, self.whole.starts, strict=False)])
        )

    def search(
        self, queries: Floats, k: int, where: Where, target: float | None
    ) -> tuple[Rows, Floats, Plan]:
        passing = sum(len(part.passing(where)) for part in self.parts)
        found = self.whole.each(
            lambda number: self.parts[number].search(queries, k, where, target),
            side_by_side=self.whole.is_worth_threads(queries, passing),
        )
        plans = [plan for _, _, plan in found]
        width = min(k, sum(plan.passing for plan in plans))
        rows, distances = self.whole.merge([(rows, distances) for rows, distances, _ in found], width)
        return rows, distances, _plan_of(plans)

    def tuned(self, queries: Floats | None, seed: int, progress: Progress) -> Self:
        return replace(self, parts=tuple(part.tuned(queries, seed, progress) for part in self.parts))

    def of(self, row: int) -> Where:
        number = int(np.searchsorted(self.whole.starts, row, side="right")) - 1
        return self.parts[number].of(int(row - self.whole.starts[number]))


def _filters_of(parts: Sequence[Shard]) -> tuple[Filters, ...]:
    return tuple(part.filters for part in parts if part.filters is not None)


def _plan_of(plans: Sequence[Plan]) -> Plan:
    """Work adds up, time runs side by side; the path is that of the shard where most passes."""
    return replace(
        max(plans, key=lambda plan: plan.passing),
        passing=sum(plan.passing for plan in plans),
        total=sum(plan.total for plan in plans),
        leaves=sum(plan.leaves for plan in plans),
        candidates=sum(plan.candidates for plan in plans),
        short=max(plan.short for plan in plans),
        promised=min(plan.promised for plan in plans),
        seconds={step: max(plan.seconds[step] for plan in plans) for step in plans[0].seconds},
    )
