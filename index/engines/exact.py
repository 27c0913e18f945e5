"""Brute force: ground truth, the path for small indexes, and the fallback when an engine comes up short.

Ties are broken by row number, also between copies of one vector, whatever the BLAS rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..distance import DistanceMeasure, Floats, between
from ..vectors import dot_products, gathered, squared_norms
from .accelerate import nearest
from .base import QueryParameters, Rows

_QUERIES_A_BLOCK = 256
_SCORES_A_BLOCK = 4 << 20  # 16 MiB of float32 scores: stays near the caches
_GATHER_BYTES = 32 << 20
_FEW_DOUBTS = 8
_SOME = 4096  # rows whose scores give a first floor,
_SOME_A_NEIGHBOR = 8  # or so many times k
_PASSING_AT_ONCE = 1 << 20
_RANKED_AT_ONCE = 1 << 18  # numbers, which stay in a cache
_MANY_A_QUERY = 64  # rows, of which a query is not copied for each
_PROPOSED_BEYOND = 32
_UNIT_ROUNDOFF = 2.0**-24
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True, slots=True)
class ExactParameters:
    """Nothing to choose: cost is the number of rows times the dimension, recall is 1."""


class ExactEngine:
    """Scores every row with one matrix product a block, then scores the winners again in float64."""

    name: ClassVar[str] = "exact"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(DistanceMeasure) - {
        DistanceMeasure.COSINE_DISTANCE
    }
    parameters_type: ClassVar[type[ExactParameters]] = ExactParameters
    leaves = 0
    rescores = False
    on_device = False
    served_by = name

    def __init__(self, vectors: Floats, measure: DistanceMeasure, squares: Floats | None = None) -> None:
        self._vectors = vectors
        self._measure = measure
        self._squares = squares
        self.parameters = ExactParameters()

    @classmethod
    def choose(
        cls,
        count: int,
        dimension: int,
        measure: DistanceMeasure,
        memory_budget: int | None = None,
        target_recall: float = 0.95,
    ) -> ExactParameters:
        """Any number of vectors will do; they are mapped, so no budget of memory is too small."""
        del count, dimension, measure, memory_budget, target_recall
        return ExactParameters()

    @classmethod
    def build(
        cls, vectors: Floats, measure: DistanceMeasure, parameters: ExactParameters, *, threads: int
    ) -> Self:
        """Nothing is computed before the first search."""
        del parameters, threads
        return cls(vectors, measure)

    def save(self, folder: Path, vectors_file: Path) -> None:
        """The vectors file, which the caller keeps, is all there is."""

    @classmethod
    def load(
        cls,
        folder: Path,
        vectors_file: Path,
        vectors: Floats,
        measure: DistanceMeasure,
        parameters: ExactParameters,
    ) -> Self:
        """Reads the mapped vectors and nothing else."""
        del folder, vectors_file, parameters
        return cls(vectors, measure)

    def search(
        self, queries: Floats, k: int, parameters: QueryParameters | None = None
    ) -> tuple[Rows, Floats]:
        """See `Engine.search`; the parameters change nothing. With much to do, a GPU helps if there is."""
        del parameters
        found = self._search_on_gpu(queries, k)
        return self.search_rows(queries, None, k) if found is None else found

    def _search_on_gpu(self, queries: Floats, k: int) -> tuple[Rows, Floats] | None:
        """The same answer to the last bit: the GPU proposes more rows than wanted, float64 ranks them here,
        and where float32 cannot rule out all the others, the query is searched here after all."""
        proposed = min(len(self._vectors), max(2 * k, k + _PROPOSED_BEYOND))
        found = nearest(self._vectors, queries, proposed, self._measure)
        if found is None:
            return None
        rows = np.empty((len(queries), k), np.int64)
        distances = np.empty((len(queries), k), np.float32)
        step = max(1, _GATHER_BYTES // (4 * proposed * queries.shape[1]))
        for start in range(0, len(queries), step):
            block = slice(start, start + step)
            rows[block], distances[block] = self._ranked_batch(queries[block], found[0][block], k)
        if proposed < len(self._vectors):
            scores = self._measure.score_of(found[1])
            # A GPU may add ‖q‖² before it compares, and rounds that too.
            lengths = np.sqrt(squared_norms(queries))
            margins = (
                self.margins(np.sqrt(squared_norms(queries)), queries.shape[1])
                + np.float32(2 * _UNIT_ROUNDOFF * queries.shape[1]) * lengths**2
            )
            doubtful = np.flatnonzero(scores[:, -1] >= scores[:, k - 1] - 2 * margins)
            if len(doubtful):
                rows[doubtful], distances[doubtful] = self.search_rows(queries[doubtful], None, k)
        return rows, distances

    def _ranked_batch(self, queries: Floats, rows: Rows, k: int) -> tuple[Rows, Floats]:
        """The k best of the rows [q, m] of each query, equal distances by row number."""
        values = self.distances(np.repeat(queries, rows.shape[1], axis=0), rows.ravel()).reshape(rows.shape)
        order = np.lexsort((rows, -values if self._measure.higher_is_closer else values), axis=1)[:, :k]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(values, order, 1)

    def search_rows(
        self,
        queries: Floats,
        subset: Rows | None,
        k: int,
        allowed: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[Rows, Floats]:
        """The k nearest among the rows of `subset` (int64 [m], ascending; None for all of them).

        `allowed`, bool [n], leaves rows out of all of them without copying those that are in.

        Returns:
            rows int64 [q, k] and distances float32 [q, k], best first, equal distances by row number;
            −1 and NaN where there are fewer than k rows.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.nan, np.float32)
        for start in range(0, len(queries), _QUERIES_A_BLOCK):
            block = queries[start : start + _QUERIES_A_BLOCK]
            query, nearest, values = self._ranked(block, *self._candidates(block, subset, k, allowed))
            place = _places(query)
            among = place < k
            at = query[among] + start, place[among]
            rows[at], distances[at] = nearest[among], values[among]
        return rows, distances

    def distances(self, queries: Floats, rows: Rows) -> Floats:
        """Of one query [dimension], or of a query for each row [m, dimension], to `rows` [m]; float32 [m].

        Summed row by row in float64, so that copies of a vector get one and the same value.
        """
        result = np.empty(len(rows), np.float32)
        step = max(1, _GATHER_BYTES // (8 * queries.shape[-1]))
        for start in range(0, len(rows), step):
            asked = queries if queries.ndim == 1 else queries[start : start + step]
            vectors = self._vectors[rows[start : start + step]]
            result[start : start + step] = between(self._measure, asked, vectors)
        return result

    @cached_property
    def _squared_norms(self) -> Floats:
        if self._squares is not None:
            return self._squares
        step = max(1, _GATHER_BYTES // (4 * self._vectors.shape[1]))
        starts = range(0, len(self._vectors), step)
        return np.concatenate([squared_norms(self._vectors[start : start + step]) for start in starts])

    @cached_property
    def _longest(self) -> float:
        return float(np.sqrt(self._squared_norms.max(initial=0)))

    def _candidates(
        self, queries: Floats, subset: Rows | None, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Rows]:
        """Which row may be among the k nearest of which query: queries and rows, int64 [m], by query.

        For each query the k best float32 scores and all within the rounding error of the k-th. All queries
        in each step, for a thread that serves beside a busy event loop gets the interpreter back only after
        a while, each time.
        """
        total = len(self._vectors) if subset is None else len(subset)
        step = max(k, 1024, _SCORES_A_BLOCK // max(1, len(queries)))
        margins = self.margins(np.sqrt(squared_norms(queries)), queries.shape[1])
        floors = np.full(len(queries), -np.inf, np.float32)
        kept = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, total, step):
            part = slice(start, min(start + step, total))
            numbers = np.arange(part.start, part.stop) if subset is None else subset[part]
            scores = self._scores(queries, part if subset is None else numbers)
            if allowed is not None:
                scores[:, ~allowed[numbers]] = -np.inf
            stride = max(1, len(numbers) // max(_SOME, _SOME_A_NEIGHBOR * k))
            if not start:  # the k-th of some is no higher than that of all, and found in less time
                floors = _kth_best(scores[:, ::stride], k) - margins
            is_last_word = not start and stride == 1
            passing = np.flatnonzero(scores >= np.maximum(floors, _LOWEST)[:, np.newaxis])
            if len(passing) > _PASSING_AT_ONCE and len(queries) > 1:
                return self._candidates_of_each(queries, subset, k, allowed)
            if len(passing):
                query, place = np.divmod(passing, len(numbers))
                new = query, numbers[place], scores[query, place]
                kept = _by_query(kept, new) if len(kept[0]) else new
                if not is_last_word or len(query) > _FEW_DOUBTS * k + 1024:
                    kept, floors = self._pruned(queries, kept, k, floors, margins)
        return kept[0], kept[1]

    def _candidates_of_each(
        self, queries: Floats, subset: Rows | None, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Rows, Rows]:
        """As `_candidates`, query by query: where so much passes, as with copies of one vector, what all keep
        would fill the memory."""
        rows = [self._candidates(query[np.newaxis], subset, k, allowed)[1] for query in queries]
        return np.repeat(np.arange(len(rows)), [len(each) for each in rows]), np.concatenate(rows)

    def _pruned(
        self,
        queries: Floats,
        kept: tuple[Rows, Rows, Floats],
        k: int,
        floors: Floats,
        margins: Floats,
    ) -> tuple[tuple[Rows, Rows, Floats], Floats]:
        """Without what cannot be among the k nearest, and the scores below which nothing can."""
        query, rows, scores = kept
        table = np.full((len(queries), np.bincount(query).max()), -np.inf, np.float32)
        table[query, _places(query)] = scores
        if table.shape[1] >= k:  # else, where rows are left out, everything still passes
            floors = np.maximum(floors, _kth_best(table, k) - margins)
        keep = scores >= floors[query]
        doubtful = np.bincount(query[keep], minlength=len(queries)) > _FEW_DOUBTS * k + 1024
        for number in np.flatnonzero(doubtful):
            # Copies of one vector, or so far from the origin that float32 cannot tell: only float64 can.
            mine = np.flatnonzero(keep & (query == number))
            _, nearest, _ = self._ranked(queries, query[mine], rows[mine])
            keep[mine] = np.isin(rows[mine], nearest[:k])
        return (query[keep], rows[keep], scores[keep]), floors

    def _scores(self, queries: Floats, selection: slice | Rows) -> Floats:
        """Higher is closer; float32 [q, rows], off by no more than half of `margins`."""
        if isinstance(selection, slice):
            vectors = self._vectors[selection]
        else:
            vectors = gathered(self._vectors, selection)
        match self._measure:
            case DistanceMeasure.DOT_PRODUCT_DISTANCE:
                return dot_products(queries, vectors)
            case DistanceMeasure.SQUARED_L2_DISTANCE:
                # ‖q‖² is the same for every row, so it is left out of the order.
                scores = dot_products(queries, vectors)
                scores *= 2
                scores -= self._squared_norms[selection]
                return scores
            case _:
                scores = np.empty((len(queries), len(vectors)), np.float32)
                for i, query in enumerate(queries):
                    np.abs(vectors - query).sum(axis=1, out=scores[i])
                return np.negative(scores, out=scores)

    def margins(self, lengths: Floats, dimension: int) -> Floats:
        """Twice the bound on a float32 score's rounding error (Higham, 2002, §3.1: γₙ‖q‖‖x‖), float32 [q].

        Args:
            lengths: Of the queries, float32 [q].
            dimension: Theirs.
        """
        gamma = 2 * (dimension + 4) * _UNIT_ROUNDOFF
        match self._measure:
            case DistanceMeasure.DOT_PRODUCT_DISTANCE:
                bound = lengths * self._longest
            case DistanceMeasure.SQUARED_L2_DISTANCE:
                bound = 2 * lengths * self._longest + self._longest**2
            case _:
                bound = (lengths + self._longest) * np.sqrt(dimension)
        return np.asarray(gamma * bound, np.float32)

    def _ranked(self, queries: Floats, query: Rows, rows: Rows) -> tuple[Rows, Rows, Floats]:
        """Queries, rows and distances, int64 and float32 [m], by query, the nearest first, then by row."""
        values = np.empty(len(rows), np.float32)
        if len(rows) > _MANY_A_QUERY * len(queries):
            ends = np.searchsorted(query, np.arange(len(queries)), side="right").tolist()
            for number, (start, end) in enumerate(pairwise([0, *ends])):
                values[start:end] = self.distances(queries[number], rows[start:end])
        else:
            step = max(1, _RANKED_AT_ONCE // queries.shape[1])
            for start in range(0, len(rows), step):
                part = slice(start, start + step)
                values[part] = self.distances(queries[query[part]], rows[part])
        order = np.lexsort((rows, -values if self._measure.higher_is_closer else values, query))
        return query[order], rows[order], values[order]


def _kth_best(scores: Floats, k: int) -> Floats:
    """The k-th highest of each query's scores [q, m], or the lowest where there are fewer; float32 [q]."""
    place = max(0, scores.shape[1] - k)
    best: Floats = np.partition(scores, place, axis=1)[:, place]
    return best


def _places(query: Rows) -> Rows:
    """The place of each entry among those of its query, int64 [m]; `query` ascends."""
    counts = np.bincount(query)
    return np.arange(len(query)) - (np.cumsum(counts) - counts)[query]


def _by_query(*parts: tuple[Rows, Rows, Floats]) -> tuple[Rows, Rows, Floats]:
    """Queries, rows and scores of all parts, by query."""
    query, rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.argsort(query, kind="stable")
    return query[order], rows[order], scores[order]
