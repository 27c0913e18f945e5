"""Filtered search: compile the filter, choose a way, go it, and say what was done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path as FilePath
from time import perf_counter
from typing import Self

import numpy as np

from ..distance import DistanceMeasure, Floats
from ..engines import Engine, ExactEngine, Rows
from ..tuning import Progress
from .calibrate import QUERIES, calibrate
from .datapoints import Collected
from .inverted import RestrictIndex
from .leaves import Work, search_leaves
from .partition import ROWS_A_LEAF_AT_LEAST, Lift, Partition
from .passing import Passing, PassingCache
from .plan import CALIBRATED_AT, Choice, FilterTuning, Path, Plan, Planner
from .post import next_rung, passing_neighbors
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
    _lift: Lift = field(init=False, repr=False)
    _cache: PassingCache = field(init=False, repr=False)
    _planner: Planner = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lift = Lift(None) if self.partition is None else Lift.of(self.vectors, self.measure)
        object.__setattr__(self, "_lift", lift)
        object.__setattr__(self, "_cache", PassingCache(self._compile))
        object.__setattr__(self, "_planner", Planner(self.tuning, len(self.vectors)))

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
        seed: int,
        progress: Progress,
    ) -> Self:
        """Invert the restricts, and where search is approximate, partition and calibrate.

        Args:
            collected: The restricts of the datapoints.
            vectors: float32 [n, dimension].
            engine: Searches them.
            exact: Searches them too.
            measure: As the engine sees it.
            queries: A sample of real queries, float32 [q, dimension]; None for a sample of the vectors.
            seed: Of samples.
            progress: Called with (stage, done, total).
        """
        partition = slot_of_row = tuning = None
        if engine.leaves and len(vectors) >= 2 * ROWS_A_LEAF_AT_LEAST:
            queries, own = _sample(vectors, queries, seed)
            lift = Lift.of(vectors, measure)
            partition = Partition.build(vectors, lift, queries, seed)
            step = partial(progress, "filters")
            tuning = calibrate(engine, exact, vectors, partition, lift, queries, own, seed, step)
            slot_of_row = partition.slot_of_row
        index = RestrictIndex.build(collected, slot_of_row)
        return cls(index, partition, tuning, vectors, engine, exact, measure)

    def tuned(self, queries: Floats | None, seed: int, progress: Progress) -> Self:
        """The same filters, calibrated anew; arguments as in `build`."""
        if self.partition is None:
            return self
        asked, own = _sample(self.vectors, queries, seed)
        lift = self._lift
        step = partial(progress, "filters")
        tuning = calibrate(
            self.engine, self.exact, self.vectors, self.partition, lift, asked, own, seed, step
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
            row = int(self.partition.slot_of_row[row])
        return self.restricts.of(row)

    def passing(self, where: Where) -> Passing:
        """What passes a filter; compiled, or remembered."""
        return self._cache.get(where)

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
        choice = self._choose(target, k, passing, len(queries))
        work = Work()
        rows, distances = self._found(choice, passing, queries, min(k, len(passing)), target, work)
        passing.asked += len(queries)
        self._cache.keep(where, passing)
        asked = max(1, len(queries))
        plan = Plan(
            choice.path,
            len(passing),
            len(self.vectors),
            work.leaves / asked,
            work.rows / asked,
            work.short,
            {"filter": compiled - began, "search": perf_counter() - compiled},
            choice.promised(target),
        )
        return rows, distances, plan

    def _choose(self, target: float | None, k: int, passing: Passing, queries: int) -> Choice:
        # A filter is likely to be asked for as often again as it was: it pays to copy its vectors, in time.
        gather_for = 0 if passing.is_gathered else queries + (1 << passing.asked.bit_length() >> 1)
        return self._planner.choose(target, k, len(passing), queries, gather_for)

    def _compile(self, where: Where) -> Passing:
        return Passing(self.restricts.compile(where), self.partition, self.vectors, self._lift)

    def _found(
        self,
        choice: Choice,
        passing: Passing,
        queries: Floats,
        k: int,
        target: float | None,
        work: Work,
    ) -> tuple[Rows, Floats]:
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        if choice.exact or self.tuning is None:
            work.rows += len(passing) * len(queries)
            return self.exact.search_rows(queries, np.sort(passing.rows), k)
        if choice.path is Path.POST:
            return self._post(choice, passing, queries, k, target, work)
        starts = range(0, len(queries), _QUERIES_A_BLOCK)
        blocks = (queries[start : start + _QUERIES_A_BLOCK] for start in starts)
        parts = [self._by_score(choice, self.tuning, passing, block, k, work) for block in blocks]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([values for _, values in parts])

    def _by_score(
        self, choice: Choice, tuning: FilterTuning, passing: Passing, queries: Floats, k: int, work: Work
    ) -> tuple[Rows, Floats]:
        lift = self._lift
        lifted = lift.queries(queries)
        if choice.path is Path.EXACT or choice.leaf is None or self.partition is None:
            found = scan(lifted, passing.gathered, k)
            work.rows += len(passing) * len(queries)
        else:
            gather = 0 if passing.is_gathered else tuning.scan.gather / len(queries)
            worthwhile = len(passing) * (tuning.scan.row + gather) / tuning.leaf_row
            # The stopping rule was measured for no fewer neighbors than these.
            width = min(max(k, CALIBRATED_AT[0]), len(passing))
            missing = choice.leaf.missing
            found = search_leaves(self.partition, passing, lifted, width, missing, work, worthwhile)
        scores, places = in_order(*found)
        scores, rows = scores[:, :k], passing.rows[places[:, :k]]
        if self.measure is DistanceMeasure.DOT_PRODUCT_DISTANCE:
            return rows, scores
        apart = lift.distances(scores, queries, self.vectors[rows])
        order = np.argsort(apart, axis=1, kind="stable")
        return np.take_along_axis(rows, order, 1), np.take_along_axis(apart, order, 1)

    def _post(
        self, choice: Choice, passing: Passing, queries: Floats, k: int, target: float | None, work: Work
    ) -> tuple[Rows, Floats]:
        """Up the rungs, with the queries that too little passed for; in the end another way."""
        rung, selectivity = choice.rungs[0], len(passing) / len(self.vectors)
        rows, distances, passed = passing_neighbors(self.engine, queries, k, passing.mask, rung)
        work.rows += rung.parameters.candidates * len(queries)
        missed = np.flatnonzero(passed < k)
        work.short += len(missed)
        while len(missed):
            asked = np.ascontiguousarray(queries[missed])
            wider = next_rung(choice.rungs, rung.width, k, selectivity, passed[missed])
            if wider is None:
                other = self._choose(target, k, passing, len(missed))
                other = replace(other, path=other.otherwise)
                rows[missed], distances[missed] = self._found(other, passing, asked, k, target, work)
                break
            rung = wider
            found = passing_neighbors(self.engine, asked, k, passing.mask, rung)
            rows[missed], distances[missed], passed[missed] = found
            work.rows += rung.parameters.candidates * len(missed)
            missed = missed[passed[missed] < k]
        return rows, distances


def _sample(vectors: Floats, queries: Floats | None, seed: int) -> tuple[Floats, Rows | None]:
    """What to calibrate with, and the rows it was drawn from where it is of the vectors themselves."""
    if queries is not None:
        return queries[:QUERIES], None
    generator = np.random.default_rng(seed)
    own = np.sort(generator.choice(len(vectors), min(QUERIES, len(vectors) // 2), replace=False))
    return np.ascontiguousarray(vectors[own]), own
