"""What passes one filter, in the forms that searching needs; recently used filters are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from ..distance import Floats
from ..vectors import gathered
from .inverted import as_array
from .partition import Lift, Partition, Slots
from .where import Where

_CACHE_BYTES = 256 << 20
_CACHE_FILTERS = 1024
_HELD = ("slots", "rows", "bounds", "counts", "mask", "gathered")


class Passing:
    """The datapoints that pass one filter, sorted by leaf."""

    def __init__(self, bitmap: BitMap, partition: Partition | None, vectors: Floats, lift: Lift) -> None:
        self.slots: Slots = as_array(bitmap)
        self._bitmap = bitmap
        self._partition = partition
        self._vectors = vectors
        self._lift = lift
        self.asked = 0  # queries so far; a lost update of another thread does no harm

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """Their rows, int64 [p], in the order of `slots`."""
        return self._rows_of(self.slots)

    def _rows_of(self, slots: Slots) -> npt.NDArray[np.int64]:
        return (slots if self._partition is None else self._partition.row_of_slot[slots]).astype(np.int64)

    @cached_property
    def bounds(self) -> npt.NDArray[np.int64]:
        """Leaf l's passing rows are the places bounds[l] to bounds[l + 1]; int64 [leaves + 1]."""
        assert self._partition is not None
        return np.searchsorted(self.slots, self._partition.bounds.astype(np.uint32))

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """Passing rows of each leaf, int64 [leaves]."""
        return np.diff(self.bounds)

    @cached_property
    def mask(self) -> npt.NDArray[np.bool_]:
        """By row, bool [n]."""
        count = len(self._vectors)
        most_pass = 2 * len(self) > count
        mask = np.full(count, most_pass)
        # Whichever list is shorter: what passes or what fails.
        mask[self._rows_of(as_array(self._bitmap.flip(0, count))) if most_pass else self.rows] = not most_pass
        return mask

    @cached_property
    def gathered(self) -> Floats:
        """Their lifted vectors, float32 [p, d]."""
        return self._lift.vectors(gathered(self._vectors, self.rows))

    @property
    def is_gathered(self) -> bool:
        """Whether `gathered` is at hand already."""
        return "gathered" in self.__dict__

    def lifted(self, start: int, end: int) -> Floats:
        """The lifted vectors at some places, without gathering all."""
        if self.is_gathered:
            return self.gathered[start:end]
        return self._lift.vectors(gathered(self._vectors, self.rows[start:end]))

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(self.__dict__[name].nbytes for name in _HELD if name in self.__dict__)


class PassingCache:
    """Least recently used filters go first, by bytes and by number. Safe from many threads."""

    def __init__(self, compile_filter: Callable[[Where], Passing], limit_bytes: int = _CACHE_BYTES) -> None:
        self._compile = compile_filter
        self._limit = limit_bytes
        self._entries: OrderedDict[Where, tuple[Passing, int]] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def get(self, where: Where) -> Passing:
        """What passes `where`, compiled now or before."""
        with self._lock:
            entry = self._entries.get(where)
            if entry is not None:
                self._entries.move_to_end(where)
                return entry[0]
        passing = self._compile(where)
        self.keep(where, passing)
        return passing

    def keep(self, where: Where, passing: Passing) -> None:
        """Remember it; called again after a search, which may have had it hold more."""
        size = passing.bytes
        with self._lock:
            self._held += size - self._entries.pop(where, (passing, 0))[1]
            self._entries[where] = passing, size
            while self._held > self._limit or len(self._entries) > _CACHE_FILTERS:
                self._held -= self._entries.popitem(last=False)[1][1]
