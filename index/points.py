"""Operating points: query parameters, the recall measured for them and what they cost.

What one measurement says of a cost is not believed where many are compared; all of them together are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

_Z = 1.96  # two-sided 95 %
_OUTLIER = 0.1  # of a cost, where its measurement is doubted
_MANY, _FIRST_TERMS = 12, 3  # with fewer points, a constant, leaves and candidates must do


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


def recall_of(hits: npt.NDArray[np.int64], k: int) -> Recall:
    """Mean recall with a Wilson interval.

    The k hits of one query depend on each other, so the interval counts not q·k trials but as many as
    the variance between queries speaks for (Kish's design effect), between q and q·k.

    Args:
        hits: True neighbors found by each query, int64 [q].
        k: True neighbors there are for each.
    """
    (recall,) = recalls_of(hits[:, np.newaxis], k)
    return recall


def recalls_of(hits: npt.NDArray[np.int64], k: int) -> list[Recall]:
    """`recall_of` each column of hits [q, m], in a few steps for all."""
    count = len(hits)
    means = hits.sum(axis=0) / (count * k)
    variances = np.var(hits / k, axis=0) / count
    found = []
    for p, between in zip(means.tolist(), variances.tolist(), strict=True):
        trials = min(max(p * (1 - p) / between, count), count * k) if between > 0 else count * k
        centre = (p + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
        half = _Z / (1 + _Z**2 / trials) * sqrt(p * (1 - p) / trials + _Z**2 / (4 * trials**2))
        found.append(
            Recall(round(p, 5), round(max(0.0, centre - half), 5), round(min(1.0, centre + half), 5))
        )
    return found


class Measured(Protocol):
    """Query parameters and what they were measured to cost, in any unit."""

    @property
    def leaves(self) -> int:
        """As in `QueryParameters`."""

    @property
    def candidates(self) -> int:
        """As in `QueryParameters`."""

    @property
    def cost(self) -> float:
        """Of one query."""


def cost_model(points: Sequence[Measured]) -> Callable[[int, int], float]:
    """What leaves and candidates cost, by all that was measured: a smooth function of both.

    Where many points are compared, the cheapest is the one that was mismeasured most; one function of a few
    terms through all of them is wrong by a few percent, and in the same direction for neighbors.
    """
    kept = None if len(points) >= _MANY else _FIRST_TERMS
    terms = np.array([_terms(point.leaves, point.candidates)[:kept] for point in points])
    costs = np.array([point.cost for point in points])
    weights = 1 / costs
    for _ in range(4):  # least squares of relative errors, those of outliers counted less each time
        factors = np.linalg.lstsq(terms * weights[:, np.newaxis], costs * weights, rcond=None)[0]
        wrong = np.abs(terms @ factors / costs - 1)
        weights = np.minimum(1, _OUTLIER / np.maximum(wrong, 1e-9)) / costs
    least = float(costs.min()) / 2
    return lambda leaves, candidates: max(least, float(np.dot(_terms(leaves, candidates)[:kept], factors)))


def smoothed(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """The same points at the cost that all of them together speak for; see `cost_model`."""
    if not points:
        return []
    cost_of = cost_model(points)
    return [
        msgspec.structs.replace(point, cost=round(cost_of(point.leaves, point.candidates), 6))
        for point in points
    ]


def _terms(leaves: int, candidates: int) -> tuple[float, ...]:
    return 1.0, leaves, candidates, sqrt(leaves), sqrt(leaves * candidates)


def pareto(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Cheapest first, each with a higher recall to rely on than the one before."""
    front: list[OperatingPoint] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.recall.low)):
        if not front or point.recall.low > front[-1].recall.low:
            front.append(point)
    return front
