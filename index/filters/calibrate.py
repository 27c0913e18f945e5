"""Measures filtered search on filters made up for the purpose, so that planning rests on figures.

The filters are of two kinds: independent of the vectors, and against the queries (only what is farthest from
them passes, or only what is nearest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from ..distance import Floats
from ..engines import Engine, ExactEngine, Rows
from ..tuning import Recall, recall_of
from ..vectors import gathered, squared_norms
from .clock import one_thread, timed
from .inverted import as_bitmap
from .leaves import Work, search_leaves
from .partition import Lift, Partition
from .passing import Passing
from .plan import CALIBRATED_AT, FilterTuning, LeafPoint, ScanCost
from .post import RANKS, measure
from .scoring import scan

QUERIES = 1024
_LEAF_QUERIES = 256
_SELECTIVITIES = (0.3, 0.1, 0.03, 0.01)
_MISSING = (4.0, 2.0, 1.4, 1.0, 0.7, 0.4, 0.15, 0.05, 0.02)
_GATHER_BYTES = 256 << 20
_BATCH = 256
_ALONE = 16
_ANCHORS = 4
_ENOUGH = 0.99
_ROUNDING = np.float32(1e-6)  # of a product of float32, as a share of both lengths
_DEAREST = 1 / 4  # of scoring every row; what costs more than this is no use for post-filtering

Step = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class _Trial:
    """A filter, the queries that ask with it, and the k-th best score of each, less what is rounded."""

    passing: Passing
    queries: Floats
    floor: Floats
    k: int

    @classmethod
    def of(cls, passing: Passing, queries: Floats, k: int) -> _Trial:
        found = [scan(batch, passing.gathered, k)[0] for batch in _batches(queries)]
        # Products of other shapes are summed in another order: the k-th itself may come out a little less.
        lengths = np.sqrt(squared_norms(queries) * squared_norms(passing.gathered).max())
        floor: Floats = np.concatenate(found).min(axis=1)
        floor -= _ROUNDING * lengths
        return cls(passing, queries, floor, k)

    def hits(self, scores: Floats) -> npt.NDArray[np.int64]:
        """How many rows each query found of what it should have."""
        counted: npt.NDArray[np.int64] = (scores >= self.floor[:, np.newaxis]).sum(axis=1)
        return np.minimum(counted, self.k)


def calibrate(
    engine: Engine,
    exact: ExactEngine,
    vectors: Floats,
    partition: Partition,
    lift: Lift,
    queries: Floats,
    own: Rows | None,
    seed: int,
    progress: Step,
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
        seed: Of the filters.
        progress: Called with steps done and all steps.
    """
    with one_thread():
        world = _World(vectors, partition, lift, lift.queries(queries), own, np.random.default_rng(seed))
        scanning = world.scanning()
        progress(1, 4)
        leaf_points, leaf_row = world.by_leaf(scanning)
        progress(2, 4)
        truth = _truth(exact, len(vectors), queries, own)
        progress(3, 4)
        post_points = measure(engine, queries, truth, _DEAREST * scanning.row * len(vectors))
        return FilterTuning(leaf_points, post_points, scanning, leaf_row)


