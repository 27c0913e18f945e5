"""An index that takes updates: a version, which never changes, and the datapoints that changed since.

Multi-version concurrency: every row lives from one sequence number to another. A search sees the datapoints
of one sequence number, whole: never a removed one, never both the old and the new of one id.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument

from ..attributes import encode_metadata
from ..distance import DistanceMeasure, Floats, seen_by_engines
from ..engines import Rows
from ..ids import check_id
from ..index import Index
from ..journal import UNSET, Entry, Patch, Put, Remove
from ..shard import Shard
from ..vectors import as_queries, unit_norm
from .check import checked_restricts
from .columns import ALIVE, Columns
from .fresh import Fresh
from .parts import LiveAttributes, LiveIds, LiveMatrix, Tags
from .recall import RecallWatch
from .restricts import FreshRestricts
from .segment import Segment
from .shard import LiveShard

__all__ = ["LiveIndex"]

SEAL_AT = 16_384


class LiveIndex(Index):
    """Searched, read and explained as its version is, by many threads; one at a time applies updates.

    Args:
        version: What to begin with, such as an opened `Index` or an `empty_index`.
        entries: Updates after its sequence number, in order; all are applied.

    Raises:
        FailedPrecondition: An entry does not fit the version, as where another model made that.
        DataLoss: The entries do not begin after the version's sequence number.
    """

    def __init__(self, version: Index, entries: Iterable[tuple[int, Entry]] = ()) -> None:
        base = version.shard
        sequence = version.manifest.sequence_number
        super().__init__(base, version.manifest, None)
        self.version = version
        self.watch = RecallWatch()
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

    @property
    def is_short_of_recall(self) -> bool:
        """Whether real searches were measured to find less than the index promises, beyond chance."""
        recall = self.watch.recall
        return recall is not None and recall.high < self.manifest.tuning.target_recall

    def now(self) -> Index:
        """The index as it is at this moment, which no later update changes."""
        return self.over(self._shard)

    def check(self, entry: Entry) -> Entry:
        """The entry as it should be written to the journal.

        Raises:
            InvalidArgument: It does not fit the index; the message names the part.
            NotFound: It changes parts of a datapoint that is not here.
        """
        check_id(entry.id)
        if isinstance(entry, Remove):
            return entry
        if isinstance(entry, Patch):
            self._rows([entry.id])
        if entry.vector is not UNSET:
            if np.ndim(entry.vector) != 1:
                raise InvalidArgument(
                    f"feature_vector has shape {np.shape(entry.vector)}; it must be [{self.dimension}]",
                    field="feature_vector",
                )
            as_queries(entry.vector, self.dimension, field="feature_vector")
        if entry.metadata is not UNSET:
            encode_metadata(entry.metadata)
        if not (entry.crowding_tag is UNSET or isinstance(entry.crowding_tag, str | None)):
            raise InvalidArgument(
                f"crowding_tag is {entry.crowding_tag!r}; it must be a string or None", field="crowding_tag"
            )
        if entry.restricts is UNSET:
            return entry
        return replace(entry, restricts=checked_restricts(entry.restricts))

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
            made = [Segment.build(self._columns.vectors[slots], slots, self._measure)]
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
        columns, count = self._columns, len(self._base)
        given = [each for each in entries if not isinstance(each, Remove) and each.vector is not UNSET]
        vectors, norms = self._compared(given)
        places = {id(each): place for place, each in enumerate(given)}
        new = [each.id for each in entries if each.id not in self._latest]
        known = dict(zip(new, self._base.ids.rows_of(new).tolist(), strict=True)) if count else {}
        columns.reserve(len(entries))
        start = len(columns)
        for entry in entries:
            sequence = self._last + 1
            row = self._latest.get(entry.id, known.get(entry.id, -1))
            is_here = row >= 0 and self._death(row) == ALIVE
            if isinstance(entry, Put) or (isinstance(entry, Patch) and is_here):
                place = places.get(id(entry))
                whole = entry if isinstance(entry, Put) else self._patched(entry, row)
                slot = columns.append(
                    entry.id,
                    self._matrix[np.array([row])][0] if place is None else vectors[place],
                    self._norm(row) if place is None else float(norms[place]),
                    born=sequence,
                    previous=row,
                    tag=self._tags.code_of(whole.crowding_tag),
                    metadata=encode_metadata(whole.metadata),
                    restricts=whole.restricts,
                )
                self._restricts.add(slot, whole.restricts)
                self._latest[entry.id] = count + slot
            if is_here:
                self._die(row, sequence)
            self._last = sequence
        columns.measure(start)

    def _compared(self, entries: Sequence[Put | Patch]) -> tuple[Floats, Floats]:
        """Vectors as they are compared, and the lengths they had; float32 [n, dimension] and [n]."""
        if not entries:
            return np.empty((0, self.dimension), np.float32), np.empty(0, np.float32)
        given = [np.asarray(entry.vector, np.float32) for entry in entries]
        for entry, vector in zip(entries, given, strict=True):
            if vector.shape != (self.dimension,):
                raise FailedPrecondition(
                    f"the update of {entry.id!r}, after number {self._last}, has a vector of shape "
                    f"{vector.shape}; version {self.manifest.version or '(none)'} of the index has dimension "
                    f"{self.dimension}"
                )
        matrix = np.stack(given)
        return unit_norm(matrix) if self._scaled else (matrix, np.ones(len(matrix), np.float32))

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

    def _norm(self, row: int) -> float:
        return 1.0 if self._lengths is None else float(self._lengths[np.array([row])][0])

    def _death(self, row: int) -> int:
        count = len(self._base)
        if row >= count:
            return int(self._columns.died[row - count])
        return ALIVE if self._died is None else int(self._died[row])

    def _die(self, row: int, sequence: int) -> None:
        count = len(self._base)
        if row >= count:
            self._columns.died[row - count] = sequence
            self._fresh_dead += 1
            return
        if self._died is None:
            self._died = np.full(count, ALIVE, np.int64)
        self._died[row] = sequence
        self._base_dead += 1

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
