"""What a search brings back: arrays, and the ids and metadata that belong to them when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from earshot.errors import FailedPrecondition, InvalidArgument

from .distance import DistanceMeasure, Floats, between, seen_by_engines
from .engines import Rows
from .filters import Plan, Restrict
from .shard import Shard
from .vectors import unit_norm

__all__ = ["Datapoint", "SearchResult"]


def check_fields(fields: Sequence[str] | None) -> None:
    """Raises InvalidArgument where one name was given in place of a list of them."""
    if isinstance(fields, str):
        raise InvalidArgument(f"fields is {fields!r}; it must be a list of strings", field="fields")


@dataclass(frozen=True, slots=True, eq=False)
class Datapoint:
    """One stored datapoint; `vector` is float32 [dimension], as it was given (up to float32 rounding)."""

    id: str
    vector: Floats
    crowding_tag: str | None
    metadata: dict[str, Any] | None
    restricts: tuple[Restrict, ...] = ()


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The neighbors of q queries, best first.

    Attributes:
        rows: Row numbers, int64 [q, w]; w is k, or fewer where the index has fewer to answer with.
        distances: The measure's own value, float32 [q, w].
        distance_measure: Which measure that is.
        plan: What a filtered search did, else None.
    """

    rows: Rows
    distances: Floats
    distance_measure: DistanceMeasure
    _shard: Shard
    plan: Plan | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        queries, width = self.rows.shape
        return f"<SearchResult: {queries} queries × {width} neighbors, {self.distance_measure}>"

    @property
    def sequence(self) -> int:
        """Of the last update that the answer knows; see `LiveIndex`."""
        return self._shard.sequence

    @property
    def ids(self) -> list[list[str]]:
        """The neighbors' ids, a list a query."""
        ids: list[list[str]] | None = self.__dict__.get("_ids")
        if ids is None:  # not `cached_property`, which takes a lock in Python 3.11, a microsecond
            ids = self.__dict__["_ids"] = self._shard.ids.of(self.rows).tolist()
        return ids

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Neighbors of each query, int64 [q]."""
        return np.asarray(np.count_nonzero(self.rows >= 0, axis=1))

    @property
    def scores(self) -> Floats:
        """Higher is always closer, float32 [q, w]: dot product, cosine, or the negated distance."""
        return self.distance_measure.score_of(self.distances)

    @cached_property
    def metadata(self) -> list[list[dict[str, Any] | None]]:
        """The neighbors' metadata, a list a query."""
        return [self.metadata_of(query) for query in range(len(self))]

    def select(self, fields: Sequence[str]) -> list[list[dict[str, Any] | None]]:
        """`metadata` with these of its fields only; a neighbor that lacks one goes without it."""
        check_fields(fields)
        return [self.metadata_of(query, fields) for query in range(len(self))]

    def metadata_of(self, query: int, fields: Sequence[str] | None = None) -> list[dict[str, Any] | None]:
        """The metadata of one query's neighbors, all of it or these fields."""
        metadata = self._shard.attributes.metadata
        return [metadata(row, fields) for row in self.rows[query].tolist()]

    @cached_property
    def crowding_tags(self) -> list[list[str | None]]:
        """The neighbors' crowding tags, a list a query."""
        tag_of = self._shard.attributes.crowding_tag
        return [[tag_of(row) for row in rows] for rows in self.rows.tolist()]

    def datapoints(self, query: int, fields: Sequence[str] | None = None) -> list[Datapoint]:
        """One query's neighbors in full, as they were when the search was made; fields as in `Index.read`."""
        check_fields(fields)
        rows = self.rows[query]
        return datapoints_of(self._shard, rows[rows >= 0], fields)

    def to_arrow(self, fields: Sequence[str] = ()) -> pa.Table:
        """Columns query (int64), rank (from 1), id, distance, score; a row a neighbor.

        Args:
            fields: Of the metadata, further columns; null where a neighbor lacks the field. One that is
                called as a column above is put in as `metadata.` and its name.

        Raises:
            InvalidArgument: A field holds values that no one column can.
        """
        queries, width = self.rows.shape
        columns = {
            "query": np.repeat(np.arange(queries), width),
            "rank": np.tile(np.arange(1, width + 1), queries),
            "id": pa.array(self._shard.ids.of(self.rows).ravel(), pa.string()),
            "distance": self.distances.ravel(),
            "score": self.scores.ravel(),
        }
        found = [entry or {} for entries in self.select(fields) for entry in entries] if fields else []
        for field in fields:
            name = f"metadata.{field}" if field in columns else field
            try:
                columns[name] = pa.array([entry.get(field) for entry in found])
            except pa.ArrowInvalid as error:
                raise InvalidArgument(f"metadata {field!r} is no column: {error}", field="fields") from error
        return pa.table(columns)

    def to_pandas(self, fields: Sequence[str] = ()) -> Any:
        """`to_arrow` as a data frame.

        Raises:
            FailedPrecondition: pandas is not installed.
        """
        try:
            import_module("pandas")
        except ImportError as error:
            raise FailedPrecondition("to_pandas needs pandas: pip install pandas") from error
        return self.to_arrow(fields).to_pandas()


def vectors_of(shard: Shard, rows: Rows) -> Floats:
    """The vectors of rows as they were given, float32 [len(rows), dimension]."""
    vectors, norms = shard.vectors[rows], shard.norms
    return vectors if norms is None else vectors * norms[rows, np.newaxis]


def datapoints_of(shard: Shard, rows: Rows, fields: Sequence[str] | None = None) -> list[Datapoint]:
    """The datapoints at rows, with all of their metadata or these fields."""
    return [
        Datapoint(
            name,
            vector,
            shard.attributes.crowding_tag(row),
            shard.attributes.metadata(row, fields),
            shard.restricts_of(row),
        )
        for name, vector, row in zip(
            shard.ids.of(rows).tolist(), vectors_of(shard, rows), rows.tolist(), strict=True
        )
    ]


def hits_of(found: SearchResult, truth: SearchResult, queries: Floats) -> npt.NDArray[np.int64]:
    """How many of each query's neighbors are true ones or as near as the last of those, int64 [q].

    Engines that reorder in fewer bits return rounded distances, which say nothing about what was missed: rows
    decide, and of rows that the truth lacks exact distances, of which 1e-5 is let pass.

    Args:
        found: The answer in question.
        truth: That of exact search, on the same datapoints.
        queries: What was asked, float32 [q, dimension].
    """
    if not truth.rows.shape[1]:
        return np.zeros(len(truth), np.int64)
    is_hit = (found.rows[:, :, np.newaxis] == truth.rows[:, np.newaxis]).any(axis=2) & (found.rows >= 0)
    query, place = np.nonzero(~is_hit & (found.rows >= 0))
    if len(query):
        measure, shard = truth.distance_measure, truth._shard
        asked = queries if shard.norms is None else unit_norm(queries)[0]
        stored = shard.vectors[found.rows[query, place]]
        distances = between(seen_by_engines(measure), asked[query], stored)
        if measure is DistanceMeasure.COSINE_DISTANCE:
            distances = np.clip(np.float32(1) - distances, 0, 2)
        sign = 1 if measure.higher_is_closer else -1
        worst = sign * truth.distances[query, -1]
        is_hit[query, place] = sign * distances >= worst - 1e-5 * np.abs(worst) - 1e-6
    return np.asarray(np.count_nonzero(is_hit, axis=1))
