"""What is always the same in answers about a datapoint, made once for each and remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from weakref import ref

import numpy as np

from earshot.index import SearchResult

from .. import messages
from ..search import SearchPlan, attach
from ..served_index import ServedIndex

__all__ = ["Pieces"]

MAX_REMEMBERED = 200_000  # datapoints of one kind; about 200 bytes each
MAX_KINDS = 32

_Kind = tuple[str, tuple[str, ...] | None]
"""An index, and what is asked of its metadata."""


def _nothing() -> None:
    return None


class Pieces:
    """One piece for each datapoint of one served version, as `make` makes it. Threads may share it."""

    def __init__(self, make: Callable[[messages.Datapoint], bytes]) -> None:
        self._make = make
        # Weakly: a request that began before a swap may come last, and would keep its version open.
        self._of: dict[_Kind, tuple[ref[ServedIndex], dict[int, bytes]]] = {}

    def get(self, plan: SearchPlan, found: SearchResult) -> tuple[list[bytes], list[int] | None]:
        """The pieces of all queries' neighbors, one after another, and how many each query has.

        None in place of the numbers where every place is filled; the pieces of empty places are empty.
        """
        rows = found.rows.ravel().tolist()
        known = self._known(plan)
        try:
            return list(map(known.__getitem__, rows)), None  # the usual case
        except KeyError:
            pass
        # Another thread may be making room: what was there a moment ago need not be there now.
        of = {row: known.get(row, b"") for row in rows}
        of.update(self._made(plan, found, [row for row, piece in of.items() if not piece and row >= 0]))
        if not plan.full:
            known.update((row, piece) for row, piece in of.items() if row >= 0)
            if len(known) > MAX_REMEMBERED:
                for row in list(islice(known, MAX_REMEMBERED // 2)):  # the oldest
                    known.pop(row, None)
        return [of[row] for row in rows], found.counts.tolist() if -1 in of else None

    def forget(self, name: str) -> None:
        """Lets go of all pieces of an index; any thread may say so."""
        for kind in list(self._of):
            if kind[0] == name:
                self._of.pop(kind, None)

    def _known(self, plan: SearchPlan) -> dict[int, bytes]:
        if plan.full:  # vectors are large, and seldom asked for
            return {}
        kind = plan.served.name, plan.fields
        served, known = self._of.get(kind, (_nothing, {}))
        if served() is not plan.served:
            known = {}
            self._of.pop(kind, None)
            if len(self._of) >= MAX_KINDS:
                self._of.pop(next(iter(self._of)), None)
            self._of[kind] = ref(plan.served), known
        return known

    def _made(self, plan: SearchPlan, found: SearchResult, rows: list[int]) -> dict[int, bytes]:
        alone = replace(
            found, rows=np.array([rows], np.int64), distances=np.zeros((1, len(rows)), np.float32)
        )
        neighbors = attach(plan, alone, 0)
        return {row: self._make(neighbor.datapoint) for row, neighbor in zip(rows, neighbors, strict=True)}
