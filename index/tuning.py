"""How hard to look for how much recall, measured on held-out queries against exact truth.

A user names a target recall; the cheapest point that holds it with confidence answers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import msgspec
import numpy as np

from .distance import Floats
from .engines import Engine, ExactEngine, Rows
from .points import OperatingPoint, Recall, recall_of
from .trial import Trial

__all__ = ["OperatingPoint", "Progress", "Recall", "Tuning", "choose", "recall_of", "tune"]

Progress = Callable[[str, int, int], None]
"""(stage, done, total)"""

TUNED_AT = (10, 100)
SAMPLE_SIZE = 2000
_FEWER = 300  # queries where k is large: each brings more neighbors to count
_USUAL_TARGETS = (0.95, 0.99)


class Tuning(msgspec.Struct, frozen=True):
    """What was measured, on which queries, and the point that serves by default.

    `points` are the Pareto front for each k of `TUNED_AT`, cheapest first.
    """

    tuned_on: str
    queries: int
    target_recall: float
    points: list[OperatingPoint]
    chosen: OperatingPoint


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
        trial = Trial(engine, exact, asked[:few], None if own is None else own[:few], k, higher_is_closer)
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
