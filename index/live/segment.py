"""Fresh rows set in order: sealed into leaves, so that a query scores those near it and not all of them.

Inside a leaf every row is scored, so a filter or a removed row costs nothing but its score. How many leaves a
query must visit for a recall is measured when the segment is sealed, from where its rows' own neighbors lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt

from ..distance import DistanceMeasure, Floats
from ..engines import Rows
from ..filters.partition import Lift, kmeans, nearest_leaf
from ..filters.scoring import Visits, best, in_order
from ..points import recalls_of
from ..vectors import dot_products, squared_norms

__all__ = ["Flags", "Segment"]

Flags = npt.NDArray[np.bool_]

_ROWS_A_LEAF = 64
_SAMPLE = {1000: 64, 100: 256, 10: 256}
"""Queries by which it is measured how many leaves k neighbors need, most neighbors first, as the fewer are
sought among the more; where there are many, each query tells more."""
_ITERATIONS = 3  # of k-means; with twice as many a tenth fewer leaves are visited
_WIDENING = 4
_UNIT_ROUNDOFF = 2.0**-24
_OF_THE_REST = 0.5  # of what a target leaves, half may be lost by this rule
_TINY = 1e-20
_REMEMBERED = 256
_SCORES = 1 << 22
_WORTHWHILE = 3  # more than a third of the leaves one by one cost more than all rows in one product


@dataclass(frozen=True, eq=False)
class Segment:
    """Immutable. A place is a row's number within the segment, leaf by leaf.

    Attributes:
        slots: The slot of each place, int64 [n].
        vectors: Lifted, by place, float32 [n, d].
        bounds: Leaf l holds the places bounds[l] to bounds[l + 1]; int64 [leaves + 1].
        centroids: Of the lifted vectors, float32 [leaves, d].
        lift: Turns the measure into a dot product.
        longest: Length of the longest lifted vector.
        spread: Standard deviation of a residual's coordinate in each leaf, float32 [leaves].
        beyond: By how many such deviations a neighbor's score exceeds its leaf's mean, for the nearest ones
            of a sample, ascending, float32 [m].
        needed: By each k of `_SAMPLE`, the recall to rely on when 1, 2, … leaves are visited, [leaves].
    """

    slots: Rows
    vectors: Floats
    bounds: Rows
    centroids: Floats
    lift: Lift
    longest: float
    spread: Floats
    beyond: Floats
    needed: dict[int, npt.NDArray[np.float64]]
    _known: dict[tuple[float, float | None], int] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.slots)

    @classmethod
    def build(cls, vectors: Floats, slots: Rows, measure: DistanceMeasure, seed: int = 0) -> Segment:
        """Partition rows, and measure.

        Args:
            vectors: As they are compared, float32 [n, dimension]; n is at least 2.
            slots: The slot of each, int64 [n].
            measure: As engines see it; not L1, which no leaf can be judged by.
            seed: Of the samples.
        """
        generator = np.random.default_rng(seed)
        lift = Lift.of(vectors, measure)
        leaves = max(1, min(ceil(2 * sqrt(len(vectors))), len(vectors) // _ROWS_A_LEAF))
        leaf = nearest_leaf(vectors, kmeans(vectors, leaves, generator, _ITERATIONS))
        order = np.argsort(leaf, kind="stable")
        bounds = np.unique(np.searchsorted(leaf[order], np.arange(leaves + 1)))  # k-means may leave one empty
        lifted = lift.vectors(vectors[order])
        centroids = np.stack([lifted[start:end].mean(axis=0) for start, end in pairwise(bounds.tolist())])
        longest = float(np.sqrt(squared_norms(lifted).max()))
        residuals = squared_norms(lifted - np.repeat(centroids, np.diff(bounds), axis=0))
        spread = np.sqrt(np.add.reduceat(residuals, bounds[:-1]) / (np.diff(bounds) * lifted.shape[1]))
        nothing = np.empty(0, np.float32)
        bare = cls(slots[order], lifted, bounds, centroids, lift, longest, spread, nothing, {})
        places = generator.choice(len(order), min(max(_SAMPLE.values()), len(order)), replace=False)
        asked = lift.queries(vectors[order[places]])
        needed, beyond = bare._measured(asked, places)
        return replace(bare, needed=needed, beyond=beyond)

    def _measured(self, queries: Floats, own: Rows) -> tuple[dict[int, npt.NDArray[np.float64]], Floats]:
        """`needed`, from the rank of the leaf that each true neighbor lies in, and `beyond`."""
        scores = queries @ self.vectors.T
        scores[np.arange(len(own)), own] = -np.inf
        means = queries @ self.centroids.T
        leaves = means.shape[1]
        rank = np.empty(means.shape, np.int64)
        np.put_along_axis(rank, np.argsort(-means, axis=1), np.arange(leaves)[np.newaxis], axis=1)
        leaf = np.broadcast_to(np.repeat(np.arange(leaves), np.diff(self.bounds)), scores.shape)
        needed = {}
        for k, count in _SAMPLE.items():
            width = min(k, len(self) - 1)
            number = np.arange(len(scores[:count]))[:, np.newaxis]
            near = np.argpartition(scores[:count], -width, axis=1)[:, -width:]
            if width == k:
                # By query and rank, how many neighbors lie in the leaf of this rank.
                place = (number * leaves + rank[number, leaf[number, near]]).ravel()
                hits = np.bincount(place, minlength=len(number) * leaves).reshape(-1, leaves)
                lows = [recall.low for recall in recalls_of(hits.cumsum(axis=1), k)]
                needed[k] = np.maximum.accumulate(lows)
            if len(number) == len(scores):  # fewer neighbors are among these
                scores, leaf = scores[number, near], leaf[number, near]
        above = scores - means[number, leaf]
        above /= np.sqrt(squared_norms(queries))[:, np.newaxis] * np.maximum(self.spread[leaf], _TINY)
        return needed, np.sort(above, axis=None)

    def leaves_for(self, k: float, target: float | None) -> int:
        """How many leaves to visit for k neighbors at a recall; all where nothing was measured that fits."""
        known = self._known.get((k, target))
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[k, target] = self._leaves_for(k, target)
        return known

    def _leaves_for(self, k: float, target: float | None) -> int:
        fitting = sorted(at for at in self.needed if at >= k)
        if target is None or not fitting:
            return len(self.centroids)
        reliable = self.needed[fitting[0]]
        # The last entry is that of all leaves: a sample of a certain size proves no more than so much.
        enough = int(np.searchsorted(reliable, min(target, reliable[-1])))
        return min(enough + 1, len(self.centroids))

    def search(
        self, queries: Floats, k: int, target: float | None, allowed: Flags | None = None
    ) -> tuple[Rows, Floats]:
        """The k best places of each query, best first, or all there are.

        Args:
            queries: float32 [q, dimension].
            k: Neighbors wanted, at least 1.
            target: Recall; None for all leaves.
            allowed: By place, bool [n]; None for all.

        Returns:
            slots int64 [q, w] and scores float32 [q, w] of the lifted vectors; w is k, or the number of
            places that are allowed if that is less.
        """
        available = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, available)
        if k == 0:
            return np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
        lifted = self.lift.queries(queries)
        visited = self.leaves_for(k * len(self) / available, target)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        places = np.full((len(queries), k), -1, np.int64)
        means = dot_products(lifted, self.centroids) if visited < len(self.centroids) else None
        pending = np.arange(len(queries))
        while len(pending):
            if means is None or _WORTHWHILE * visited > len(self.centroids):
                found = self._scan(lifted[pending], k, allowed)
            else:
                found = self._visit(lifted[pending], means[pending], visited, k, allowed)
            width = found[0].shape[1]
            scores[pending, :width], places[pending, :width] = found
            pending = pending[(places[pending] < 0).any(axis=1)]
            visited *= _WIDENING
        scores, places = in_order(scores, places)
        return self.slots[places], scores

    def closer(self, queries: Floats, k: int, target: float, floors: Floats) -> tuple[Rows, Rows, Floats]:
        """What may be at least as close to its query as `floors` say; there may be nothing.

        Args:
            queries: float32 [q, dimension].
            k: Of the neighbors that are wanted in all.
            target: Recall.
            floors: A distance for each query, as the lift's measure has it; float32 [q].

        Returns:
            Flat and in no order: the number of a query int64 [w], a slot int64 [w], and the score of the
            lifted vector float32 [w].
        """
        lifted = self.lift.queries(queries)
        lengths = squared_norms(lifted)
        roots = np.sqrt(lengths)
        # Half of what a distance is off from the score, and the rounding of float32 on either side.
        least = floors if self.lift.origin is None else 0.5 * (lengths - 1 - floors)
        least = least - 4 * lifted.shape[1] * _UNIT_ROUNDOFF * roots * self.longest
        # A leaf is worth a look where a neighbor as far beyond its mean as all but few would reach the floor.
        reach = float(self.beyond[int(_OF_THE_REST * (1 + target) * (len(self.beyond) - 1))])
        visited = self.leaves_for(k, target)
        if len(lifted) == 1:
            slots, scores = self._closer_to_one(lifted[0], least.item(), reach * roots.item(), visited)
            return np.zeros(len(slots), np.int64), slots, scores
        means = dot_products(lifted, self.centroids)
        near = means + (reach * roots)[:, np.newaxis] * self.spread >= least[:, np.newaxis]
        many = np.flatnonzero(np.count_nonzero(near, axis=1) > visited)
        if len(many):
            means = np.where(near[many], means[many], -np.inf)
            nearest = np.argpartition(means, means.shape[1] - visited, axis=1)[:, means.shape[1] - visited :]
            near[many] = False
            near[many[:, np.newaxis], nearest] = True
        if _WORTHWHILE * np.count_nonzero(near) > near.size:
            return self._closer_of_all(lifted, least)
        visits = Visits.of(near, np.diff(self.bounds))
        flat = self._scores(lifted, visits, None)
        kept = (flat >= np.repeat(least[visits.query], visits.rows)).nonzero()[0]
        visit = visits.offsets.searchsorted(kept, side="right") - 1
        places = kept - visits.offsets[visit] + self.bounds[visits.leaf[visit]]
        return visits.query[visit], self.slots[places], flat[kept]

    def _closer_of_all(self, lifted: Floats, least: Floats) -> tuple[Rows, Rows, Floats]:
        """As `closer`, from all places; of so many queries at a time that their scores take little memory."""
        step, found = max(1, _SCORES // len(self)), []
        for start in range(0, len(lifted), step):
            scores = dot_products(lifted[start : start + step], self.vectors)
            query, places = (scores >= least[start : start + step, np.newaxis]).nonzero()
            found.append((query + start, self.slots[places], scores[query, places]))
        query, slots, values = map(np.concatenate, zip(*found, strict=True))
        return query, slots, values

    def _closer_to_one(self, lifted: Floats, least: float, reach: float, visited: int) -> tuple[Rows, Floats]:
        """Slots int64 [w] and scores float32 [w] of what has at least a score."""
        means = self.centroids @ lifted
        near = (means + reach * self.spread >= least).nonzero()[0]
        if len(near) > visited:
            near = near[np.argpartition(means[near], len(near) - visited)[len(near) - visited :]]
        if _WORTHWHILE * len(near) > len(self.centroids):
            scores = self.vectors @ lifted
            places = (scores >= least).nonzero()[0]
            return self.slots[places], scores[places]
        if not len(near):
            return near, np.empty(0, np.float32)
        starts = self.bounds[near]
        sizes = self.bounds[near + 1] - starts
        ends = sizes.cumsum()
        scores = np.empty(int(ends[-1]), np.float32)
        done = 0
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            np.dot(self.vectors[start : start + size], lifted, out=scores[done : done + size])
            done += size
        kept = (scores >= least).nonzero()[0]
        leaf = ends.searchsorted(kept, side="right")
        return self.slots[kept - (ends - sizes)[leaf] + starts[leaf]], scores[kept]

    def _scan(self, queries: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Rows]:
        scores = dot_products(queries, self.vectors)
        if allowed is not None:
            scores[:, ~allowed] = -np.inf
        return best(scores, np.broadcast_to(np.arange(len(self)), scores.shape), k)

    def _visit(
        self, queries: Floats, means: Floats, count: int, k: int, allowed: Flags | None
    ) -> tuple[Floats, Rows]:
        """The k best in each query's nearest leaves, −inf and −1 where those hold fewer."""
        leaves = means.shape[1]
        near = np.argpartition(means, leaves - count, axis=1)[:, leaves - count :]
        if len(queries) == 1:
            return self._visit_for_one(queries[0], np.sort(near[0]), k, allowed)
        chosen = np.zeros(means.shape, bool)
        np.put_along_axis(chosen, near, True, axis=1)
        visits = Visits.of(chosen, np.diff(self.bounds))
        flat = self._scores(queries, visits, allowed)
        return visits.best(flat, np.full(len(queries), -np.inf, np.float32), self.bounds, k)

    def _scores(self, queries: Floats, visits: Visits, allowed: Flags | None) -> Floats:
        """Of every visit, one after another; −inf for places that are not allowed."""
        flat = np.empty(visits.offsets[-1], np.float32)
        asked = queries[visits.query]
        firsts = np.flatnonzero(np.diff(visits.leaf, prepend=-1))
        lasts = [*firsts[1:].tolist(), len(visits.leaf)]
        leaf, offsets = visits.leaf[firsts], visits.offsets
        starts, ends = self.bounds[leaf].tolist(), self.bounds[leaf + 1].tolist()
        begins = [*offsets[firsts].tolist(), len(flat)]
        for first, last, start, end, begin, stop in zip(
            firsts.tolist(), lasts, starts, ends, begins, begins[1:], strict=False
        ):
            into = flat[begin:stop].reshape(last - first, -1)
            if last - first == 1:  # in two thirds of the time of what follows
                np.dot(self.vectors[start:end], asked[first], out=into[0])
            else:
                np.matmul(asked[first:last], self.vectors[start:end].T, out=into)
            if allowed is not None:
                into[:, ~allowed[start:end]] = -np.inf
        return flat

    def _visit_for_one(
        self, query: Floats, leaves: Rows, k: int, allowed: Flags | None
    ) -> tuple[Floats, Rows]:
        spans = list(zip(self.bounds[leaves].tolist(), self.bounds[leaves + 1].tolist(), strict=True))
        flat = np.concatenate([self.vectors[start:end] @ query for start, end in spans])
        places = np.concatenate([np.arange(start, end) for start, end in spans])
        if allowed is not None:
            passing = allowed[places]
            flat, places = flat[passing], places[passing]
        return best(flat[np.newaxis], places[np.newaxis], k)
