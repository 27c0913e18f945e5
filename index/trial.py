"""Tries query parameters on one sample of queries at one k, and keeps what is worth choosing from."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log2
from time import perf_counter, thread_time

import numpy as np
import numpy.typing as npt

from .distance import Floats
from .engines import Engine, ExactEngine, QueryParameters, Rows
from .engines.accelerate import LEAST_QUERIES, find_accelerator
from .points import OperatingPoint, Recall, cost_model, pareto, recall_of, smoothed

FINELY_UP_TO = 10  # neighbors: more are rarely asked for, and not tuned as finely
_SCREENING = 8  # one query in so many screens the grid; all of them measure what is left of it
_SCREENED_BY_AT_LEAST = 64
_BANDS = tuple(1 - 10 ** (-step / 8) for step in range(2, 25))  # of recall: 0.44 to 0.999
_A_BAND = 2  # points that are measured by all, the cheapest of the screening to reach each band
_DEAREST = 0.5  # of exact search: what costs more is not sought
_NEAR = 8  # steps of leaves to a doubling where a target lies
_ROUNDS = 4  # of looking there for a cheaper point
_BLOCKS = 8  # of no fewer queries than follow
_A_BLOCK_AT_LEAST = 16
_ENOUGH = 0.999
_PLATEAU = 0.0005
_FINE, _COARSE = 4, 2  # steps of leaves to a doubling
_GENEROUS = 8
_CANDIDATES = (1.5, 2, 2.5, 3, 4, 5, 6.5, 8, 10, 15, 20, 40, 80)  # a neighbor


class Trial:
    """The truth for one sample of queries at one k, against which query parameters are tried."""

    def __init__(
        self,
        engine: Engine,
        exact: ExactEngine,
        queries: Floats,
        own: Rows | None,
        k: int,
        higher_is_closer: bool,
    ) -> None:
        self._engine, self._exact, self._queries, self._own, self._k = engine, exact, queries, own, k
        self._higher_is_closer = higher_is_closer
        self._clock = perf_counter if engine.on_device else thread_time
        self._asked_for = k if own is None else k + 1
        exact.search(queries[:1], 1)  # what it computes once is not the price of a query
        # A GPU helps with the truth of many queries, but what is compared with is exact search here.
        few = queries if find_accelerator() is None else queries[: LEAST_QUERIES - 1]
        began = self._clock()
        rows, distances = exact.search(few, self._asked_for)
        self._exact_cost = (self._clock() - began) / len(few)
        if len(few) < len(queries):
            rows, distances = exact.search(queries, self._asked_for)
        others = self._others(rows)
        self._truth = rows[others].reshape(-1, k), distances[others].reshape(-1, k)

    def front(self, count: int, targets: Iterable[float]) -> list[OperatingPoint]:
        """The Pareto front of the grid, exact search included; finer where a target lies."""
        few = min(len(self._queries), max(_SCREENED_BY_AT_LEAST, len(self._queries) // _SCREENING))
        points = {(0, 0): OperatingPoint(self._k, 0, 0, Recall(1.0, 1.0, 1.0), 1.0)}
        if self._engine.leaves:
            # A first point that finds nearly all says early what is too dear to be tried.
            generous = min(count, _GENEROUS * self._k)
            for leaves in _steps(self._engine.leaves, 1):
                point = points[leaves, generous] = self._measure(leaves, generous, few)
                if _is_enough(point):
                    break
            factors = _CANDIDATES if self._k <= FINELY_UP_TO else _CANDIDATES[::2]
            start = before = 0
            for candidates in sorted({min(count, ceil(self._k * factor)) for factor in factors}):
                start = self._walk(points, candidates, start, before, few)
                before = candidates
                if not self._engine.rescores:
                    break
        survivors = _survivors([point for point in points.values() if point.leaves])
        found = self._measured([(p.leaves, p.candidates) for p in survivors], len(self._queries))
        for target in targets if found else ():  # the exact engine has none
            found += self._reaching(found, target)
        for _ in range(_ROUNDS if found and self._k <= FINELY_UP_TO else 0):
            cheaper = self._cheaper(found, targets, count)
            if not cheaper:
                break
            found += self._measured(cheaper, len(self._queries))
        return pareto([points[0, 0], *smoothed(found)])

    def _reaching(self, points: list[OperatingPoint], target: float) -> list[OperatingPoint]:
        """Wider and wider, as all queries see it, until the target is held: the screening may have ended
        too soon. Nothing where a point holds it already."""
        steps = _steps(self._engine.leaves, _COARSE)
        sizes = [ceil(self._k * factor) for factor in _CANDIDATES]
        point = max(points, key=lambda point: point.recall.low)
        found: list[OperatingPoint] = []
        while point.recall.low < target and point.cost < _DEAREST:
            leaves = next((step for step in steps if step > point.leaves), self._engine.leaves)
            wider = self._measure(leaves, point.candidates, len(self._queries))
            if wider.recall.value < point.recall.value + _PLATEAU:
                size = next((size for size in sizes if size > point.candidates), 0)
                if not size or not self._engine.rescores:
                    break
                wider = self._measure(leaves, size, len(self._queries))
            found.append(point := wider)
        return found

    def _cheaper(
        self, points: list[OperatingPoint], targets: Iterable[float], count: int
    ) -> list[tuple[int, int]]:
        """What to try around the cheapest point that holds each target: what should cost less, and is not
        known to find too little."""
        measured = {(point.leaves, point.candidates) for point in points}
        even, cost_of = smoothed(points), cost_model(points)
        grid: set[tuple[int, int]] = set()
        for target in targets:
            holding = [point for point in even if point.recall.low >= target]
            if not holding:
                continue
            best = min(holding, key=lambda point: point.cost)
            leaves = {
                min(self._engine.leaves, max(1, round(best.leaves * 2 ** (step / _NEAR))))
                for step in range(-4, 5)
            }
            sizes = sorted({min(count, ceil(self._k * factor)) for factor in _CANDIDATES} | {best.candidates})
            place = sizes.index(best.candidates)
            around = sizes[max(0, place - 1) : place + 2] if self._engine.rescores else [best.candidates]
            for tried in ((few, size) for few in sorted(leaves) for size in around):
                is_hopeless = any(
                    p.recall.low < target and p.leaves >= tried[0] and p.candidates >= tried[1]
                    for p in points
                )
                if tried not in measured and not is_hopeless and cost_of(*tried) < best.cost:
                    grid.add(tried)
        return sorted(grid)

    def _walk(
        self,
        points: dict[tuple[int, int], OperatingPoint],
        candidates: int,
        start: int,
        before: int,
        few: int,
    ) -> int:
        """Measure where so many candidates can beat `before`, which were fewer.

        Upwards from `start` until leaves cost more than a point that finds all, or bring nothing more;
        then downwards as far as more candidates help at all: where a partition's border is what hides
        neighbors, they do not. Returns where the next walk may start.
        """
        steps = _steps(self._engine.leaves, _FINE if self._k <= FINELY_UP_TO else _COARSE)
        dearest = min(point.cost for point in points.values() if _is_enough(point))
        previous = 0.0
        top = start
        for top in range(start, len(steps)):
            point = points[steps[top], candidates] = self._measure(steps[top], candidates, few)
            if point.cost > dearest or _is_enough(point) or point.recall.value < previous + _PLATEAU:
                break
            previous = point.recall.value
        for place in range(start - 1, -1, -1):
            point = points[steps[place], candidates] = self._measure(steps[place], candidates, few)
            fewer = points.get((steps[place], before))
            if fewer is not None and point.recall.value < fewer.recall.value + _PLATEAU:
                break
        return max(0, top - 2)

    def _measure(self, leaves: int, candidates: int, count: int) -> OperatingPoint:
        """One point as the first `count` queries see it."""
        return self._measured([(leaves, candidates)], count)[0]

    def _measured(self, grid: list[tuple[int, int]], count: int) -> list[OperatingPoint]:
        """Points as the first `count` queries see them.

        Timed in blocks of queries, all points in turns, so that a slow moment of the machine strikes all;
        of a point's blocks the fastest counts.
        """
        seconds = np.full(len(grid), np.inf)
        answers: list[list[Rows]] = [[] for _ in grid]
        blocks = max(1, min(_BLOCKS, count // _A_BLOCK_AT_LEAST))
        for block in np.array_split(self._queries[:count], blocks):
            for i, (leaves, candidates) in enumerate(grid):
                parameters = QueryParameters(leaves, candidates)
                began = self._clock()
                answers[i].append(self._engine.search(block, self._asked_for, parameters)[0])
                seconds[i] = min(seconds[i], (self._clock() - began) / len(block))
        return [
            self._point(*searched, np.concatenate(rows), float(cost / self._exact_cost))
            for searched, rows, cost in zip(grid, answers, seconds, strict=True)
        ]

    def _point(self, leaves: int, candidates: int, rows: Rows, cost: float) -> OperatingPoint:
        count = len(rows)
        hits = count_hits(
            self._exact,
            self._queries[:count],
            rows[self._others(rows)].reshape(-1, self._k),
            self._truth[0][:count],
            self._truth[1][:count],
            higher_is_closer=self._higher_is_closer,
        )
        return OperatingPoint(self._k, leaves, candidates, recall_of(hits, self._k), round(cost, 6))

    def _others(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """A mask that leaves k a query: all but its own row, or all but the last where that is absent."""
        if self._own is None:
            return np.ones(rows.shape, bool)
        mine: npt.NDArray[np.bool_] = rows == self._own[: len(rows), np.newaxis]
        mine[~mine.any(axis=1), -1] = True
        return ~mine


def count_hits(
    exact: ExactEngine,
    queries: Floats,
    rows: Rows,
    true_rows: Rows,
    true_distances: Floats,
    *,
    higher_is_closer: bool,
) -> npt.NDArray[np.int64]:
    """How many of each query's rows are as near as its k-th true neighbor, int64 [q].

    Distance decides, not the row: of equally near neighbors any will do.

    Args:
        exact: Gives the found rows the same distances that the truth has, to the last bit.
        queries: float32 [q, dimension].
        rows: Found, [q, k]; −1 counts as a miss.
        true_rows: The exact answer, [q, k].
        true_distances: Its distances, best first, [q, k].
    """
    are_true = (rows[:, :, np.newaxis] == true_rows[:, np.newaxis]).any(axis=2)
    which, place = np.nonzero(~are_true & (rows >= 0))
    distances = exact.distances(queries[which], rows[which, place])
    worst = true_distances[which, -1]
    are_true[which, place] = distances >= worst if higher_is_closer else distances <= worst
    return np.asarray(np.count_nonzero(are_true, axis=1))


def _is_enough(point: OperatingPoint) -> bool:
    return point.recall.value >= _ENOUGH


def _steps(leaves: int, per_doubling: int) -> list[int]:
    """1 to all leaves, in even steps on a logarithmic scale."""
    last = per_doubling * ceil(log2(leaves))
    return sorted({min(leaves, round(2 ** (step / per_doubling))) for step in range(last + 1)})


def _survivors(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """The cheapest to reach each band of recall: those near the front, and as many where it is steep."""
    kept: dict[tuple[int, int], OperatingPoint] = {}
    for band in _BANDS:
        holding = sorted((p for p in points if p.recall.value >= band), key=lambda point: point.cost)
        kept.update(((point.leaves, point.candidates), point) for point in holding[:_A_BAND])
    return list(kept.values())
