"""Which way a filtered search goes: the choice follows from costs measured when the index was built."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, inf
from typing import TypeVar

import msgspec

from ..tuning import Recall

CALIBRATED_AT = 10
_ABOUT = 1.1
_WIDER = 4


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
    """A stopping rule for search by leaf, and what it brought at one selectivity.

    `missing` is as in `search_leaves`; `recall` is the worst of that under filters independent of the vectors
    and under filters against the queries; `cost` is seconds a query under the first.
    """

    selectivity: float
    missing: float
    recall: Recall
    cost: float


class PostPoint(msgspec.Struct, frozen=True):
    """Engine parameters for post-filtering at one selectivity; `widening` is neighbors asked for over k."""

    selectivity: float
    widening: float
    leaves: int
    candidates: int
    recall: Recall
    cost: float


class FilterTuning(msgspec.Struct, frozen=True):
    """What was measured at build, at k = 10; times are seconds on the machine that built.

    `scan_row` is a query's cost of one row scanned, `leaf_row` of one found by leaf, `gather_row` that of
    copying one row.
    """

    leaf_points: list[LeafPoint]
    post_points: list[PostPoint]
    scan_row: float
    leaf_row: float
    gather_row: float


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
    """

    path: Path
    passing: int
    total: int
    leaves: float = 0.0
    candidates: float = 0.0
    short: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


P = TypeVar("P", LeafPoint, PostPoint)


@dataclass(frozen=True, slots=True)
class Choice:
    """A path with its parameters: a `LeafPoint` for LEAVES, a `PostPoint` for POST.

    `exact` asks for distances and ties as the exact engine has them, and not only for scanning every row.
    """

    path: Path
    leaf: LeafPoint | None = None
    post: PostPoint | None = None
    exact: bool = False


def choose_path(
    tuning: FilterTuning | None,
    target: float | None,
    k: int,
    passing: int,
    total: int,
    queries: int,
    gathered: bool,
) -> Choice:
    """The cheapest path measured to reach the target.

    Args:
        tuning: None where the index has no partition: then everything is exact.
        target: Recall; None or 1 for exact search.
        k: Neighbors wanted.
        passing: Rows that pass.
        total: Rows there are.
        queries: How many ask at once.
        gathered: Whether the passing rows' vectors are at hand.
    """
    if tuning is None or target is None or target >= 1:
        return Choice(Path.EXACT, exact=True)
    if passing <= k:
        return Choice(Path.EXACT)
    selectivity = passing / total
    leaf = _cheapest(_at(tuning.leaf_points, selectivity), target)
    post = _cheapest(_at(tuning.post_points, selectivity), target) if k <= CALIBRATED_AT else None
    costs = {
        Path.EXACT: passing * (tuning.scan_row + (0 if gathered else tuning.gather_row / max(1, queries))),
        Path.LEAVES: leaf.cost if leaf else inf,
        Path.POST: post.cost if post else inf,
    }
    return Choice(min(costs, key=lambda path: costs[path]), leaf, post)


def width_of(point: PostPoint, k: int, selectivity: float) -> int:
    """Neighbors to ask the engine for."""
    return ceil(point.widening * max(k, CALIBRATED_AT) / selectivity)


def widened(point: PostPoint) -> PostPoint:
    """For the few queries that came up short by chance: the next net is four times as wide."""
    return msgspec.structs.replace(
        point,
        widening=_WIDER * point.widening,
        leaves=_WIDER * point.leaves,
        candidates=_WIDER * point.candidates,
    )


def _at(points: list[P], selectivity: float) -> list[P]:
    """The points measured at about this selectivity, or at the next lower one, which is harder."""
    lower = [point.selectivity for point in points if point.selectivity <= _ABOUT * selectivity]
    return [point for point in points if point.selectivity == max(lower, default=None)]


def _cheapest(points: list[P], target: float) -> P | None:
    holding = [point for point in points if point.recall.low >= target]
    return min(holding, key=lambda point: point.cost, default=None)
