"""The rows that came after the version, in their order, each with the span of its life.

One writer appends; readers take no lock. A reader looks only at rows below the count its view names, whose
values were written before that view was published, so arrays may grow beside it: by being replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..distance import Floats
from ..engines import Rows
from ..filters import Where
from ..vectors import squared_norms

__all__ = ["ALIVE", "Columns"]

ALIVE = np.iinfo(np.int64).max
"""When a row dies that has not."""

_FIRST = 1024


class Columns:
    """Fresh rows by slot, which is their number in order of arrival; slots are never used twice.

    Attributes:
        vectors: As they are compared, float32 [capacity, dimension].
        squares: Their squared lengths, float32 [capacity].
        norms: The lengths they had where they were scaled to 1, float32 [capacity], else None.
        born: Sequence number that brought the row, int64 [capacity].
        died: Sequence number that removed or replaced it, or ALIVE; int64 [capacity].
        previous: The row that had the id before, −1 where none had; int64 [capacity].
        tags: Codes of crowding tags, −1 for none; int64 [capacity].
        ids, metadata, restricts: By slot; metadata is JSON.
    """

    def __init__(self, dimension: int, *, scaled: bool) -> None:
        self.vectors: Floats = np.empty((_FIRST, dimension), np.float32)
        self.squares: Floats = np.empty(_FIRST, np.float32)
        self.norms: Floats | None = np.empty(_FIRST, np.float32) if scaled else None
        self.born: Rows = np.empty(_FIRST, np.int64)
        self.died: Rows = np.empty(_FIRST, np.int64)
        self.previous: Rows = np.empty(_FIRST, np.int64)
        self.tags: Rows = np.empty(_FIRST, np.int64)
        self.ids: list[str] = []
        self.metadata: list[bytes | None] = []
        self.restricts: list[Where] = []

    def __len__(self) -> int:
        return len(self.ids)

    def extend(
        self,
        names: Sequence[str],
        vectors: Floats,
        norms: Floats,
        *,
        born: Rows,
        previous: Sequence[int],
        tags: Sequence[int],
        metadata: Sequence[bytes | None],
        restricts: Sequence[Where],
    ) -> int:
        """Add rows; returns the slot of the first."""
        start = len(self.ids)
        end = start + len(names)
        self._reserve(end)
        self.vectors[start:end] = vectors
        self.squares[start:end] = squared_norms(vectors)
        if self.norms is not None:
            self.norms[start:end] = norms
        self.born[start:end], self.previous[start:end], self.tags[start:end] = born, previous, tags
        self.died[start:end] = ALIVE
        self.metadata += metadata
        self.restricts += restricts
        self.ids += names
        return start

    def _reserve(self, needed: int) -> None:
        capacity = len(self.born)
        if needed <= capacity:
            return
        capacity = max(needed, 2 * capacity)
        for name in ("vectors", "squares", "norms", "born", "died", "previous", "tags"):
            array: npt.NDArray[Any] | None = getattr(self, name)
            if array is not None:
                larger = np.empty((capacity, *array.shape[1:]), array.dtype)
                larger[: len(self.ids)] = array[: len(self.ids)]
                setattr(self, name, larger)
