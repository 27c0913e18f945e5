"""Which way a filtered search goes: the choice follows from costs measured when the index was built."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial

import msgspec

from ..tuning import Recall
from .post import PostPoint, Rung, chance_of_fewer, ladder

CALIBRATED_AT = (10, 100)
_ABOUT = 1.1
_OFTEN = 0.3
_STRAGGLER = 2  # what a query that is asked again costs, beside one of a batch


class Path(StrEnum):
    """The three ways.

    EXACT scores every row that passes. LEAVES scores those in the leaves that can matter. POST asks the
    engine for more neighbors than wanted and drops what does not pass; a query that comes up short goes
    another way.
    """

    EXACT = "exact over rows"
    LEAVES = "leaves"
    POST = "post-filter"


class LeafPoint(msgspec.Struct, frozen=True):
    """A stopping rule for search by leaf, and what it brought at one k and selectivity.

    `missing` is as in `search_leaves`; `recall` is the worst of that under filters independent of the vectors
    and under filters against the queries; `cost` is seconds a query in a large batch under the first, `alone`
    for one that comes alone.
    """

    k: int
    selectivity: float
    missing: float
    recall: Recall
    cost: float
    alone: float


class ScanCost(msgspec.Struct, frozen=True):
    """Seconds of a search that scores every row that passes.

    `row` a row and query in a large batch, `alone` a row for a query alone, `gather` for copying a row.
    """

    row: float
    alone: float
    gather: float


class FilterTuning(msgspec.Struct, frozen=True):
    """What was measured at build; times are seconds on the machine that built.

    `leaf_row` is a query's cost of one more row found by leaf.
    """

    leaf_points: list[LeafPoint]
    post_points: list[PostPoint]
    scan: ScanCost
    leaf_row: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a filtered search did.

    Attributes:
        path: The way it was begun.
        passing: Datapoints that pass the filter.
        total: Datapoints there are.
        leaves: Visits to leaves, a query on average.
        candidates: Rows scored, a query on average; by the engine's count where it post-filtered.
        short: Queries that the engine answered with too few that pass, and that were asked again.
        seconds: By step.
        promised: Recall that the way was measured to hold: 1 where every row that passes is scored, the lower
            end of what was measured by leaf, the target where an answer is believed by its ranks.
    """

    path: Path
    passing: int
    total: int
    leaves: float = 0.0
    candidates: float = 0.0
    short: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    promised: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A path with its parameters: a `LeafPoint` for LEAVES, for POST the rungs from the one to begin with.

    `otherwise` is the way for queries that no rung answers. `exact` asks for distances and ties as the exact
    engine has them, and not only for scanning every row.
    """

    path: Path
    leaf: LeafPoint | None = None
    rungs: tuple[Rung, ...] = ()
    otherwise: Path = Path.EXACT
    exact: bool = False

    def promised(self, target: float | None) -> float:
        """See `Plan`."""
        if self.path is Path.LEAVES and self.leaf is not None:
            return self.leaf.recall.low
        return 1.0 if self.path is Path.EXACT or target is None else target


class Planner:
    """Chooses ways by what calibration measured.

    Args:
        tuning: None where the index has no partition: then everything is exact.
        total: Rows there are.
    """

    def __init__(self, tuning: FilterTuning | None, total: int) -> None:
        self._tuning = tuning
        self._total = total
        self._ladder = lru_cache(maxsize=64)(partial(ladder, tuning.post_points if tuning else []))
        self.choose = lru_cache(maxsize=1024)(self._choose)  # tens of µs a query

    def _choose(self, target: float | None, k: int, passing: int, queries: int, gather_for: int) -> Choice:
        """The cheapest path measured to reach the target.

        Args:
            target: Recall; None or 1 for exact search.
            k: Neighbors wanted.
            passing: Rows that pass.
            queries: How many ask at once.
            gather_for: How many queries share the cost of copying the vectors of what passes; 0 where that is
                done.
        """
        tuning = self._tuning
        if tuning is None or target is None or target >= 1:
            return Choice(Path.EXACT, exact=True)
        if passing <= k:
            return Choice(Path.EXACT)
        selectivity, queries = passing / self._total, max(1, queries)
        leaf = _cheapest(_at(tuning.leaf_points, k, selectivity), target, queries)
        rows = passing * _each(tuning.scan.row, tuning.scan.alone, queries)
        costs = {Path.EXACT: rows + (passing * tuning.scan.gather / gather_for if gather_for else 0)}
        if leaf is not None:
            costs[Path.LEAVES] = _each(leaf.cost, leaf.alone, queries)
        fallback = min(costs, key=lambda path: costs[path])
        otherwise = costs[fallback]
        rungs = self._ladder(target)
        expected: dict[int, float] = {}
        for place, rung in enumerate(rungs):
            chance = chance_of_fewer(k, rung.width, selectivity)
            if chance < _OFTEN:
                after = min([otherwise, *(wider.cost for wider in rungs[place + 1 :])])
                expected[place] = _each(rung.cost, rung.alone, queries) + _STRAGGLER * chance * after
        first = min(expected, key=lambda place: expected[place], default=len(rungs))
        if expected:
            costs[Path.POST] = expected[first]
        worthwhile = tuple(
            rung for rung in rungs[first:] if _each(rung.cost, rung.alone, queries) < otherwise
        )
        if worthwhile:
            worthwhile = (worthwhile[0].narrowed(k, selectivity), *worthwhile)
        return Choice(min(costs, key=lambda path: costs[path]), leaf, worthwhile, fallback)


def _each(batched: float, alone: float, queries: int) -> float:
    """What one of so many queries costs: what a call costs is shared."""
    return batched + max(0.0, alone - batched) / queries


def _at(points: list[LeafPoint], k: int, selectivity: float) -> list[LeafPoint]:
    """The points measured at k, or the next larger, or the largest; and at about this selectivity, or at the
    next lower one, which is harder."""
    measured = min((point.k for point in points if point.k >= k), default=CALIBRATED_AT[-1])
    lower = [p.selectivity for p in points if p.k == measured and p.selectivity <= _ABOUT * selectivity]
    return [p for p in points if p.k == measured and p.selectivity == max(lower, default=None)]


def _cheapest(points: list[LeafPoint], target: float, queries: int) -> LeafPoint | None:
    holding = [point for point in points if point.recall.low >= target]
    return min(holding, key=lambda point: _each(point.cost, point.alone, queries), default=None)
