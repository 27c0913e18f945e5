"""Filtered search: compile the filter, choose a way, go it, and say what was done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path as FilePath
from time import perf_counter
from typing import Self

import numpy as np

from ..distance import DistanceMeasure, Floats
from ..engines import Engine, ExactEngine, QueryParameters, Rows
from ..tuning import OperatingPoint
from .calibrate import QUERIES, calibrate
from .datapoints import Collected
from .inverted import RestrictIndex
from .leaves import Work, search_leaves
from .partition import ROWS_A_LEAF_AT_LEAST, Lift, Partition
from .passing import Passing, PassingCache
from .plan import Choice, FilterTuning, Path, Plan, PostPoint, choose_path, widened, width_of
from .scoring import in_order, scan
from .where import Where

_QUERIES_A_BLOCK = 256


@dataclass(frozen=True, eq=False)
class Filters:
    """The filters of one shard. Safe from many threads.

    Attributes:
        restricts: What each datapoint may be found by.
        partition: Leaves of its own; None where search is exact anyway.
        tuning: What was measured with them.
        vectors: As they are compared, float32 [n, dimension].
        engine: The approximate one, or the exact.
        exact: Over the same vectors.
        measure: As the engine sees it.
    """

    restricts: RestrictIndex
    partition: Partition | None
    tuning: FilterTuning | None
    vectors: Floats
    engine: Engine
    exact: ExactEngine
    measure: DistanceMeasure

    def __post_init__(self) -> None:
        lift = Lift(None) if self.partition is None else Lift.of(self.vectors, self.measure)
        object.__setattr__(self, "_lift", lift)
        object.__setattr__(self, "_cache", PassingCache(self._compile))
        object.__setattr__(self, "_choose", lru_cache(maxsize=1024)(self._plan))  # tens of µs a query

    @classmethod
    def build(
        cls,
        collected: Collected,
        vectors: Floats,
        engine: Engine,
        exact: ExactEngine,
        measure: DistanceMeasure,
        *,
        queries: Floats | None,
        point: OperatingPoint,
        seed: int,
    ) -> Self:
        """Invert the restricts, and where search is approximate, partition and calibrate.

        Args:
            collected: The restricts of the datapoints.
            vectors: float32 [n, dimension].
            engine: Searches them.
            exact: Searches them too.
            measure: As the engine sees it.
            queries: A sample of real queries, float32 [q, dimension]; None for a sample of the vectors.
            point: The engine's operating point.
            seed: Of samples.
        """
        partition = slot_of_row = tuning = None
        if engine.leaves and len(vectors) >= 2 * ROWS_A_LEAF_AT_LEAST:
            queries, own = _sample(vectors, queries, seed)
            lift = Lift.of(vectors, measure)
            partition = Partition.build(vectors, lift, queries, seed)
            tuning = calibrate(engine, exact, vectors, partition, lift, queries, own, point, seed)
            slot_of_row = np.empty(len(vectors), np.uint32)
            slot_of_row[partition.row_of_slot] = np.arange(len(vectors), dtype=np.uint32)
        index = RestrictIndex.build(collected, slot_of_row)
        return cls(index, partition, tuning, vectors, engine, exact, measure)

    def tuned(self, queries: Floats | None, point: OperatingPoint, seed: int) -> Self:
        """The same filters, calibrated anew; arguments as in `build`."""
        if self.partition is None:
            return self
        asked, own = _sample(self.vectors, queries, seed)
        lift: Lift = self._lift  # type: ignore[attr-defined]
        tuning = calibrate(
            self.engine, self.exact, self.vectors, self.partition, lift, asked, own, point, seed
        )
        return replace(self, tuning=tuning)

    @classmethod
    def open(
        cls,
        folder: FilePath,
        tuning: FilterTuning | None,
        vectors: Floats,
        engine: Engine,
        exact: ExactEngine,
        measure: DistanceMeasure,
    ) -> Self:
        """Map what `save` wrote.

        Raises:
            DataLoss: A file is missing or damaged.
        """
        partition = None if tuning is None else Partition.open(folder)
        return cls(RestrictIndex.open(folder), partition, tuning, vectors, engine, exact, measure)

    def save(self, folder: FilePath) -> None:
        """Write everything but the tuning, which belongs to the manifest."""
        self.restricts.save(folder)
        if self.partition is not None:
            self.partition.save(folder)

    def of(self, row: int) -> Where:
        """The restricts of one datapoint."""
        if self.partition is not None:
            row = int(np.flatnonzero(self.partition.row_of_slot == row)[0])
        return self.restricts.of(row)

    def passing(self, where: Where) -> Passing:
        """What passes a filter; compiled, or remembered."""
        passing: Passing = self._cache.get(where)  # type: ignore[attr-defined]
        return passing

    def search(
        self, queries: Floats, k: int, where: Where, target: float | None
    ) -> tuple[Rows, Floats, Plan]:
        """The k nearest rows that pass.

        Args:
            queries: float32 [q, dimension], as they are compared.
            k: Neighbors wanted.
            where: As `as_where` reads it.
            target: Recall; None for exact search.

        Returns:
            rows int64 [q, w] and distances float32 [q, w], best first, where w is k, or the number of rows
            that pass if that is less; and what was done.
        """
        began = perf_counter()
        passing = self.passing(where)
        compiled = perf_counter()
        width = min(k, len(passing))
        choice = self._choose(target, k, len(passing), len(queries), passing.is_gathered)  # type: ignore[attr-defined]
        rows, distances, work, short = self._run(choice, passing, queries, width)
        self._cache.keep(where, passing)  # type: ignore[attr-defined]
        asked = max(1, len(queries))
        plan = Plan(
            choice.path,
            len(passing),
            len(self.vectors),
            work.leaves / asked,
            work.rows / asked,
            short,
            {"filter": compiled - began, "search": perf_counter() - compiled},
        )
        return rows, distances, plan

    def _plan(self, target: float | None, k: int, passing: int, queries: int, gathered: bool) -> Choice:
        return choose_path(self.tuning, target, k, passing, len(self.vectors), queries, gathered)

    def _compile(self, where: Where) -> Passing:
        return Passing(self.restricts.compile(where), self.partition, self.vectors, self._lift)  # type: ignore[attr-defined]

    def _run(
        self, choice: Choice, passing: Passing, queries: Floats, k: int
    ) -> tuple[Rows, Floats, Work, int]:
        work, short = Work(), 0
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32), work, 0
        if choice.exact or self.tuning is None:
            rows, distances = self.exact.search_rows(queries, np.sort(passing.rows), k)
            work.rows = len(passing) * len(queries)
            return rows, distances, work, 0
        if choice.path is Path.POST and choice.post is not None:
            rows, distances, counts = self._post(choice.post, passing, queries, k, work)
            short = int((counts < k).sum())
            # Half of what was wanted, and chance fell short: ask again. Less, and the filter is against the
            # query, whose neighbors lie where the engine did not look even if it finds enough that pass.
            unlucky = np.flatnonzero((counts < k) & (2 * counts >= k))
            if len(unlucky):
                nearby = np.ascontiguousarray(queries[unlucky])
                again = self._post(widened(choice.post), passing, nearby, k, work)
                rows[unlucky], distances[unlucky], counts[unlucky] = again
            missed = np.flatnonzero(counts < k)
            if len(missed):
                other = Choice(Path.LEAVES if choice.leaf else Path.EXACT, choice.leaf)
                rows[missed], distances[missed], more, _ = self._run(other, passing, queries[missed], k)
                work.leaves, work.rows = work.leaves + more.leaves, work.rows + more.rows
            return rows, distances, work, short
        parts = [
            self._by_score(choice, passing, queries[start : start + _QUERIES_A_BLOCK], k, work)
            for start in range(0, len(queries), _QUERIES_A_BLOCK)
        ]
        return (
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            work,
            0,
        )

    def _by_score(
        self, choice: Choice, passing: Passing, queries: Floats, k: int, work: Work
    ) -> tuple[Rows, Floats]:
        lift: Lift = self._lift  # type: ignore[attr-defined]
        lifted = lift.queries(queries)
        tuning = self.tuning
        assert tuning is not None
        if choice.path is Path.EXACT or choice.leaf is None or self.partition is None:
            found = scan(lifted, passing.gathered, k)
            work.rows += len(passing) * len(queries)
        else:
            gather = 0 if passing.is_gathered else tuning.gather_row / len(queries)
            worthwhile = len(passing) * (tuning.scan_row + gather) / tuning.leaf_row
            missing = choice.leaf.missing
            found = search_leaves(self.partition, passing, lifted, k, missing, work, worthwhile)
        scores, places = in_order(*found)
        rows = passing.rows[places]
        if self.measure is DistanceMeasure.DOT_PRODUCT_DISTANCE:
            return rows, scores
        apart = lift.distances(scores, queries, self.vectors[rows])
        order = np.argsort(apart, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(apart, order, 1)

    def _post(
        self, point: PostPoint, passing: Passing, queries: Floats, k: int, work: Work
    ) -> tuple[Rows, Floats, Rows]:
        selectivity = len(passing) / len(self.vectors)
        width = min(max(width_of(point, k, selectivity), k), len(self.vectors))
        candidates = max(width, point.candidates)
        found, values = self.engine.search(queries, width, QueryParameters(point.leaves, candidates))
        work.rows += candidates * len(queries)
        kept = passing.mask[found] & (found >= 0)
        order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        counts = kept.sum(axis=1)
        return np.take_along_axis(found, order, 1), np.take_along_axis(values, order, 1), counts


def _sample(vectors: Floats, queries: Floats | None, seed: int) -> tuple[Floats, Rows | None]:
    """What to calibrate with, and the rows it was drawn from where it is of the vectors themselves."""
    if queries is not None:
        return queries[:QUERIES], None
    generator = np.random.default_rng(seed)
    own = np.sort(generator.choice(len(vectors), min(QUERIES, len(vectors) // 2), replace=False))
    return np.ascontiguousarray(vectors[own]), own
