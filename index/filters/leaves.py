"""Search by leaf: score the passing rows of the leaves that can matter, and stop when the rest cannot.

Which leaves those are is decided for each query by how many better rows they may still hold: a leaf's
scores spread about its centroid's in a way that was measured at build, so the passing rows expected above the
k-th best so far can be counted. That holds whether the filter has to do with the vectors or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from ..distance import Floats
from ..vectors import dot_products
from .partition import BINS, Partition, bin_of
from .passing import Passing
from .scoring import Flags, Places, Visits, merged, scan

_FIRST_ROWS_A_NEIGHBOR = 20
_WIDENING = 4


@dataclass
class Work:
    """What a search did, summed over its queries; `short` is how many post-filtering left with too few."""

    leaves: int = 0
    rows: int = 0
    short: int = 0


def search_leaves(
    partition: Partition,
    passing: Passing,
    queries: Floats,
    k: int,
    missing: float,
    work: Work,
    worthwhile: float = inf,
) -> tuple[Floats, Places]:
    """The k best passing rows of each query.

    Args:
        partition: Of the vectors.
        passing: At least k rows.
        queries: Lifted, float32 [q, d].
        k: Neighbors wanted.
        missing: Stop when fewer than `missing`·k better rows are to be expected in the leaves left out.
        work: Counts what is done.
        worthwhile: The rows a query up to which this is cheaper than scanning all that pass; above it all are
            scanned. So it ends when a filter lets only rows far from the queries pass.

    Returns:
        scores float32 [q, k] and places in `passing`, int64 [q, k], unsorted.
    """
    means = dot_products(queries, partition.centroids)
    near = partition.near(means)
    scale = partition.scale(queries)
    empty = passing.counts == 0
    means[:, empty] = -np.inf
    visited = np.zeros(means.shape, bool)
    visited[:, empty] = True
    scores = np.full((len(queries), k), -np.inf, np.float32)
    places = np.full((len(queries), k), -1, np.int64)
    # First the nearest leaves, until every query has k rows to measure the others by.
    waiting = np.arange(len(queries))
    filled = len(empty) - int(empty.sum())
    nearest = max(1, round(_FIRST_ROWS_A_NEIGHBOR * k * filled / len(passing)))
    while len(waiting):
        chosen = _nearest(means[waiting], min(nearest, filled)) & ~visited[waiting]
        _look(passing, queries, waiting, chosen, scores, places, work)
        visited[waiting] |= chosen
        waiting = waiting[scores[waiting].min(axis=1) == -np.inf]
        nearest *= _WIDENING
    bins = bin_of((scores.min(axis=1)[:, np.newaxis] - means) / (scale[:, np.newaxis] * partition.spread))
    expected = partition.tail.ravel()[np.where(near, bins, bins + BINS)] * passing.counts
    chosen = _promising(bins, expected, visited, missing * k)
    if (chosen @ passing.counts).mean() > worthwhile:
        work.rows += len(passing) * len(queries)
        return scan(queries, passing.gathered, k)
    _look(passing, queries, np.arange(len(queries)), chosen, scores, places, work)
    return scores, places


def _nearest(means: Floats, count: int) -> Flags:
    """The nearest leaves of each query; more than `count` where some are equally near."""
    place = means.shape[1] - count
    chosen: Flags = means >= np.partition(means, place, axis=1)[:, place, np.newaxis]
    return chosen


def _promising(bins: Places, expected: Floats, visited: Flags, missing: float) -> Flags:
    """The leaves to visit so that at most `missing` better rows of each query are expected in the rest.

    Leaves are taken in the order of `bins`, of which the first have the most better rows for each row scored.
    """
    expected[visited] = 0
    count = len(bins)
    flat = bins + BINS * np.arange(count)[:, np.newaxis]
    by_bin = np.bincount(flat.ravel(), weights=expected.ravel(), minlength=BINS * count).reshape(count, BINS)
    left_out = by_bin[:, ::-1].cumsum(axis=1)[:, ::-1]  # were this bin and all beyond it left out
    limit = (left_out > missing).sum(axis=1)
    promising: Flags = (bins < limit[:, np.newaxis]) & ~visited
    return promising


def _look(
    passing: Passing,
    queries: Floats,
    waiting: Places,
    chosen: Flags,
    scores: Floats,
    places: Places,
    work: Work,
) -> None:
    """Score the chosen leaves [len(waiting), leaves] and keep the best of all that was found."""
    k = scores.shape[1]
    visits = Visits.of(chosen, passing.counts)
    work.leaves += len(visits.leaf)
    work.rows += int(visits.offsets[-1])
    if not len(visits.leaf):
        return
    if visits.offsets[-1] >= len(passing):
        passing.gathered  # noqa: B018  (each row is wanted about once or more: gather all, and keep them)
    flat = _score(passing, queries[waiting], visits)
    found = scores[waiting], places[waiting]
    more = visits.best(flat, found[0].min(axis=1), passing.bounds, k)
    scores[waiting], places[waiting] = merged(found, more, k)


def _score(passing: Passing, queries: Floats, visits: Visits) -> Floats:
    """The scores of every visit, leaf by leaf."""
    flat = np.empty(visits.offsets[-1], np.float32)
    asked = queries.take(visits.query, axis=0)
    starts = np.flatnonzero(np.diff(visits.leaf, prepend=-1)).tolist()
    leaves = visits.leaf[starts].tolist()
    offsets = visits.offsets[[*starts, len(visits.leaf)]].tolist()
    bounds = passing.bounds.tolist()
    gathered = passing.gathered if passing.is_gathered else None
    lifted = passing.lifted if gathered is None else lambda start, end: gathered[start:end]
    for place, leaf in enumerate(leaves):
        first, last = starts[place], starts[place + 1] if place + 1 < len(starts) else len(asked)
        rows = lifted(bounds[leaf], bounds[leaf + 1])
        np.matmul(
            asked[first:last], rows.T, out=flat[offsets[place] : offsets[place + 1]].reshape(last - first, -1)
        )
    return flat
