"""Which datapoints pass a filter: roaring bitmaps by token, sorted columns by number.

Bitmaps number datapoints by *slot*: their place when sorted by leaf (`partition`), so that what passes in one
leaf is one slice. Lemire et al., "Roaring bitmaps: implementation of an optimized software library", 2018.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from functools import cached_property, reduce
from operator import and_
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from earshot.errors import DataLoss

from ..arrow import read_table, write_table
from .datapoints import Collected, as_slots
from .restricts import INT64_MAX, INT64_MIN, NumericRestrict, Operator, Restrict, TokenRestrict
from .where import Where, canonical

Slots = npt.NDArray[np.uint32]

_TOKENS, _NUMBERS, _DATAPOINTS = "tokens.arrow", "numbers.arrow", "datapoints.arrow"
_STRING: pa.DataType = pa.string()
_BITMAP: pa.DataType = pa.large_binary()  # slots, in the portable roaring format
_TOKEN_SCHEMA = pa.schema([("namespace", _STRING), ("token", _STRING), ("allow", _BITMAP), ("deny", _BITMAP)])
_NUMBER_SCHEMA = pa.schema(
    [
        ("namespace", pa.string()),
        ("ints", pa.large_list(pa.int64())),  # ascending; one of the two is null
        ("floats", pa.large_list(pa.float64())),
        ("slots", pa.large_list(pa.uint32())),
    ]
)
# By slot: twice the token's row in the table of tokens, plus 1 where the datapoint denies it.
_DATAPOINT_SCHEMA = pa.schema([("tokens", pa.large_list(pa.uint32()))])


class RestrictIndex:
    """Immutable; three Arrow tables, mapped when opened."""

    def __init__(self, tokens: pa.Table, numbers: pa.Table, datapoints: pa.Table) -> None:
        self._tables = {_TOKENS: tokens, _NUMBERS: numbers, _DATAPOINTS: datapoints}
        self._allow, self._deny = (tokens.column(side).combine_chunks() for side in ("allow", "deny"))
        self._token = tokens.column("token").combine_chunks()
        self._codes = datapoints.column("tokens").combine_chunks()
        names: list[Any] = tokens.column("namespace").to_pylist()
        starts = [row for row, name in enumerate(names) if row == 0 or names[row - 1] != name]
        self._places = {
            names[a]: range(a, b) for a, b in zip(starts, [*starts[1:], len(names)], strict=False)
        }
        self._columns: dict[str, list[_Column]] = {}
        owners: list[Any] = numbers.column("namespace").to_pylist()
        for row, name in enumerate(owners):
            self._columns.setdefault(name, []).append(_Column.of(numbers, row))

    @classmethod
    def build(cls, collected: Collected, slot_of_row: Slots | None) -> Self:
        """Invert what was collected; `slot_of_row` None leaves datapoints in their rows' order."""
        sides = {side: {key[:2]: rows for key, rows in collected.tokens.items() if key[2] == side}
                 for side in ("allow", "deny")}  # fmt: skip
        names = sorted(sides["allow"].keys() | sides["deny"].keys())
        bitmaps: dict[str, list[bytes | None]] = {"allow": [], "deny": []}
        codes, owners = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)]
        for place, name in enumerate(names):
            for denied, side in enumerate(("allow", "deny")):
                slots = np.sort(as_slots(sides[side].get(name, []), slot_of_row))
                bitmaps[side].append(as_bitmap(slots).serialize() if len(slots) else None)
                codes.append(np.full(len(slots), 2 * place + denied, np.uint32))
                owners.append(slots)
        tokens = pa.table(
            [[name for name, _ in names], [token for _, token in names], bitmaps["allow"], bitmaps["deny"]],
            schema=_TOKEN_SCHEMA,
        )
        owner = np.concatenate(owners)
        offsets = np.zeros(collected.count + 1, np.int64)
        np.cumsum(np.bincount(owner, minlength=collected.count), out=offsets[1:])
        sorted_codes = np.concatenate(codes)[np.argsort(owner, kind="stable")]
        lists = pa.LargeListArray.from_arrays(
            pa.array(offsets, pa.int64()), pa.array(sorted_codes, pa.uint32())
        )
        datapoints = pa.table(
            [lists],
            schema=_DATAPOINT_SCHEMA,
        )
        columns: dict[str, list[object]] = {field.name: [] for field in _NUMBER_SCHEMA}
        for (namespace, kind), (rows, numbers) in sorted(collected.numbers.items()):
            values = np.array(numbers, kind)
            order = np.argsort(values, kind="stable")
            columns["namespace"].append(namespace)
            columns["ints"].append(values[order] if kind == "int64" else None)
            columns["floats"].append(values[order] if kind == "float64" else None)
            columns["slots"].append(as_slots(rows, slot_of_row)[order])
        return cls(tokens, pa.table(columns, schema=_NUMBER_SCHEMA), datapoints)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `save` wrote.

        Raises:
            DataLoss: A file is missing or damaged.
        """
        schemas = {_TOKENS: _TOKEN_SCHEMA, _NUMBERS: _NUMBER_SCHEMA, _DATAPOINTS: _DATAPOINT_SCHEMA}
        return cls(*(read_table(folder / name, schema) for name, schema in schemas.items()))

    def save(self, folder: Path) -> None:
        """Write the three tables."""
        for name, table in self._tables.items():
            write_table(table, folder / name)

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def namespaces(self) -> list[str]:
        """All that occur."""
        return sorted(self._places.keys() | self._columns.keys())

    def compile(self, where: Where) -> BitMap:
        """The slots that pass; see `restricts` for what that means."""
        everything = BitMap(range(len(self)))
        return reduce(and_, (self._passing(restrict, everything) for restrict in where), everything)

    def of(self, slot: int) -> Where:
        """The restricts of one datapoint."""
        restricts: list[Restrict] = []
        for code in self._codes[slot].as_py():
            place, denied = divmod(code, 2)
            namespace = self._tables[_TOKENS].column("namespace")[place].as_py()
            token = (self._token[place].as_py(),)
            restricts.append(
                TokenRestrict(namespace, deny=token) if denied else TokenRestrict(namespace, token)
            )
        for namespace, columns in self._columns.items():
            restricts += [NumericRestrict(namespace, value) for c in columns for value in c.values_at(slot)]
        return canonical(restricts)

    def _passing(self, restrict: Restrict, everything: BitMap) -> BitMap:
        if isinstance(restrict, NumericRestrict):
            assert restrict.op is not None
            columns = self._columns.get(restrict.namespace, [])
            return BitMap().union(*(column.passing(restrict.op, restrict.value) for column in columns))
        namespace = restrict.namespace
        passing = everything
        if restrict.allow:
            passing = self._union(self._allow, namespace, restrict.allow)
            passing -= self._union(self._deny, namespace, restrict.allow)
        return passing - self._union(self._allow, namespace, restrict.deny)

    def _union(self, side: Any, namespace: str, tokens: Iterable[str]) -> BitMap:
        found = (self._bitmap(side, namespace, token) for token in tokens)
        return BitMap().union(*found)

    def _bitmap(self, side: Any, namespace: str, token: str) -> BitMap:
        places = self._places.get(namespace, range(0))
        offset = bisect_left(places, token, key=lambda place: self._token[place].as_py())
        if offset == len(places) or self._token[places[offset]].as_py() != token:
            return BitMap()
        scalar = side[places[offset]]
        return BitMap.deserialize(scalar.as_py()) if scalar.is_valid else BitMap()


class _Column:
    """The numbers of one namespace and type, ascending, with the slot of each."""

    def __init__(self, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], slots: Slots) -> None:
        self._values = values
        self._slots = slots

    @classmethod
    def of(cls, numbers: pa.Table, row: int) -> Self:
        def cell(name: str) -> Any:
            scalar: Any = numbers.column(name)[row]
            return scalar.values

        values, slots = cell("ints"), cell("slots")
        if values is None:
            values = cell("floats")
        if values is None or slots is None or len(values) != len(slots):
            raise DataLoss(f"row {row} of {_NUMBERS} holds no column of numbers")
        return cls(values.to_numpy(), slots.to_numpy())

    def values_at(self, slot: int) -> list[int | float]:
        order = self._by_slot
        wanted = np.uint32(slot)  # any other type would have all slots converted
        first = int(np.searchsorted(self._slots, wanted, sorter=order))
        last = int(np.searchsorted(self._slots, wanted, "right", sorter=order))
        values: list[int | float] = self._values[order[first:last]].tolist()
        return values

    @cached_property
    def _by_slot(self) -> Slots:
        """Places of the numbers in the order of their slots; sorted when the first datapoint is read."""
        return np.argsort(self._slots).astype(np.uint32)

    def passing(self, op: Operator, value: int | float) -> BitMap:
        below, up_to = self._position(value)
        count = len(self._values)
        spans = {
            Operator.LESS: [(0, below)],
            Operator.LESS_EQUAL: [(0, up_to)],
            Operator.EQUAL: [(below, up_to)],
            Operator.GREATER_EQUAL: [(below, count)],
            Operator.GREATER: [(up_to, count)],
            Operator.NOT_EQUAL: [(0, below), (up_to, count)],
        }[op]
        return as_bitmap(np.sort(np.concatenate([self._slots[start:end] for start, end in spans])))

    def _position(self, value: int | float) -> tuple[int, int]:
        """How many values are less than `value`, and how many at most `value`, exactly.

        Between an int and a float no conversion is trusted: the bound moves to the neighboring
        representable number, and whether it is included follows from the side it moved to.
        """
        bound: np.int64 | np.float64
        if self._values.dtype == np.int64:
            if value == float("inf") or value > INT64_MAX:
                return len(self._values), len(self._values)
            if value < INT64_MIN:
                return 0, 0
            floor = int(value // 1)
            bound, difference = np.int64(floor), value - floor
        else:
            bound = np.float64(value)
            difference = 0 if value == float(bound) else 1 if value > float(bound) else -1
        below = int(np.searchsorted(self._values, bound, side="left"))
        up_to = int(np.searchsorted(self._values, bound, side="right"))
        if difference > 0:  # strictly above the bound, and below the next number there is
            return up_to, up_to
        return (below, below) if difference < 0 else (below, up_to)


def as_bitmap(slots: Slots) -> BitMap:
    """Ascending slots as a bitmap; through `array`, which pyroaring takes without making Python ints."""
    return BitMap(array("I", np.ascontiguousarray(slots, np.uint32).tobytes()))


def as_array(bitmap: BitMap) -> Slots:
    """A bitmap's members, ascending."""
    return np.frombuffer(bitmap.to_array(), np.uint32)
