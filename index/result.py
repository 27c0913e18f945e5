"""What a search brings back: arrays, and the ids and metadata that belong to them when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from earshot.errors import FailedPrecondition

from .distance import DistanceMeasure, Floats
from .engines import Rows
from .filters import Plan, Restrict

__all__ = ["Datapoint", "SearchResult"]


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
    _ids_of: Callable[[Rows], npt.NDArray[np.object_]]
    _metadata_of: Callable[[int], dict[str, Any] | None]
    _crowding_tag_of: Callable[[int], str | None]
    plan: Plan | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        queries, width = self.rows.shape
        return f"<SearchResult: {queries} queries × {width} neighbors, {self.distance_measure}>"

    @cached_property
    def ids(self) -> list[list[str]]:
        """The neighbors' ids, a list a query."""
        ids: list[list[str]] = self._ids_of(self.rows).tolist()
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
        return [[self._metadata_of(row) for row in rows] for rows in self.rows.tolist()]

    @cached_property
    def crowding_tags(self) -> list[list[str | None]]:
        """The neighbors' crowding tags, a list a query."""
        return [[self._crowding_tag_of(row) for row in rows] for rows in self.rows.tolist()]

    def to_arrow(self) -> pa.Table:
        """Columns query (int64), rank (from 1), id, distance, score; a row a neighbor."""
        queries, width = self.rows.shape
        return pa.table(
            {
                "query": np.repeat(np.arange(queries), width),
                "rank": np.tile(np.arange(1, width + 1), queries),
                "id": pa.array(self._ids_of(self.rows).ravel(), pa.string()),
                "distance": self.distances.ravel(),
                "score": self.scores.ravel(),
            }
        )

    def to_pandas(self) -> Any:
        """`to_arrow` as a data frame.

        Raises:
            FailedPrecondition: pandas is not installed.
        """
        try:
            import_module("pandas")
        except ImportError as error:
            raise FailedPrecondition("to_pandas needs pandas: pip install pandas") from error
        return self.to_arrow().to_pandas()