@dataclass(frozen=True, eq=False)
class _World:
    vectors: Floats
    partition: Partition
    lift: Lift
    queries: Floats  # lifted
    own: Rows | None
    generator: np.random.Generator

    def scanning(self) -> ScanCost:
        """On a sample of the rows."""
        count = len(self.vectors)
        some = np.flatnonzero(self.generator.random(count) < min(1.0, 8192 / count))
        gather, found = timed(lambda: self.lift.vectors(gathered(self.vectors, some)))
        batch, few = self.queries[:_BATCH], self.queries[:_ALONE]
        row, _ = timed(lambda: scan(batch, found, CALIBRATED_AT[0]))
        alone, _ = timed(lambda: [scan(few[i : i + 1], found, CALIBRATED_AT[0]) for i in range(len(few))])
        return ScanCost(row / len(some) / len(batch), alone / len(some) / len(few), gather / len(some))

    def by_leaf(self, scanning: ScanCost) -> tuple[list[LeafPoint], float]:
        """What search by leaf brings, and what a row costs that is found by it."""
        points: list[LeafPoint] = []
        leaf_row = scanning.row
        for selectivity in _SELECTIVITIES:
            rows = selectivity * len(self.vectors)
            if rows * self.vectors.shape[1] * 4 > _GATHER_BYTES:
                continue
            anywhere = self._passing(self.generator.random(len(self.vectors)) < selectivity)
            trial = _Trial.of(anywhere, self.queries[:_LEAF_QUERIES], CALIBRATED_AT[0])
            ends = _MISSING[0], _MISSING[-1]
            (less, few), (more, many) = (_cost(self.partition, trial, missing) for missing in ends)
            if less > rows * scanning.row:
                break  # scanning is cheaper here and below, so recall here does not matter
            leaf_row = max(leaf_row, (more - less) / max(1.0, many - few))
            against = [(self._passing(mask), chosen) for chosen, mask in self._correlated(selectivity)]
            for k in (k for k in CALIBRATED_AT if 2 * k <= rows):
                asked = self.queries[: max(1, _LEAF_QUERIES * CALIBRATED_AT[0] // k)]
                trials = [_Trial.of(passing, self.queries[chosen], k) for passing, chosen in against]
                kinds = [_Trial.of(anywhere, asked, k)], trials[::2], trials[1::2]
                points += self._stopping(kinds, selectivity, scanning.row)
        return points, leaf_row

    def _stopping(
        self, kinds: tuple[list[_Trial], ...], selectivity: float, scan_row: float
    ) -> list[LeafPoint]:
        """The stopping rules worth having, where filters of each kind are tried."""
        points = []
        (trial,) = kinds[0]
        for missing in _MISSING:
            cost, _ = _cost(self.partition, trial, missing)
            if cost > len(trial.passing) * scan_row:
                break
            recalls = [_recall(self.partition, trials, missing) for trials in kinds]
            worst = min(recalls, key=lambda recall: recall.low)
            alone = _alone(self.partition, trial, missing)
            points.append(LeafPoint(trial.k, selectivity, missing, worst, cost, alone))
            if worst.low > _ENOUGH:
                break
        # To miss less costs no less: what seems to was measured at a bad moment.
        for place in range(len(points) - 1, 0, -1):
            cheaper = min(points[place - 1].cost, points[place].cost)
            points[place - 1] = msgspec.structs.replace(points[place - 1], cost=cheaper)
        return points

    def _passing(self, mask: npt.NDArray[np.bool_]) -> Passing:
        if self.own is not None:
            mask[self.own] = False
        slots = np.flatnonzero(mask[self.partition.row_of_slot]).astype(np.uint32)
        return Passing(as_bitmap(slots), self.partition, self.vectors, self.lift)

    def _correlated(self, selectivity: float) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]]:
        """Some queries on one side, and what is farthest on the other, or nearest."""
        count, queries = len(self.vectors), self.queries
        rows = max(1, int(selectivity * count))
        for anchor in queries[
            self.generator.choice(len(queries), min(_ANCHORS, len(queries)), replace=False)
        ]:
            # From half of them: the very nearest find what passes in leaves that stand out, and miss less.
            half = np.argsort(-(queries @ anchor), kind="stable")[: max(1, len(queries) // 2)]
            together = half[:: max(1, len(half) * _ANCHORS // _LEAF_QUERIES)]
            blocks = _batches(self.vectors, 16_384)
            nearness = np.concatenate([self.lift.vectors(block) @ anchor for block in blocks])
            order = np.argpartition(nearness, (rows, count - rows))
            for chosen in (order[:rows], order[count - rows :]):
                mask = np.zeros(count, bool)
                mask[chosen] = True
                yield together, mask


def _truth(exact: ExactEngine, count: int, queries: Floats, own: Rows | None) -> Rows:
    """The nearest rows of each query but its own, best first, int64 [q, w]."""
    width = min(count - 1, RANKS[-1])
    rows, _ = exact.search(queries, width + 1)
    if own is None:
        return rows[:, :width]
    others: npt.NDArray[np.bool_] = rows != own[:, np.newaxis]
    others[others.all(axis=1), -1] = False
    return rows[others].reshape(-1, width)


def _cost(partition: Partition, trial: _Trial, missing: float) -> tuple[float, float]:
    """Seconds a query, and rows scored a query."""
    work = Work()
    seconds, _ = timed(lambda: _leaves(partition, trial, missing, work, _BATCH))
    return seconds / len(trial.queries), work.rows / (2 * len(trial.queries))


def _alone(partition: Partition, trial: _Trial, missing: float) -> float:
    few = _Trial(trial.passing, trial.queries[:_ALONE], trial.floor[:_ALONE], trial.k)
    return timed(lambda: _leaves(partition, few, missing, Work(), 1))[0] / len(few.queries)


def _recall(partition: Partition, trials: list[_Trial], missing: float) -> Recall:
    # However many rows that takes: a search gives up leaves for a scan by what its whole batch would visit,
    # so none can count on it.
    hits = [trial.hits(_leaves(partition, trial, missing, Work(), _BATCH)) for trial in trials]
    return recall_of(np.concatenate(hits), trials[0].k)


def _leaves(partition: Partition, trial: _Trial, missing: float, work: Work, batch: int) -> Floats:
    found = [
        search_leaves(partition, trial.passing, queries, trial.k, missing, work)[0]
        for queries in _batches(trial.queries, batch)
    ]
    return np.concatenate(found)


def _batches(queries: Floats, size: int = _BATCH) -> Iterator[Floats]:
    return (queries[start : start + size] for start in range(0, len(queries), size))
