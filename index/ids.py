"""Ids are strings of any Unicode, kept in Arrow and found again by a sorted table of their hashes.

A table of hashes is mapped from disk and costs 16 bytes a datapoint; a Python dict would cost ten times that.
Where all ids fit in some megabytes, they are also kept as Python strings from the first search on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from earshot.errors import DataLoss, InvalidArgument

from .arrow import read_table, write_table
from .engines import Rows

MAX_ID_BYTES = 1024
_HANDFUL = 64
_HELD_BYTES = 48 << 20
_STRING_BYTES = 57 + 8  # what Python wants for a short string, and the reference to it


class Ids:
    """Row number → id and back.

    Raises:
        InvalidArgument: An id is empty, longer than 1 KiB, not a string, not encodable, or not unique.
    """

    def __init__(self, names: Any, hashes: npt.NDArray[np.uint64], order: Rows) -> None:
        self._names = names
        self._hashes = hashes
        self._order = order
        _, offsets, data = names.buffers()
        self._offsets = memoryview(offsets).cast("q")
        self._data = memoryview(data if data is not None else b"")

    @classmethod
    def build(cls, ids: Iterable[str] | None, count: int) -> Self:
        """Check and index `count` ids; None numbers the rows "0", "1", …"""
        names = [str(row) for row in range(count)] if ids is None else list(ids)
        if len(names) != count:
            raise InvalidArgument(f"ids has {len(names)} entries for {count} vectors", field="ids")
        hashes = np.fromiter((_hash_checked(name, row) for row, name in enumerate(names)), np.uint64, count)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        _refuse_duplicates(names, hashes, order)
        return cls(pa.array(names, pa.large_string()), hashes, order)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map `ids.arrow` and `id_hashes.arrow`."""
        names = read_table(folder / "ids.arrow", pa.schema([("id", pa.large_string())]))
        table = read_table(folder / "id_hashes.arrow", _HASHES)
        if len(names) != len(table):
            raise DataLoss(f"{folder}: ids.arrow has {len(names)} rows, id_hashes.arrow {len(table)}")
        return cls(
            names.column("id").combine_chunks(),
            table.column("hash").combine_chunks().to_numpy(),
            table.column("row").combine_chunks().to_numpy(),
        )

    def save(self, folder: Path) -> None:
        """Write both files."""
        write_table(pa.table({"id": self._names}), folder / "ids.arrow")
        write_table(pa.table([self._hashes, self._order], schema=_HASHES), folder / "id_hashes.arrow")

    def __len__(self) -> int:
        return len(self._names)

    def by_row(self) -> npt.NDArray[np.uint64]:
        """The hash of each row's id, uint64 [n]."""
        found = np.empty(len(self), np.uint64)
        found[self._order] = self._hashes
        return found

    def take(self, rows: npt.NDArray[np.intp]) -> Self:
        """The ids of some rows, ascending, under new row numbers."""
        place = np.full(len(self), -1, np.int64)
        place[rows] = np.arange(len(rows))
        order = place[self._order]
        return type(self)(self._names.take(pa.array(rows)), self._hashes[order >= 0], order[order >= 0])

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """The ids' xxh3_64, ascending, uint64 [n]."""
        return self._hashes

    def of(self, rows: Rows) -> npt.NDArray[np.object_]:
        """The ids at an array of row numbers, same shape, objects; None for row −1."""
        result: npt.NDArray[np.object_]
        if self._held is not None:
            return self._held[rows]
        flat = rows.ravel()
        if len(flat) <= _HANDFUL:  # slices of the buffer beat the fixed costs of Arrow and NumPy
            offsets, data = self._offsets, self._data
            result = np.empty(len(flat), object)
            result[:] = [
                None if row < 0 else str(data[offsets[row] : offsets[row + 1]], "utf-8")
                for row in flat.tolist()
            ]
            return result.reshape(rows.shape)
        result = self._names.take(pa.array(np.maximum(flat, 0))).to_numpy(zero_copy_only=False)
        result[flat < 0] = None
        return result.reshape(rows.shape)

    @cached_property
    def _held(self) -> npt.NDArray[np.object_] | None:
        """All ids as strings and None at the end, where row −1 looks; None where that takes much memory.

        To make ten strings takes a fifth of the time of a quick search.
        """
        if len(self._data) + _STRING_BYTES * len(self) > _HELD_BYTES:
            return None
        held = np.empty(len(self) + 1, object)
        held[:-1] = self._names.to_numpy(zero_copy_only=False)
        return held

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """The row of each id, −1 where there is none; int64 [len(ids)]."""
        wanted = np.fromiter((hash_of(name) for name in ids), np.uint64, len(ids))
        first = np.searchsorted(self._hashes, wanted, side="left")
        last = np.searchsorted(self._hashes, wanted, side="right")
        rows = np.full(len(ids), -1, np.int64)
        for i in np.flatnonzero(first < last).tolist():
            for place in range(first[i], last[i]):
                if self._names[int(self._order[place])].as_py() == ids[i]:
                    rows[i] = self._order[place]
        return rows


_HASHES = pa.schema([("hash", pa.uint64()), ("row", pa.int64())])


def hash_of(name: Any) -> int:
    """The xxh3_64 of an id; raises InvalidArgument where it is no string."""
    if not isinstance(name, str):
        raise InvalidArgument(f"ids holds {name!r}; an id is a string", field="ids")
    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))


def check_id(name: Any, where: str = "id") -> bytes:
    """An id as UTF-8; `where` begins the message of InvalidArgument where it is none."""
    if not isinstance(name, str):
        raise InvalidArgument(f"{where} is {name!r}; an id is a string", field="ids")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{where} {name!r} holds a lone surrogate", field="ids") from None
    if not 1 <= len(encoded) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"{where} has {len(encoded)} bytes of UTF-8; an id has 1 to {MAX_ID_BYTES}", field="ids"
        )
    return encoded


def _hash_checked(name: Any, row: int) -> int:
    try:
        return xxhash.xxh3_64_intdigest(check_id(name))
    except InvalidArgument:
        check_id(name, f"ids, row {row},")  # the same with the row, which costs time to put together
        raise


def _refuse_duplicates(names: Sequence[str], hashes: npt.NDArray[np.uint64], order: Rows) -> None:
    for place in np.flatnonzero(hashes[1:] == hashes[:-1]):
        # Equal hashes lie together; two different ids among them would be a wonder, but not an error.
        following = place + 1
        while following < len(hashes) and hashes[following] == hashes[place]:
            first, second = int(order[place]), int(order[following])
            if names[first] == names[second]:
                raise InvalidArgument(
                    f"ids has {names[first]!r} in rows {first} and {second}; ids are unique", field="ids"
                )
            following += 1
