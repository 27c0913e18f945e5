"""Crowding: at most so many neighbors of one tag, however many of that tag lie near the query.

Meaning: rank all datapoints by distance, keep the first `limit` of each tag (untagged ones are not crowded),
then take the first k. Clients need not ask for more than they want.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .attributes import Codes
from .distance import Floats
from .engines import Rows

Search = Callable[[Floats, int, int], tuple[Rows, Floats]]
"""(queries, net, widening) → that many neighbors; `widening` says how many times the net is the first one."""


def crowded_search(search: Search, queries: Floats, k: int, codes: Codes, limit: int) -> tuple[Rows, Floats]:
    """The k nearest with at most `limit` a tag; the net is doubled for the queries that come up short.

    Args:
        search: Finds neighbors without crowding; at a net of all rows it must be exact.
        queries: float32 [q, dimension].
        k: Neighbors wanted.
        codes: The tag of each row, −1 for none.
        limit: Neighbors a tag, at least 1.

    Returns:
        rows int64 [q, k] and distances float32 [q, k]; −1 and NaN where tags leave fewer.
    """
    rows = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.nan, np.float32)
    pending = np.arange(len(queries))
    net, widening = k, 1
    while len(pending):
        net, widening = min(2 * net, len(codes)), 2 * widening
        near, values = search(queries[pending], net, widening)
        kept = keep_first(near, codes, limit)
        order = np.argsort(~kept, axis=1, kind="stable")[:, :k]  # kept ones first, nearest first
        complete = np.flatnonzero((kept.sum(axis=1) >= k) | (net == len(codes)))
        filled = np.take_along_axis(kept, order, axis=1)[complete]
        width = order.shape[1]
        rows[pending[complete], :width] = np.where(filled, np.take_along_axis(near, order, 1)[complete], -1)
        values = np.take_along_axis(values, order, axis=1)[complete]
        distances[pending[complete], :width] = np.where(filled, values, np.float32(np.nan))
        pending = np.delete(pending, complete)
    return rows, distances


def keep_first(rows: Rows, codes: Codes, limit: int) -> npt.NDArray[np.bool_]:
    """Which of each query's ranked rows [q, net] are among the first `limit` of their tag."""
    count, net = rows.shape
    present = rows >= 0
    tags = np.where(present, codes[rows], -1)
    groups = (tags + 1 + (tags.max(initial=0) + 2) * np.arange(count)[:, np.newaxis]).ravel()
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    places = np.arange(count * net) - np.repeat(starts, np.diff(np.r_[starts, count * net]))
    kept = np.empty(count * net, bool)
    kept[order] = places < limit
    return present & ((tags < 0) | kept.reshape(count, net))
