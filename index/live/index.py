"""An index that takes updates: a version, which never changes, and the datapoints that changed since.

Multi-version concurrency: every row lives from one sequence number to another. A search sees the datapoints
of one sequence number, whole: never a removed one, never both the old and the new of one id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NoReturn, cast

import numpy as np

from earshot.errors import DataLoss, EarshotError, FailedPrecondition

from ..attributes import encode_metadata
from ..distance import DistanceMeasure, Floats, seen_by_engines
from ..engines import Rows
from ..index import Index
from ..journal import UNSET, Entry, Patch, Put, Remove
from ..shard import Shard
from ..vectors import unit_norm
from .check import checked, packed_puts
from .columns import ALIVE, Columns
from .fresh import Fresh
from .parts import LiveAttributes, LiveIds, LiveMatrix, Tags
from .recall import RecallWatch
from .restricts import FreshRestricts
from .sealing import Seal, seal_here
from .segment import Segment
from .shard import LiveShard

__all__ = ["LiveIndex"]

SEAL_AT = 4_096


class LiveIndex(Index):
    """Searched, read and explained as its version is, by many threads; one at a time applies updates.

    Args:
        version: What to begin with, such as an opened `Index` or an `empty_index`.
        entries: Updates after its sequence number, in order; all are applied.
        seal: Makes segments of fresh rows.

    Raises:
        FailedPrecondition: An entry does not fit the version, as where another model made that.
        DataLoss: The entries do not begin after the version's sequence number.
    """

    def __init__(
        self, version: Index, entries: Iterable[tuple[int, Entry]] = (), seal: Seal = seal_here
    ) -> None:
        base = version.shard
        sequence = version.manifest.sequence_number
        super().__init__(base, version.manifest, None)
        self.version = version
        self.watch = RecallWatch()
        self._seal = seal
        self._base = base
        self._measure = seen_by_engines(self.manifest.distance_measure)
        self._applying, self._tidying = threading.Lock(), threading.Lock()
        self._columns = Columns(self.dimension, scaled=self._scaled)
        self._restricts = FreshRestricts()
        self._tags = Tags(base.attributes, self._columns)
        self._attributes = LiveAttributes(base.attributes, self._columns, self._tags)
        self._matrix: Any = LiveMatrix(base.vectors, self._columns, "vectors")
        self._lengths: Any = None if base.norms is None else LiveMatrix(base.norms, self._columns, "norms")
        self._latest: dict[str, int] = {}
        self._died: Rows | None = None
        self._base_dead = self._fresh_dead = 0
        self._segments: tuple[Segment, ...] = ()
        self._start = 0
        self._last = sequence
        self._publish()
        self.replay(entries)
        self.tidy()

    @property
    def sequence(self) -> int:
        """The number of the last update that a search sees from now on."""
        return self._shard.sequence

    @property
    def changed(self) -> int:
        """What differs from the version: fresh datapoints, and rows of the version that died."""
        return len(self._columns) - self._fresh_dead + self._base_dead

    def now(self) -> Index:
        """The index as it is at this moment, which no later update changes."""
        return self.over(self._shard)

    def check(self, entry: Entry) -> Entry:
        """The entry as it should be written to the journal.

        Raises:
            InvalidArgument: It does not fit the index; the message names the part.
            NotFound: It changes parts of a datapoint that is not here.
        """
        (found,) = self.check_all([entry])
        if isinstance(found, EarshotError):
            raise found
        return found

    def check_all(self, entries: Sequence[Entry]) -> list[Entry | EarshotError]:
        """`check` of each: the entry, or why it is none."""
        return checked(entries, self.dimension, lambda name: self._rows([name]))

    def packed_puts(self, names: Sequence[str], vectors: Sequence[bytes]) -> list[Put] | None:
        """Checked entries of datapoints that are an id and a packed vector; None where one is wrong."""
        return packed_puts(names, vectors, self.dimension)

    def apply(self, first: int, entries: Sequence[Entry]) -> None:
        """Updates as the journal has them; searches see all of them at once when this returns.

        Args:
            first: Sequence number of the first; the others follow without a gap.
            entries: Those that are known already are passed over.

        Raises:
            DataLoss: Updates before `first` are missing.
            FailedPrecondition: One does not fit the index; those before it are applied.
        """
        with self._applying:
            if first > self._last + 1:
                raise DataLoss(f"update {self._last + 1} is missing: {first} came after {self._last}")
            entries = entries[self._last + 1 - first :]
            if not entries:
                return
            try:
                self._apply(entries)
            finally:
                self._publish()

    def tidy(self) -> bool:
        """Set fresh rows in order where there are many; returns whether there was anything to do.

        For a thread in the background: it takes milliseconds for some thousand rows, seconds for a million.
        Searches and updates go on beside it.
        """
        with self._tidying:
            return self._tidy()

    def _tidy(self) -> bool:
        with self._applying:
            end, segments = len(self._columns), self._segments
            unsealed = end - self._start
        if unsealed < SEAL_AT or self._measure is DistanceMeasure.L1_DISTANCE:
            return False
        # As log-structured merge trees do: a segment takes in those before it that are not much larger, so
        # that there are few, and a row is set in order again only as often as their number doubles.
        size, kept = unsealed, len(segments)
        while kept and len(segments[kept - 1]) < 2 * size:
            kept -= 1
            size += len(segments[kept])
        slots = np.concatenate([*(each.slots for each in segments[kept:]), np.arange(self._start, end)])
        slots = np.sort(slots[self._columns.died[slots] == ALIVE])
        made = []
        if len(slots) >= 2:
            made = [self._seal(self._columns.vectors, slots, self._measure)]
        with self._applying:
            # Rows that nobody sees any more, and were left out, would count as dead for ever.
            self._segments = (*segments[:kept], *made)
            self._start = end if made or not len(slots) else int(slots[0])
            self._publish()
        return True

    def save(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: build an index of `now` instead, which is what compaction does."""
        raise FailedPrecondition("a live index is not saved: its version is, and its journal")

    def tuned(self, *_: Any, **__: Any) -> NoReturn:
        """Not possible: tune its version."""
        raise FailedPrecondition("a live index is not tuned: tune its version")

    def replay(self, entries: Iterable[tuple[int, Entry]]) -> None:
        """`apply` of numbered updates, as a journal reads them, after the last known; raises as that does."""
        batch: list[Entry] = []
        first = self._last + 1
        for sequence, entry in entries:
            if sequence != first + len(batch):
                raise DataLoss(f"update {first + len(batch)} is missing: {sequence} came instead")
            batch.append(entry)
            if len(batch) == SEAL_AT:
                self.apply(first, batch)
                first, batch = first + len(batch), []
        self.apply(first, batch)

    def _apply(self, entries: Sequence[Entry]) -> None:
        if Patch not in set(map(type, entries)):
            self._write(entries)
            return
        for is_patch, run in groupby(entries, lambda entry: isinstance(entry, Patch)):
            if not is_patch:
                self._write(list(run))
                continue
            # A patch builds on what is there, so of one id one at a time.
            patches: list[Entry] = []
            touched: set[str] = set()
            for entry in run:
                if entry.id in touched:
                    self._write(patches)
                    patches, touched = [], set()
                patches.append(entry)
                touched.add(entry.id)
            self._write(patches)

    def _write(self, entries: Sequence[Entry]) -> None:
        """Entries in their order; all patches, of different ids, or none."""
        names = [each.id for each in entries]
        before = list(map(self._latest.get, names))
        new = [name for name, row in zip(names, before, strict=True) if row is None]
        known: dict[str, int] = {}
        if len(self._base) and new:
            known = dict(zip(new, self._base.ids.rows_of(new).tolist(), strict=True))
        rows = [known.get(name, -1) if row is None else row for name, row in zip(names, before, strict=True)]
        if set(map(type, entries)) == {Put} and len(set(names)) == len(names):
            self._put(cast(Sequence[Put], entries), names, rows)
        else:
            self._one_by_one(entries, names, rows)
        self._last += len(entries)

    def _put(self, entries: Sequence[Put], names: Sequence[str], before: Sequence[int]) -> None:
        """Whole datapoints of different ids, which is what most updates are; `before` are their rows."""
        row = len(self._base) + len(self._columns)
        born = np.arange(self._last + 1, self._last + 1 + len(entries))
        self._add(entries, born, before)
        self._latest.update(zip(names, range(row, row + len(names)), strict=True))
        gone = np.array(before)
        if (replaced := gone >= 0).any():
            self._die(gone[replaced], born[replaced])

    def _one_by_one(self, entries: Sequence[Entry], names: Sequence[str], before: Sequence[int]) -> None:
        """Any entries; what one does to an id, the next one of it finds."""
        slot, count = len(self._columns), len(self._base)
        rows: dict[str, int] = {}
        added: list[Put | Patch] = []
        born: list[int] = []
        previous: list[int] = []
        gone: list[int] = []
        died: list[int] = []
        for sequence, (entry, name, row) in enumerate(
            zip(entries, names, before, strict=True), self._last + 1
        ):
            row = rows.get(name, row)
            if isinstance(entry, Patch) and (row < 0 or self._death(row) != ALIVE):
                continue  # what it changes was removed meanwhile
            if not isinstance(entry, Remove):
                added.append(entry)
                born.append(sequence)
                previous.append(row)
                rows[name] = count + slot
                slot += 1
            if row >= 0:
                gone.append(row)
                died.append(sequence)
        if added:
            self._add(added, np.array(born), previous)
        self._latest.update(rows)  # last: whoever finds a row there reads when it was born
        if gone:
            self._die(np.array(gone), np.array(died))

    def _add(self, added: Sequence[Put | Patch], born: Rows, previous: Sequence[int]) -> None:
        vectors, norms = self._compared(added, previous)
        whole = [
            self._patched(each, row) if isinstance(each, Patch) else each
            for each, row in zip(added, previous, strict=True)
        ]
        restricts = [each.restricts for each in whole]
        for slot, each in enumerate(restricts, len(self._columns)):
            if each:
                self._restricts.add(slot, each)
        self._columns.extend(
            [each.id for each in whole],
            vectors,
            norms,
            born=born,
            previous=previous,
            tags=[
                -1 if each.crowding_tag is None else self._tags.code_of(each.crowding_tag) for each in whole
            ],
            metadata=[None if each.metadata is None else encode_metadata(each.metadata) for each in whole],
            restricts=restricts,
        )

    def _compared(self, added: Sequence[Put | Patch], rows: Sequence[int]) -> tuple[Floats, Floats]:
        """Vectors as they are compared, and the lengths they had, which are those of `rows` where none is
        given; float32 [n, dimension] and [n]."""
        given = [place for place, each in enumerate(added) if each.vector is not UNSET]
        arrays: list[Any] = [each.vector for each in added if each.vector is not UNSET]
        if {getattr(each, "shape", None) for each in arrays} - {(self.dimension,)}:
            self._check_shapes([added[place] for place in given])
        matrix = np.empty((len(arrays), self.dimension), np.float32)
        if arrays:
            np.concatenate(arrays, out=matrix.reshape(-1), casting="same_kind")
        found = unit_norm(matrix) if self._scaled else (matrix, np.ones(len(matrix), np.float32))
        if len(given) == len(added):
            return found
        kept = np.array(rows)
        vectors = self._matrix[kept]
        norms = np.ones(len(kept), np.float32) if self._lengths is None else self._lengths[kept]
        vectors[given], norms[given] = found
        return vectors, norms

    def _check_shapes(self, added: Sequence[Put | Patch]) -> None:
        for each in added:
            shape = np.shape(cast(Any, each.vector))
            if shape != (self.dimension,):
                raise FailedPrecondition(
                    f"the update of {each.id!r}, after number {self._last}, has a vector of shape {shape}; "
                    f"version {self.manifest.version or '(none)'} of the index has dimension "
                    f"{self.dimension}"
                )

    def _patched(self, patch: Patch, row: int) -> Put:
        """A datapoint with some of its parts replaced; the vector is seen to by the caller."""
        parts, count = self._attributes, len(self._base)
        stored = self._columns.restricts[row - count] if row >= count else self._base.restricts_of(row)
        return Put(
            patch.id,
            np.empty(0, np.float32),
            parts.crowding_tag(row) if patch.crowding_tag is UNSET else patch.crowding_tag,
            parts.metadata(row) if patch.metadata is UNSET else patch.metadata,
            stored if patch.restricts is UNSET else patch.restricts,
        )

    def _death(self, row: int) -> int:
        count = len(self._base)
        if row >= count:
            return int(self._columns.died[row - count])
        return ALIVE if self._died is None else int(self._died[row])

    def _die(self, rows: Rows, sequences: Rows) -> None:
        """Rows die where they live; of one that is there twice the first time counts."""
        rows, first = np.unique(rows, return_index=True)
        sequences = sequences[first]
        count = len(self._base)
        start = int(np.searchsorted(rows, count))
        if start:
            if self._died is None:
                self._died = np.full(count, ALIVE, np.int64)
            self._base_dead += _end(self._died, rows[:start], sequences[:start])
        self._fresh_dead += _end(self._columns.died, rows[start:] - count, sequences[start:])

    def _publish(self) -> None:
        """Searches that begin from now on see everything that was applied."""
        self._shard = self._view()

    def _view(self) -> Shard:
        if not len(self._columns) and not self._base_dead and len(self._base):
            return replace(self._base, sequence=self._last)
        base, columns, count = self._base, self._columns, len(self._columns)
        sealed = sum(map(len, self._segments))
        alive = count - self._fresh_dead
        ids: Any = LiveIds(base.ids, columns, self._latest, self._died, self._last)
        return LiveShard(
            vectors=self._matrix,
            norms=self._lengths,
            engine=base.engine,
            exact=base.exact,
            ids=ids,
            attributes=self._attributes,
            filters=base.filters,
            sequence=self._last,
            base=base,
            fresh=Fresh(
                columns,
                self._restricts,
                self._measure,
                self._last,
                count,
                self._start,
                self._segments,
                min(self._fresh_dead, max(0, sealed + count - self._start - alive)),
            ),
            died=self._died,
            base_dead=self._base_dead,
            count=len(base) - self._base_dead + alive,
            tags=self._tags,
        )


def _end(died: Rows, rows: Rows, sequences: Rows) -> int:
    """Note when rows died that live; returns how many those are."""
    lives = died[rows] == ALIVE
    died[rows[lives]] = sequences[lives]
    return int(np.count_nonzero(lives))
