"""From what a caller asks (a recall, or parameters) to how hard an engine looks."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, isfinite
from typing import Any

import numpy as np

from earshot.errors import InvalidArgument

from .engines import QueryParameters
from .tuning import Tuning, choose

MAX_NEIGHBORS = 10_000
_MAX_CANDIDATES = 1_000_000


class Planner:
    """Plans searches of an engine with so many leaves by what tuning measured."""

    def __init__(self, tuning: Tuning, leaves: int) -> None:
        self._tuning = tuning
        self._leaves = leaves
        self._point = lru_cache(maxsize=256)(self._chosen)  # spares a single query some microseconds

    def plan(
        self, k: int, target_recall: float | None, fraction: float | None, count: int | None
    ) -> QueryParameters | None:
        """Query parameters, None for exact search; arguments as in `Index.search`.

        Raises:
            InvalidArgument: One is out of range, or recall and parameters are both given.
        """
        check_whole("k", k, 1, MAX_NEIGHBORS)
        if target_recall is None and fraction is None and count is None:
            return self._point(k, self._tuning.target_recall)
        if target_recall is not None:
            check_recall(target_recall)
            if fraction is not None or count is not None:
                raise InvalidArgument(
                    "target_recall chooses the parameters: give it, or "
                    "fraction_leaf_nodes_to_search and approximate_neighbor_count",
                    field="target_recall",
                )
        if fraction is not None and not (_is_number(fraction) and 0 < fraction <= 1):
            raise InvalidArgument(
                f"fraction_leaf_nodes_to_search is {fraction!r}; it must be over 0, up to 1",
                field="fraction_leaf_nodes_to_search",
            )
        if count is not None:
            check_whole("approximate_neighbor_count", count, k, _MAX_CANDIDATES)
        if not self._leaves:
            return None
        point = self._point(k, self._tuning.target_recall if target_recall is None else target_recall)
        if fraction is None and count is None:
            return point
        usual = point or QueryParameters(self._leaves, k)
        return QueryParameters(
            leaves=usual.leaves if fraction is None else ceil(fraction * self._leaves),
            candidates=usual.candidates if count is None else count,
        )

    def _chosen(self, k: int, target_recall: float) -> QueryParameters | None:
        if not self._leaves:
            return None
        point = choose(self._tuning.points, k, target_recall)
        return QueryParameters(point.leaves, point.candidates) if point.leaves else None


def check_recall(value: Any) -> None:
    """Raises InvalidArgument unless a recall can be asked for."""
    if not _is_number(value) or not 0 < value <= 1:
        raise InvalidArgument(
            f"target_recall is {value!r}; it must be over 0, up to 1", field="target_recall"
        )


def check_whole(field: str, value: Any, low: int, high: int) -> None:
    """Raises InvalidArgument unless `value` is a whole number from `low` to `high`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidArgument(
            f"{field} is {value!r}; it must be a whole number from {low} to {high}", field=field
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and isfinite(value)
