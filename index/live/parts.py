"""What belongs to rows, of a version and fresh alike: fresh row s counts as the version's rows plus s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..attributes import Attributes, Codes, Metadata
from ..distance import Floats
from ..engines import Rows
from ..ids import Ids, hash_of
from .columns import ALIVE, Columns

__all__ = ["LiveAttributes", "LiveIds", "LiveMatrix", "Tags"]

_DECODER = msgspec.json.Decoder(Metadata)


class LiveMatrix:
    """Vectors, or their lengths: those of the version and the column of that name."""

    def __init__(self, base: Any, columns: Columns, name: str) -> None:
        self._base, self._columns, self._name = base, columns, name

    def __getitem__(self, key: Any) -> Floats:
        if isinstance(key, tuple):  # norms[rows, None]
            return self[key[0]][(slice(None), *key[1:])]
        rows = np.asarray(key, np.int64)
        count = len(self._base)
        fresh: Floats = getattr(self._columns, self._name)
        if not count:
            return fresh[rows]
        found = np.empty((len(rows), *fresh.shape[1:]), np.float32)
        is_fresh = rows >= count
        found[is_fresh] = fresh[rows[is_fresh] - count]
        found[~is_fresh] = self._base[rows[~is_fresh]]
        return found


class LiveIds:
    """Row → id, and id → the row that had it when the view was made.

    Args:
        base: Of the version.
        columns: Of the fresh rows.
        latest: The newest row of each id that was ever updated.
        died: When each row of the version died, int64 [n]; None while none has.
        sequence: Of the view.
    """

    def __init__(
        self, base: Ids, columns: Columns, latest: Mapping[str, int], died: Rows | None, sequence: int
    ) -> None:
        self._base, self._columns, self._latest = base, columns, latest
        self._died, self._sequence, self._count = died, sequence, len(base)

    def of(self, rows: Rows) -> npt.NDArray[np.object_]:
        """The ids at an array of row numbers, same shape, objects; None for row −1."""
        is_fresh = rows >= self._count
        if not is_fresh.any():
            return self._base.of(rows)
        ids = self._columns.ids
        found = np.empty(rows.shape, object)
        found[is_fresh] = [ids[slot] for slot in (rows[is_fresh] - self._count).tolist()]
        found[~is_fresh] = self._base.of(rows[~is_fresh]) if self._count else None
        return found

    def rows_of(self, ids: Sequence[str]) -> Rows:
        """The row of each id, −1 where it has none; int64 [len(ids)]."""
        for name in ids:
            hash_of(name)  # refuses what is no string
        rows = np.fromiter((self._latest.get(name, -2) for name in ids), np.int64, len(ids))
        untouched = np.flatnonzero(rows == -2)
        if len(untouched):
            rows[untouched] = self._base.rows_of([ids[place] for place in untouched.tolist()])
        columns, count = self._columns, self._count
        for place, row in enumerate(rows.tolist()):
            while row >= count and columns.born[row - count] > self._sequence:
                row = int(columns.previous[row - count])
            if row >= count:
                died = int(columns.died[row - count])
            else:
                died = ALIVE if self._died is None or row < 0 else int(self._died[row])
            rows[place] = row if died > self._sequence else -1
        return rows


class Tags:
    """One small number a crowding tag, those of the version and those that came after."""

    def __init__(self, base: Attributes, columns: Columns) -> None:
        self._base, self._columns = base, columns
        self._codes: dict[str, int] | None = None
        self._names: dict[int, str] = {}

    def code_of(self, tag: str | None) -> int:
        """A tag's number, a new one where it is new; −1 for none. For the writer alone."""
        if tag is None:
            return -1
        if self._codes is None:
            self._codes = {name: code for code, name in enumerate(self._base.tag_names())}
        code = self._codes.get(tag)
        if code is None:
            code = self._codes[tag] = len(self._codes)
        self._names[code] = tag
        return code

    def name_of(self, code: int) -> str | None:
        """The tag of a fresh row's number."""
        return self._names.get(code)

    def of(self, rows: Rows) -> Codes:
        """The numbers of rows, in their shape; row −1 has any."""
        base, count = self._base.crowding_codes, len(self._base)
        codes = np.full(rows.shape, -1, np.int64)
        is_fresh = rows >= count
        codes[is_fresh] = self._columns.tags[rows[is_fresh] - count]
        of_version = ~is_fresh & (rows >= 0)
        codes[of_version] = base[rows[of_version]]
        return codes


class LiveAttributes(Attributes):
    """Tags and metadata."""

    def __init__(self, base: Attributes, columns: Columns, tags: Tags) -> None:
        self._base, self._columns, self.tags, self._count = base, columns, tags, len(base)

    def crowding_tag(self, row: int) -> str | None:
        """The datapoint's tag."""
        if row < self._count:
            return self._base.crowding_tag(row) if row >= 0 else None
        return self.tags.name_of(int(self._columns.tags[row - self._count]))

    def metadata_json(self, row: int) -> bytes | None:
        """The datapoint's metadata as it is stored: one JSON object."""
        if row < self._count:
            return self._base.metadata_json(row) if row >= 0 else None
        return self._columns.metadata[row - self._count]


class Ranked:
    """Codes of tags for `crowded_search`: of any row, while the number of rows is that of the living."""

    def __init__(self, tags: Tags, count: int) -> None:
        self._tags, self._count = tags, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: Rows) -> Codes:
        return self._tags.of(rows)
