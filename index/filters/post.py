"""Post-filtering: ask the engine for more neighbors than wanted, and keep those that pass.

How far that is safe is known by rank: of the true j-th neighbors a measured share is found. A filter does not
change which rows the engine finds, only which of them count; so however it lies, an answer can be believed
that ends before the rank at which the engine begins to find too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import erf, inf, sqrt

import msgspec
import numpy as np
import numpy.typing as npt

from ..distance import Floats
from ..engines import Engine, QueryParameters, Rows
from ..points import cost_model
from ..tuning import recall_of
from .clock import timed

RANKS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_CANDIDATES = (16, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 512, 1024, 2048)
_STEPS = 2 * 16  # of leaves, two to a doubling
_WORTHWHILE = 0.002  # of recall, at some rank
_TARGETS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
_ALONE = 32  # queries asked one by one
_BATCH = 256
_SECONDS = 0.025  # for a measurement, with fewer queries where each takes long
_FEWEST = 128
_WIDER = 1.2  # than the rung before, or it is none
_CHANCE = 0.01  # so far over its share of doubt an answer may be by chance
_TINY = 1e-3
_SELDOM = 0.002


class PostPoint(msgspec.Struct, frozen=True):
    """Engine parameters, and what they bring.

    `recall` is the share of true neighbors found whose rank is up to RANKS[0], then up to RANKS[1] but over
    RANKS[0], and so on: the lower end of its 95 % interval. `cost` is seconds a query in a large batch,
    `alone` for one that comes alone.
    """

    leaves: int
    candidates: int
    recall: list[float]
    cost: float
    alone: float

    def doubts(self) -> npt.NDArray[np.float64]:
        """By rank: how many neighbors there are for each one that is found, [up to RANKS[-1]]."""
        bands = np.diff((0, *RANKS[: len(self.recall)]))
        doubts: npt.NDArray[np.float64] = np.repeat(1 / np.maximum(self.recall, _TINY), bands)
        return doubts


@dataclass(frozen=True, slots=True, eq=False)
class Rung:
    """Engine parameters, and how far what they find can be believed.

    Attributes:
        parameters: To ask with.
        width: Neighbors to ask for.
        doubts: As in `PostPoint`, of these.
        target: Recall, which a filter independent of the vectors reaches if k neighbors pass.
        cost: As in `PostPoint`.
        alone: Likewise.
    """

    parameters: QueryParameters
    width: int
    doubts: npt.NDArray[np.float64]
    target: float
    cost: float
    alone: float

    def narrowed(self, k: int, selectivity: float) -> Rung:
        """The same, asked for no more neighbors than it takes to have k pass, nearly always."""
        enough = (w for w in range(k, self.width) if chance_of_fewer(k, w, selectivity) <= _SELDOM)
        width = next(enough, self.width)
        return replace(self, width=width, doubts=self.doubts[:width])

    def is_safe(self, ranks: Rows) -> npt.NDArray[np.bool_]:
        """Whether the neighbors of these ranks [q, k], counted from 0, are enough of those that there are.

        It is not where a filter is against a query: what passes lies far out, where less is found.
        """
        safe: npt.NDArray[np.bool_] = (
            self.doubts[ranks].sum(axis=1) * self.target <= (1 + _CHANCE) * ranks.shape[1]
        )
        return safe


def ladder(points: Sequence[PostPoint], target: float) -> list[Rung]:
    """What can be asked for a target recall, cheapest first, each rung wider than the one before."""
    rungs: list[Rung] = []
    for point in sorted(points, key=lambda point: point.cost):
        doubts = point.doubts()
        places = np.flatnonzero(doubts.cumsum() * target <= np.arange(1, len(doubts) + 1))
        width = int(places[-1]) + 1 if len(places) else 0
        if width >= RANKS[0] and width > (_WIDER * rungs[-1].width if rungs else 0):
            parameters = QueryParameters(point.leaves, point.candidates)
            rungs.append(Rung(parameters, width, doubts[:width], target, point.cost, point.alone))
    return rungs


def chance_of_fewer(k: int, width: int, selectivity: float) -> float:
    """That of so many neighbors fewer than k pass, if the filter has nothing to do with the vectors."""
    deviation = sqrt(width * selectivity * (1 - selectivity)) or 1e-9
    return 0.5 * (1 + erf((k - 0.5 - width * selectivity) / deviation / sqrt(2)))


def passing_neighbors(
    engine: Engine, queries: Floats, k: int, mask: npt.NDArray[np.bool_], rung: Rung
) -> tuple[Rows, Floats, Rows]:
    """The first k neighbors that pass.

    Args:
        engine: To be asked.
        queries: float32 [q, dimension].
        k: At most `rung.width`.
        mask: What passes, bool [n].
        rung: How to ask.

    Returns:
        rows and distances [q, k], and how many of all the neighbors pass [q]; fewer than k where too few do,
        or where the answer is not safe: what rows and distances say is then meaningless.
    """
    found, values = engine.search(queries, rung.width, rung.parameters)
    kept = mask.take(found, mode="clip")
    kept &= found >= 0
    place = np.cumsum(kept, axis=1, dtype=np.int16)
    passed = place[:, -1].astype(np.int64)
    answered = passed >= k
    kept &= place <= k
    starts = (rung.width * np.arange(len(found)))[:, np.newaxis]
    if answered.all():
        order = np.flatnonzero(kept).reshape(-1, k)
    else:
        order = np.repeat(starts, k, axis=1)
        order[answered] = np.flatnonzero(kept & answered[:, np.newaxis]).reshape(-1, k)
    passed[answered & ~rung.is_safe(order - starts)] = k - 1
    return found.ravel()[order], values.ravel()[order], passed


def next_rung(rungs: Sequence[Rung], width: int, k: int, selectivity: float, passed: Rows) -> Rung | None:
    """For queries of whose `width` neighbors too few passed: the rung where most should find k, or None.

    Was it chance (half of k or more), neighbors further on pass as others do; if not, as these did.
    """
    share = np.where(2 * passed >= k, selectivity, np.minimum(selectivity, np.maximum(passed, 0.5) / width))
    for rung in rungs:
        expected = passed + (rung.width - width) * share
        if rung.width > width and np.median(expected) >= k + sqrt(k):
            return rung
    return None


def measure(engine: Engine, queries: Floats, truth: Rows, dearest: float) -> list[PostPoint]:
    """Recall by rank at the engine parameters that are worth having, cheapest first.

    Leaves grow, and for each number of them candidates, as long as it helps and costs no more than
    `dearest`: few candidates limit what many leaves can find, so what did not gain from the last step of the
    leaves is not tried again.

    Args:
        engine: With leaves.
        queries: float32 [q, dimension].
        truth: The true neighbors of each, best first, int64 [q, up to RANKS[-1]].
        dearest: Seconds a query.
    """
    stamps = np.full(int(truth.max()) + 1, -1, np.int32)
    points: dict[tuple[int, int], PostPoint] = {}
    sizes = [candidates for candidates in _CANDIDATES if candidates <= 4 * truth.shape[1]]
    steps = sorted({min(engine.leaves, round(2 ** (step / 2))) for step in range(_STEPS)})
    cost = 0.0
    for fewer, leaves in pairwise((0, *steps)):
        gained = []
        for less, candidates in pairwise((0, *sizes)):
            few = max(_FEWEST, int(_SECONDS / max(cost, 1e-6)))
            parameters = QueryParameters(leaves, candidates)
            point = _measured(engine, queries[:few], truth[:few], parameters, stamps)
            if point.cost > dearest:
                break
            cost = point.cost
            points[leaves, candidates] = point
            if _gain(point, points.get((fewer, candidates))) > _WORTHWHILE:
                gained.append(candidates)
            if _gain(point, points.get((leaves, less))) <= _WORTHWHILE:
                break
        sizes = [candidates for candidates in sizes if candidates >= min(gained, default=inf)]
        if not sizes:
            break
    # One timing sorts the grid; what is left of it is timed with care.
    for place in _useful(_smoothed(list(points.values()))):
        points[place] = _timed(engine, queries, points[place])
    even = {(point.leaves, point.candidates): point for point in _smoothed(list(points.values()))}
    kept = [even[place] for place in _useful(list(even.values()))]
    kept = [_timed(engine, queries, point) if point.alone == inf else point for point in kept]
    return sorted(kept, key=lambda point: point.cost)


def _useful(points: list[PostPoint]) -> set[tuple[int, int]]:
    """Those that any target would climb."""
    return {
        (rung.parameters.leaves, rung.parameters.candidates)
        for target in _TARGETS
        for rung in ladder(points, target)
    }


def _smoothed(points: list[PostPoint]) -> list[PostPoint]:
    """At the cost that all of them together speak for."""
    if not points:
        return []
    cost_of = cost_model(points)
    return [msgspec.structs.replace(p, cost=cost_of(p.leaves, p.candidates)) for p in points]


def _measured(
    engine: Engine, queries: Floats, truth: Rows, parameters: QueryParameters, stamps: npt.NDArray[np.int32]
) -> PostPoint:
    """Recall by rank and, from one run, the cost."""
    width = min(parameters.candidates, truth.shape[1])
    cost, found = timed(
        lambda: _search(engine, queries, width, parameters, _BATCH), 1, on_device=engine.on_device
    )
    hits = np.empty(truth.shape, bool)
    stamps.fill(-1)
    for query, rows in enumerate(found):
        stamps[rows[(rows >= 0) & (rows < len(stamps))]] = query
        hits[query] = stamps[truth[query]] == query
    bands = [hits[:, first:last] for first, last in pairwise((0, *RANKS)) if last <= truth.shape[1]]
    recall = [recall_of(band.sum(axis=1), band.shape[1]).low for band in bands]
    return PostPoint(parameters.leaves, parameters.candidates, recall, cost / len(queries), inf)


def _timed(engine: Engine, queries: Floats, point: PostPoint) -> PostPoint:
    parameters = QueryParameters(point.leaves, point.candidates)
    width = min(point.candidates, RANKS[-1])
    batch, few = queries[:_BATCH], queries[:_ALONE]
    cost, _ = timed(lambda: _search(engine, batch, width, parameters, _BATCH), on_device=engine.on_device)
    alone, _ = timed(lambda: _search(engine, few, width, parameters, 1), on_device=engine.on_device)
    cost, alone = min(point.cost, cost / len(batch)), alone / len(few)
    return msgspec.structs.replace(point, cost=cost, alone=max(cost, alone))


def _search(engine: Engine, queries: Floats, width: int, parameters: QueryParameters, batch: int) -> Rows:
    starts = range(0, len(queries), batch)
    return np.concatenate(
        [engine.search(queries[start : start + batch], width, parameters)[0] for start in starts]
    )


def _gain(point: PostPoint, other: PostPoint | None) -> float:
    """How much more the one finds than the other, at the rank where that is most."""
    if other is None:
        return inf
    return max(mine - theirs for mine, theirs in zip(point.recall, other.recall, strict=True))
