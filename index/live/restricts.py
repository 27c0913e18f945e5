"""What fresh rows can be filtered by: inverted lists that grow, with the semantics of `filters.restricts`.

One writer adds. Reading beside it is safe because each bitmap operation holds the interpreter's lock, and
what was added after a reader's view is cut off by the view's count.
"""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from ..filters import NumericRestrict, Operator, Restrict, Where
from ..filters.inverted import as_bitmap
from ..filters.restricts import INT64_MAX, INT64_MIN

__all__ = ["FreshRestricts"]

Flags = npt.NDArray[np.bool_]


class FreshRestricts:
    """Slots by token and by number."""

    def __init__(self) -> None:
        self._tokens: dict[tuple[str, str, str], BitMap] = {}
        self._numbers: dict[tuple[str, str], _Numbers] = {}

    @property
    def namespaces(self) -> set[str]:
        """All that occur."""
        return {key[0] for key in [*self._tokens, *self._numbers]}

    def add(self, slot: int, restricts: Where) -> None:
        """The restricts of one row; slots ascend. A reader may be given them before the row itself."""
        for restrict in restricts:
            if isinstance(restrict, NumericRestrict):
                kind = "int64" if isinstance(restrict.value, int) else "float64"
                key = restrict.namespace, kind
                if key not in self._numbers:
                    self._numbers[key] = _Numbers(kind)
                self._numbers[key].append(slot, restrict.value)
                continue
            for side, tokens in (("allow", restrict.allow), ("deny", restrict.deny)):
                for token in tokens:
                    self._tokens.setdefault((restrict.namespace, token, side), BitMap()).add(slot)

    def compile(self, where: Where, end: int) -> BitMap:
        """The slots below `end` that pass."""
        everything = BitMap(range(end))
        return reduce(and_, (self._passing(restrict, everything) for restrict in where), everything)

    def _passing(self, restrict: Restrict, everything: BitMap) -> BitMap:
        namespace = restrict.namespace
        if isinstance(restrict, NumericRestrict):
            assert restrict.op is not None
            columns = [self._numbers.get((namespace, kind)) for kind in ("int64", "float64")]
            return BitMap().union(*(c.passing(restrict.op, restrict.value) for c in columns if c is not None))
        passing = everything
        if restrict.allow:
            passing = self._union(namespace, restrict.allow, "allow")
            passing -= self._union(namespace, restrict.allow, "deny")
        return passing - self._union(namespace, restrict.deny, "allow")

    def _union(self, namespace: str, tokens: tuple[str, ...], side: str) -> BitMap:
        found = (self._tokens.get((namespace, token, side)) for token in tokens)
        return BitMap().union(*(bitmap for bitmap in found if bitmap is not None))


class _Numbers:
    """The numbers of one namespace and type, in the order of their slots."""

    def __init__(self, kind: str) -> None:
        self._values: npt.NDArray[Any] = np.empty(64, kind)
        self._slots = np.empty(64, np.uint32)
        self._count = 0

    def append(self, slot: int, value: int | float) -> None:
        count = self._count
        if count == len(self._slots):
            self._values = np.concatenate((self._values, np.empty_like(self._values)))
            self._slots = np.concatenate((self._slots, np.empty_like(self._slots)))
        self._values[count], self._slots[count] = value, slot
        self._count = count + 1  # last: a reader counts on what lies before

    def passing(self, op: Operator, value: int | float) -> BitMap:
        count = self._count
        less, equal = _compared(self._values[:count], value)
        chosen = {
            Operator.LESS: less,
            Operator.LESS_EQUAL: less | equal,
            Operator.EQUAL: equal,
            Operator.GREATER_EQUAL: ~less,
            Operator.GREATER: ~(less | equal),
            Operator.NOT_EQUAL: ~equal,
        }[op]
        return as_bitmap(self._slots[:count][chosen])


def _compared(values: npt.NDArray[Any], bound: int | float) -> tuple[Flags, Flags]:
    """Which values are less than `bound`, and which equal, exactly, whatever the two types."""
    nothing = np.zeros(len(values), bool)
    if values.dtype == np.int64:
        if bound > INT64_MAX:
            return ~nothing, nothing
        if bound < INT64_MIN:
            return nothing, nothing
        floor = int(bound // 1)
        return (values < floor, values == floor) if floor == bound else (values <= floor, nothing)
    nearest = float(bound)
    if nearest == bound:
        return values < nearest, values == nearest
    return (values <= nearest if bound > nearest else values < nearest), nothing
