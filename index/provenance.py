"""Which datapoints of a version were updated since its sources were read, so that a rebuild can keep them.

`live.arrow` in a version holds a row for each such id: the parts that updates set, as bits, or 0 where the
datapoint was removed. What they were set to is in the version itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntFlag
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from .arrow import read_table, write_table
from .index import Index
from .journal import UNSET, Entry, Patch, Put

__all__ = ["LIVE_FILE", "Parts", "Provenance"]

LIVE_FILE = "live.arrow"
_FIELDS_ON_DISK: list[tuple[str, pa.DataType]] = [("id", pa.large_string()), ("parts", pa.uint8())]
_SCHEMA = pa.schema(_FIELDS_ON_DISK)


class Parts(IntFlag):
    """What updates set of a datapoint; WHOLE where it was put, so that it needs no source."""

    REMOVED = 0
    VECTOR = 1
    CROWDING_TAG = 2
    METADATA = 4
    RESTRICTS = 8
    WHOLE = 31


class Provenance:
    """Parts by id."""

    def __init__(self, parts: dict[str, Parts] | None = None) -> None:
        self.parts = parts or {}

    @classmethod
    def of(cls, version: Index) -> Self:
        """What a version says of itself. Raises DataLoss where its file is damaged."""
        path = version.file(LIVE_FILE)
        if path is None:
            return cls()
        table = read_table(path, _SCHEMA)
        ids: list[Any] = table.column("id").to_pylist()
        parts: list[Any] = table.column("parts").to_pylist()
        return cls({name: Parts(bits) for name, bits in zip(ids, parts, strict=True)})

    def __len__(self) -> int:
        return len(self.parts)

    def watched(self, entries: Iterable[tuple[int, Entry]]) -> Iterator[tuple[int, Entry]]:
        """The same entries, noted as they pass."""
        for sequence, entry in entries:
            self.note(entry)
            yield sequence, entry

    def note(self, entry: Entry) -> None:
        """One update after those before."""
        if isinstance(entry, Put):
            self.parts[entry.id] = Parts.WHOLE
        elif isinstance(entry, Patch):
            before = self.parts.get(entry.id)
            if before == Parts.REMOVED:  # and not None
                return  # what is removed cannot be patched
            given = (part for name, part in _FIELDS if getattr(entry, name) is not UNSET)
            self.parts[entry.id] = reduce(or_, given, before or Parts.REMOVED)
        else:
            self.parts[entry.id] = Parts.REMOVED

    def settle(self, there: Iterable[str]) -> None:
        """Forget patches of ids that never were there; `there` are the ids that are."""
        known = set(there)
        self.parts = {
            name: parts for name, parts in self.parts.items() if parts == Parts.REMOVED or name in known
        }

    def save(self, path: Path) -> None:
        """Write the file."""
        write_table(pa.table([list(self.parts), [int(p) for p in self.parts.values()]], schema=_SCHEMA), path)


_FIELDS = (
    ("vector", Parts.VECTOR),
    ("crowding_tag", Parts.CROWDING_TAG),
    ("metadata", Parts.METADATA),
    ("restricts", Parts.RESTRICTS),
)
