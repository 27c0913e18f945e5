"""Operating points: how hard to look for how much recall, measured on held-out queries against exact truth.

A user names a target recall; the cheapest point that holds it with confidence answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil, log2, sqrt
from time import perf_counter, thread_time

import msgspec
import numpy as np
import numpy.typing as npt

from .distance import Floats
from .engines import Engine, ExactEngine, QueryParameters, Rows
from .engines.accelerate import LEAST_QUERIES, find_accelerator

Progress = Callable[[str, int, int], None]
"""(stage, done, total)"""

TUNED_AT = (10, 100)
SAMPLE_SIZE = 2000
_Z = 1.96  # two-sided 95 %
_FEWER = 300  # queries where k is large: each brings more neighbors to count
_SCREENING = 8  # one query in so many screens the grid; all of them measure what is left of it
_SCREENED_BY_AT_LEAST = 64
_BANDS = tuple(1 - 10 ** (-step / 8) for step in range(2, 25))  # of recall: 0.44 to 0.999
_A_BAND = 2  # points that are measured by all, the cheapest of the screening to reach each band
_USUAL_TARGETS = (0.95, 0.99)
_DEAREST = 0.5  # of exact search: what costs more is not sought
_BETWEEN = 3  # numbers of leaves tried between two steps where a target lies
_BLOCKS = 8  # of no fewer queries than follow
_A_BLOCK_AT_LEAST = 16
_ENOUGH = 0.999
_PLATEAU = 0.0005
_FINE, _COARSE = 4, 2  # steps of leaves to a doubling
_GENEROUS = 8
_CANDIDATES = (1.5, 2, 2.5, 3, 4, 5, 6.5, 8, 10, 15, 20, 40, 80)  # a neighbor


class Recall(msgspec.Struct, frozen=True):
    """A measured recall and its 95 % interval."""

    value: float
    low: float
    high: float


class OperatingPoint(msgspec.Struct, frozen=True):
    """Query parameters with what they were measured to bring.

    `cost` is time a query relative to exact search of the same queries; `leaves` 0 means exact.
    """

    k: int
    leaves: int
    candidates: int
    recall: Recall
    cost: float


class Tuning(msgspec.Struct, frozen=True):
    """What was measured, on which queries, and the point that serves by default.

    `points` are the Pareto front for each k of `TUNED_AT`, cheapest first.
    """

    tuned_on: str
    queries: int
    target_recall: float
    points: list[OperatingPoint]
    chosen: OperatingPoint


def recall_of(hits: npt.NDArray[np.int64], k: int) -> Recall:
    """Mean recall with a Wilson interval.

    The k hits of one query depend on each other, so the interval counts not q·k trials but as many as
    the variance between queries speaks for (Kish's design effect), between q and q·k.

    Args:
        hits: True neighbors found by each query, int64 [q].
        k: True neighbors there are for each.
    """
    count = len(hits)
    p = float(hits.sum() / (count * k))
    between = float(np.var(hits / k)) / count
    trials = min(max(p * (1 - p) / between, count), count * k) if between > 0 else count * k
    centre = (p + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    half = _Z / (1 + _Z**2 / trials) * sqrt(p * (1 - p) / trials + _Z**2 / (4 * trials**2))
    return Recall(round(p, 5), round(max(0.0, centre - half), 5), round(min(1.0, centre + half), 5))


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


def tune(
    engine: Engine,
    exact: ExactEngine,
    vectors: Floats,
    queries: Floats | None,
    *,
    higher_is_closer: bool,
    target_recall: float,
    seed: int,
    progress: Progress,
) -> Tuning:
    """Measure a grid of leaves × candidates and keep what is worth choosing from.

    Few queries screen the grid and all measure the survivors (successive halving: Jamieson and Talwalkar,
    AISTATS 2016). A point's cost is its thread's CPU time, which a busy machine disturbs least, or on a GPU
    the time that passes.

    Without `queries` a sample of the base vectors asks, each leaving itself out of its truth and its
    answer; queries from another distribution may fare worse, and `tuned_on` says which it was.
    """
    asked, own = _questions(vectors, queries, seed)
    source = "sample of base vectors" if queries is None else "given queries"
    points: list[OperatingPoint] = []
    tuned_at = [k for k in TUNED_AT if k < len(vectors)] or [len(vectors)]
    for stage, k in enumerate(tuned_at):
        progress("tune", stage, len(tuned_at))
        few = len(asked) if k <= TUNED_AT[0] else min(len(asked), _FEWER)
        trial = _Trial(engine, exact, asked[:few], None if own is None else own[:few], k, higher_is_closer)
        points += trial.front(len(vectors), sorted({target_recall, *_USUAL_TARGETS}))
    progress("tune", len(tuned_at), len(tuned_at))
    chosen = choose(points, tuned_at[0], target_recall)
    return Tuning(f"{source} ({len(asked)})", len(asked), target_recall, points, chosen)


def choose(points: list[OperatingPoint], k: int, target_recall: float) -> OperatingPoint:
    """The cheapest point whose interval lies above the target; where none does, exact search.

    A point for k or, failing that, for the next larger k measured answers; above the largest, its leaves
    and candidates grow with k.
    """
    measured_at = min((point.k for point in points if point.k >= k), default=max(point.k for point in points))
    holding = (point for point in points if point.k == measured_at and point.recall.low >= target_recall)
    point = min(holding, key=lambda point: point.cost)
    if measured_at >= k or not point.leaves:
        return point
    growth = k / measured_at
    return msgspec.structs.replace(
        point, k=k, leaves=ceil(point.leaves * growth), candidates=ceil(point.candidates * growth)
    )


def _questions(vectors: Floats, queries: Floats | None, seed: int) -> tuple[Floats, Rows | None]:
    generator = np.random.default_rng(seed)
    if queries is not None:
        if len(queries) > SAMPLE_SIZE:
            queries = queries[generator.choice(len(queries), SAMPLE_SIZE, replace=False)]
        return queries, None
    # In random order: the first few of them are a sample as well.
    own = generator.choice(len(vectors), min(SAMPLE_SIZE, len(vectors)), replace=False)
    return np.ascontiguousarray(vectors[own]), own


class _Trial:
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
            factors = _CANDIDATES if self._k <= TUNED_AT[0] else _CANDIDATES[::2]
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
        if found and self._k <= TUNED_AT[0]:
            found += self._measured(self._refined(found, targets), len(self._queries))
        return _pareto([points[0, 0], *found])

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

    def _refined(self, points: list[OperatingPoint], targets: Iterable[float]) -> list[tuple[int, int]]:
        """A finer grid where a target lies: fewer leaves than the cheapest point that holds it, down to the
        next step, with as many candidates and with more; and that point itself, timed anew beside them."""
        steps = _steps(self._engine.leaves, _FINE)
        grid: set[tuple[int, int]] = set()
        for target in targets:
            holding = [point for point in points if point.recall.low >= target]
            if not holding:
                continue
            best = min(holding, key=lambda point: point.cost)
            below = max((step for step in steps if step < best.leaves), default=0)
            between = np.linspace(below, best.leaves, _BETWEEN + 2).round().astype(int)[1:].tolist()
            more = [factor for factor in _CANDIDATES if ceil(self._k * factor) > best.candidates]
            sizes = {best.candidates, *(ceil(self._k * factor) for factor in more[:1])}
            grid |= {(leaves, candidates) for leaves in between for candidates in sizes}
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
        steps = _steps(self._engine.leaves, _FINE if self._k <= TUNED_AT[0] else _COARSE)
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


def _pareto(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Cheapest first, each with a higher recall to rely on than the one before."""
    front: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.recall.low)):
        if not front or point.recall.low > front[-1].recall.low:
            front.append(point)
    return front
