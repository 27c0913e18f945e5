"""Measures filtered search on filters made up for the purpose, so that planning rests on figures.

The filters are of two kinds: independent of the vectors, and against the queries (only what is farthest from
them passes, or only what is nearest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from time import process_time
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..distance import Floats
from ..engines import Engine, ExactEngine, QueryParameters, Rows
from ..tuning import OperatingPoint, Recall, recall_of
from .inverted import as_bitmap
from .leaves import Work, search_leaves
from .partition import Lift, Partition
from .passing import Passing
from .plan import CALIBRATED_AT, FilterTuning, LeafPoint, PostPoint
from .scoring import scan

QUERIES = 512
_LEAF_SELECTIVITIES = (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
_POST_SELECTIVITIES = (0.9, 0.7, 0.5, 0.35, 0.25, 0.18)
_MISSING = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.03)
_WIDENINGS, _SCORED, _LEAVES = (1.3, 1.6, 2.2), (1.5, 2.5, 4.0), (1, 2, 4)
_GATHER_BYTES = 256 << 20
_BATCH = 256
_REPEATS = 2
_ANCHORS = 4
_TRUTH_WIDTH = (
    128  # at the least selectivity for post-filtering, 128 nearest hold 10 that pass, near certainly
)

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class _Trial:
    """A filter, the queries that ask with it, and how many rows each found of what it should have."""

    passing: Passing
    queries: Floats
    floor: Floats  # the k-th best score of each query

    def hits(self, scores: Floats) -> npt.NDArray[np.int64]:
        counted: npt.NDArray[np.int64] = (scores >= self.floor[:, np.newaxis]).sum(axis=1)
        return np.minimum(counted, CALIBRATED_AT)


def calibrate(
    engine: Engine,
    exact: ExactEngine,
    vectors: Floats,
    partition: Partition,
    lift: Lift,
    queries: Floats,
    own: Rows | None,
    point: OperatingPoint,
    seed: int,
) -> FilterTuning:
    """Measure all three ways.

    Args:
        engine: The approximate one.
        exact: Over the same vectors.
        vectors: float32 [n, dimension].
        partition: Of them.
        lift: Theirs.
        queries: float32 [q, dimension].
        own: The row each query was drawn from, which no filter lets pass; None if they are queries of a user.
        point: The engine's own operating point; post-filtering starts from its leaves.
        seed: Of the filters.
    """
    generator = np.random.default_rng(seed)
    lifted = lift.queries(queries)
    allowed = np.ones(len(vectors), bool)
    if own is not None:
        allowed[own] = False

    def passing(mask: npt.NDArray[np.bool_]) -> Passing:
        slots = np.flatnonzero((mask & allowed)[partition.row_of_slot]).astype(np.uint32)
        return Passing(as_bitmap(slots), partition, vectors, lift)

    def against(chosen: npt.NDArray[np.intp], among: Passing) -> _Trial:
        asked = lifted[chosen]
        floor = np.concatenate(
            [scan(b, among.gathered, CALIBRATED_AT)[0].min(axis=1) for b in _batches(asked)]
        )
        return _Trial(among, asked, floor)

    some = np.flatnonzero(generator.random(len(vectors)) < min(1.0, 8192 / len(vectors)))
    gather_row, _ = _timed(lambda: lift.vectors(vectors[some]))
    gathered = lift.vectors(vectors[some])
    scan_row, _ = _timed(lambda: scan(lifted[:_BATCH], gathered, CALIBRATED_AT))
    scan_row /= len(some) * len(lifted[:_BATCH])

    leaf_points: list[LeafPoint] = []
    slopes: list[float] = []
    everyone = np.arange(len(queries))
    for selectivity in _LEAF_SELECTIVITIES:
        rows = selectivity * len(vectors)
        if rows * vectors.shape[1] * 4 > _GATHER_BYTES:
            continue
        trial = against(everyone, passing(generator.random(len(vectors)) < selectivity))
        tried = {missing: _try_leaves(partition, trial, missing) for missing in _MISSING}
        if min(seconds for _, seconds, _ in tried.values()) > rows * scan_row:
            break  # scanning is cheaper here and below, so recall here does not matter
        (_, less, few), (_, more, many) = tried[_MISSING[0]], tried[_MISSING[-1]]
        slopes.append((more - less) / max(1.0, many - few))
        hits: dict[tuple[int, float], list[npt.NDArray[np.int64]]] = {}
        for place, (chosen, mask) in enumerate(_correlated(vectors, lift, lifted, selectivity, generator)):
            trial = against(chosen, passing(mask))
            for missing in _MISSING:
                counted = trial.hits(_leaves(partition, trial, missing, Work()))
                hits.setdefault((place % 2, missing), []).append(counted)
        for missing, (recall, seconds, _) in tried.items():
            kinds = [recall_of(np.concatenate(hits[kind, missing]), CALIBRATED_AT) for kind in (0, 1)]
            worst = min([recall, *kinds], key=lambda recall: recall.low)
            leaf_points.append(LeafPoint(selectivity, missing, worst, seconds))
    nearest, _ = exact.search(queries, min(len(vectors), _TRUTH_WIDTH))
    masks = {s: (generator.random(len(vectors)) < s) & allowed for s in _POST_SELECTIVITIES}
    return FilterTuning(
        leaf_points,
        [tried for s, mask in masks.items() for tried in _post(engine, queries, nearest, mask, s, point)],
        scan_row,
        max(scan_row, float(np.median(slopes)) if slopes else scan_row),
        gather_row / len(some),
    )


def _try_leaves(partition: Partition, trial: _Trial, missing: float) -> tuple[Recall, float, float]:
    """Recall, seconds a query, and rows scored a query."""
    work = Work()
    seconds, scores = _timed(lambda: _leaves(partition, trial, missing, work))
    asked = len(trial.queries)
    return recall_of(trial.hits(scores), CALIBRATED_AT), seconds / asked, work.rows / (_REPEATS * asked)


def _leaves(partition: Partition, trial: _Trial, missing: float, work: Work) -> Floats:
    found = [
        search_leaves(partition, trial.passing, batch, CALIBRATED_AT, missing, work)[0]
        for batch in _batches(trial.queries)
    ]
    return np.concatenate(found)


def _correlated(
    vectors: Floats, lift: Lift, queries: Floats, selectivity: float, generator: np.random.Generator
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
    """Some queries that lie together, and what is farthest from them, or nearest to them."""
    rows = max(1, int(selectivity * len(vectors)))
    for anchor in queries[generator.choice(len(queries), min(_ANCHORS, len(queries)), replace=False)]:
        alike = queries @ anchor
        together = np.argsort(-alike, kind="stable")[: max(1, len(queries) // (2 * _ANCHORS))]
        nearness = np.concatenate([lift.vectors(block) @ anchor for block in _batches(vectors, 16_384)])
        order = np.argpartition(nearness, (rows, len(vectors) - rows))
        for chosen in (order[:rows], order[len(vectors) - rows :]):
            mask = np.zeros(len(vectors), bool)
            mask[chosen] = True
            yield together, mask


def _post(
    engine: Engine,
    queries: Floats,
    nearest: Rows,
    mask: npt.NDArray[np.bool_],
    selectivity: float,
    point: OperatingPoint,
) -> list[PostPoint]:
    """The Pareto front of post-filtering at one selectivity, cheapest first."""
    truth = first_passing(nearest, mask, CALIBRATED_AT)
    points = []
    for widening, scored, leaves in product(_WIDENINGS, _SCORED, _LEAVES):
        width = ceil(widening * CALIBRATED_AT / selectivity)
        parameters = QueryParameters(ceil(max(1, point.leaves) * leaves), ceil(width * scored))

        def search(width: int = width, parameters: QueryParameters = parameters) -> Rows:
            found = [engine.search(batch, width, parameters)[0] for batch in _batches(queries)]
            return first_passing(np.concatenate(found), mask, CALIBRATED_AT)

        seconds, rows = _timed(search)
        hits = ((rows[:, :, np.newaxis] == truth[:, np.newaxis]) & (rows[:, :, np.newaxis] >= 0)).sum(
            axis=(1, 2)
        )
        recall = recall_of(hits, CALIBRATED_AT)
        cost = seconds / len(queries)
        points.append(
            PostPoint(
                selectivity,
                width * selectivity / CALIBRATED_AT,
                parameters.leaves,
                parameters.candidates,
                recall,
                cost,
            )
        )
    front: list[PostPoint] = []
    for candidate in sorted(points, key=lambda candidate: (candidate.cost, -candidate.recall.low)):
        if not front or candidate.recall.low > front[-1].recall.low:
            front.append(candidate)
    return front


def first_passing(rows: Rows, mask: npt.NDArray[np.bool_], k: int) -> Rows:
    """The first k of each query's ranked rows [q, w] that pass, int64 [q, k], padded with −1."""
    kept = mask[rows] & (rows >= 0)
    order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    found = np.where(np.take_along_axis(kept, order, 1), np.take_along_axis(rows, order, 1), -1)
    return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)


def _batches(queries: Floats, size: int = _BATCH) -> Iterator[Floats]:
    return (queries[start : start + size] for start in range(0, len(queries), size))


def _timed(task: Callable[[], T]) -> tuple[float, T]:
    """The shortest of a few runs, in seconds of processor, and the last result.

    Processor time is what a query takes from others, and does not count what else the machine is doing.
    """
    seconds = np.inf
    for _ in range(_REPEATS):
        began = process_time()
        result = task()
        seconds = min(seconds, process_time() - began)
    return seconds, result
