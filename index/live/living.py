"""The nearest rows that live: what searches all rows is asked for more, and the dead are dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from ..distance import Floats
from ..engines import Rows
from .segment import Flags

__all__ = ["Found", "Search", "living", "merged", "trimmed"]

Found = tuple[Rows, Floats]
Search = Callable[[Floats, int, float], Found]
"""(queries, net, widening) → so many rows, best first; `widening` says how much harder to look than usual."""

_WIDENING = 4


def living(
    search: Search, is_alive: Callable[[Rows], Flags], queries: Floats, k: int, total: int, dead: int
) -> Found:
    """The k nearest rows that live.

    The net is first as much wider as there are dead ones, then widened for queries that come up short.

    Args:
        search: Finds rows, dead or alive; of `total` it finds all.
        is_alive: Which rows live; −1 does not.
        queries: float32 [q, dimension].
        k: Rows wanted.
        total: Rows there are.
        dead: How many of them are dead, about.

    Returns:
        rows int64 [q, k] and distances float32 [q, k]; −1 and NaN where fewer live.
    """
    widening = total / max(1, total - dead)
    net = min(total, ceil(k * widening) + 1)
    if len(queries) == 1:
        near, values = search(queries, net, widening)
        first = np.flatnonzero(is_alive(near[0]))[:k]
        if len(first) == k:
            return near[:, first], values[:, first]
        net, widening = min(total, _WIDENING * net), _WIDENING * widening
    rows = np.full((len(queries), k), -1, np.int64)
    distances = np.full((len(queries), k), np.nan, np.float32)
    pending = np.arange(len(queries))
    while len(pending):
        near, values = search(queries if len(pending) == len(queries) else queries[pending], net, widening)
        alive = is_alive(near)
        if alive[:, :k].all() and near.shape[1] >= k:  # the usual case: nobody of note has died
            rows[pending], distances[pending] = near[:, :k], values[:, :k]
            break
        order = np.argsort(~alive, axis=1, kind="stable")[:, :k]
        width = order.shape[1]
        kept = np.take_along_axis(alive, order, axis=1)
        done = kept.all(axis=1) & (width == k) | (net >= total)
        complete = pending[done]
        rows[complete, :width] = np.where(kept, np.take_along_axis(near, order, axis=1), -1)[done]
        values = np.where(kept, np.take_along_axis(values, order, axis=1), np.float32(np.nan))
        distances[complete, :width] = values[done]
        pending = pending[~done]
        net, widening = min(total, _WIDENING * net), _WIDENING * widening
    return rows, distances


def merged(found: Sequence[Found], k: int, *, higher_is_closer: bool) -> Found:
    """The k best of several answers, rows −1 being none; equal distances in the order of the answers."""
    if len(found) == 1:
        return found[0]
    rows = np.concatenate([rows for rows, _ in found], axis=1)
    distances = np.concatenate([distances for _, distances in found], axis=1)
    far = np.where(rows < 0, np.inf, -distances if higher_is_closer else distances)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(distances, order, axis=1)


def trimmed(found: Found) -> Found:
    """Without the columns in which no query has a row."""
    rows, distances = found
    if rows.shape[1] and rows[:, -1].min(initial=0) >= 0:
        return found
    width = int((rows >= 0).sum(axis=1).max(initial=0))
    return rows[:, :width], distances[:, :width]
