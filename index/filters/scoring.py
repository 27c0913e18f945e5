"""The arithmetic of filtered search: dense scans, ragged scores by leaf, and picking the best of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..distance import Floats
from ..vectors import dot_products

Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_SCORES_A_BLOCK = 4 << 20
_FIRST_BLOCK = 1024
_NARROW = 64
_A_LARGE_SHARE = 8


def best(scores: Floats, places: Places, k: int) -> tuple[Floats, Places]:
    """The k highest of each row [q, w], unsorted; as they are where w is no more than k."""
    width = scores.shape[1]
    if width <= k:
        return scores, places
    chosen = np.argpartition(scores, width - k, axis=1)[:, width - k :]
    return np.take_along_axis(scores, chosen, 1), np.take_along_axis(places, chosen, 1)


def in_order(scores: Floats, places: Places) -> tuple[Floats, Places]:
    """Best first."""
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def scan(queries: Floats, vectors: Floats, k: int) -> tuple[Floats, Places]:
    """The k best of all vectors for each query, unsorted: scores and places in `vectors`, [q, k].

    Selecting costs as much as scoring if every block is partitioned; so only the first and smallest is, and
    of the others just what beats the k-th best so far is looked at, a few rows a query. Where there are fewer
    vectors than k, −inf and −1 fill up.
    """
    count = len(queries)
    if count == 1 and len(vectors) > k:
        return _scan_for_one(queries, vectors, k)
    found = np.full((count, k), -np.inf, np.float32), np.full((count, k), -1, np.int64)
    start, size = 0, max(_FIRST_BLOCK, 4 * k)
    while start < len(vectors):
        size = min(size, max(k, _SCORES_A_BLOCK // max(1, count)))
        block = dot_products(queries, vectors[start : start + size])
        width = block.shape[1]
        if start == 0:
            more = best(block, np.broadcast_to(np.arange(width), block.shape), k)
        else:
            kept = np.flatnonzero(block > found[0].min(axis=1)[:, np.newaxis])
            query, place = np.divmod(kept, width)
            more = best_of_each(query, block.ravel()[kept], place + start, count, k)
        found = merged(found, more, k)
        start, size = start + width, 4 * size
    return found


def _scan_for_one(query: Floats, vectors: Floats, k: int) -> tuple[Floats, Places]:
    """All scores at once, and only what is as good as the k-th best of the first few is ranked."""
    scores = vectors @ query[0]
    first = max(_FIRST_BLOCK, 4 * k)
    if len(scores) <= first:
        places = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        return scores[np.newaxis, places], places[np.newaxis]
    places = np.flatnonzero(scores >= np.partition(scores[:first], first - k)[first - k])
    kept = scores[places]
    chosen = np.argpartition(kept, len(kept) - k)[len(kept) - k :]
    return kept[np.newaxis, chosen], places[np.newaxis, chosen]


def merged(found: tuple[Floats, Places], more: tuple[Floats, Places], k: int) -> tuple[Floats, Places]:
    """The k best of two lists of scores and places, [q, k] and [q, any]."""
    return best(np.concatenate((found[0], more[0]), axis=1), np.concatenate((found[1], more[1]), axis=1), k)


def best_of_each(query: Places, scores: Floats, places: Places, count: int, k: int) -> tuple[Floats, Places]:
    """The k best scores of each of `count` queries, which ascend: [count, k], padded with −inf and −1.

    Queries are taken together by how many scores they have, so that one with very many does not widen all.
    """
    each = np.bincount(query, minlength=count)
    starts = np.cumsum(each) - each
    best_scores = np.full((count, k), -np.inf, np.float32)
    best_places = np.full((count, k), -1, np.int64)
    classes = np.where(each > 0, np.log2(np.maximum(each, _NARROW)).astype(np.int64), -1)
    for members in (np.flatnonzero(classes == kind) for kind in np.unique(classes[classes >= 0])):
        columns = np.arange(each[members].max())
        source = np.minimum(starts[members, np.newaxis] + columns, len(scores) - 1)
        present = columns < each[members, np.newaxis]
        top = best(np.where(present, scores[source], -np.inf), np.where(present, places[source], -1), k)
        width = top[0].shape[1]
        best_scores[members, :width], best_places[members, :width] = top
    return best_scores, best_places


@dataclass(frozen=True, eq=False)
class Visits:
    """Which query looks into which leaf, leaf by leaf.

    Attributes:
        leaf: int64 [v], ascending.
        query: int64 [v].
        rows: Passing rows of that leaf, int64 [v].
        offsets: Where a visit's scores begin, int64 [v + 1].
    """

    leaf: Places
    query: Places
    rows: Places
    offsets: Places

    @classmethod
    def of(cls, chosen: Flags, counts: Places) -> Visits:
        """From flags [q, leaves] and the passing rows of each leaf."""
        leaf, query = np.nonzero(chosen.T)
        rows = counts[leaf]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(rows, out=offsets[1:])
        return cls(leaf, query, rows, offsets)

    def best(self, scores: Floats, floor: Floats, bounds: Places, k: int) -> tuple[Floats, Places]:
        """The k best above its query's floor [q]: scores leaf by leaf → [q, k], as `best_of_each`."""
        kept = np.flatnonzero(scores > np.repeat(floor[self.query], self.rows))
        if _A_LARGE_SHARE * len(kept) > len(scores):
            visit = np.repeat(np.arange(len(self.rows)), self.rows)[kept]
        else:
            visit = np.searchsorted(self.offsets, kept, side="right") - 1
        query = self.query[visit]
        order = np.argsort(query.astype(np.uint16), kind="stable")  # 16 bits are sorted by radix
        places = kept - self.offsets[visit] + bounds[self.leaf[visit]]
        return best_of_each(query[order], scores[kept[order]], places[order], len(floor), k)
