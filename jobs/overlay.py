"""Updates that outlive a rebuild: what was put, patched or removed since the sources, laid over them again.

Updates that a version holds are taken from it, by what `live.arrow` says of them; those after it stay in the
journal and are applied by whoever serves the new version, as they were over the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earshot.errors import DataLoss, FailedPrecondition
from earshot.index import Datapoint, Index, Manifest, Store
from earshot.index.distance import Floats
from earshot.index.provenance import LIVE_FILE, Parts, Provenance

from .journals import read_journal

__all__ = ["Overlay", "Sourced", "overlay_of"]


@dataclass(slots=True)
class Sourced:
    """Datapoints as sources say them, in one order; as `Index.build` takes them."""

    vectors: Floats
    ids: Iterable[str] | None
    crowding_tags: Iterable[str | None] | None = None
    metadata: Iterable[Any] | None = None
    restricts: Iterable[Any] | None = None


@dataclass(slots=True)
class Overlay:
    """What a new version keeps of the updates.

    Attributes:
        sequence: Number of the last update that is in it, or dropped.
        manifest: Of the current version; None where there is none.
        version: The current one where it holds updates.
        provenance: Which they are.
        waiting: How many more are in the journal.
    """

    sequence: int = 0
    manifest: Manifest | None = None
    version: Index | None = None
    provenance: Provenance = field(default_factory=Provenance)
    waiting: int = 0

    @property
    def files(self) -> dict[str, Callable[[Path], None]]:
        """For `Store.publish`."""
        return {LIVE_FILE: self.provenance.save} if len(self.provenance) else {}

    def check(self, *, dimension: int, model: str | None = None) -> None:
        """Raises FailedPrecondition where the updates' vectors are of another dimension or model."""
        vectors = sum(bool(parts & Parts.VECTOR) for parts in self.provenance.parts.values())
        manifest = self.manifest
        if not (vectors or self.waiting) or manifest is None:
            return
        before = manifest.model.get("digest")
        if manifest.dimension != dimension or (model is not None and before is not None and before != model):
            raise FailedPrecondition(
                f"{vectors + self.waiting} live updates of {manifest.index} are vectors of another model or "
                "dimension: upsert them anew into another index, or drop them with --drop-live-updates",
                field="drop_live_updates",
            )

    def over(self, sourced: Sourced) -> Sourced:
        """The sources' datapoints with the updates over them."""
        version, updates = self.version, self.provenance.parts
        if version is None or not updates:
            return sourced
        count = len(sourced.vectors)
        ids = [str(row) for row in range(count)] if sourced.ids is None else list(sourced.ids)
        place = {name: row for row, name in enumerate(ids)}
        self.provenance.parts = updates = {
            name: parts
            for name, parts in updates.items()
            if parts in (Parts.REMOVED, Parts.WHOLE) or name in place  # what is patched needs its source
        }
        there = [name for name, parts in updates.items() if parts]
        found = dict(zip(there, version.read(there), strict=True))
        keep = [row for row, name in enumerate(ids) if updates.get(name) != Parts.REMOVED]
        new = [name for name in there if name not in place]
        vectors = np.concatenate([sourced.vectors[keep], *(found[name].vector[np.newaxis] for name in new)])
        names = [ids[row] for row in keep] + new
        columns = {part: _laid(getattr(sourced, name), keep, len(new)) for part, name in _COLUMNS.items()}
        for row, name in enumerate(names):
            if name not in found:
                continue
            if updates[name] & Parts.VECTOR:
                vectors[row] = found[name].vector
            for part, column in columns.items():
                if updates[name] & part:
                    column[row] = _VALUES[part](found[name])
        return Sourced(vectors, names, **{name: columns[part] for part, name in _COLUMNS.items()})


def overlay_of(store: Store, index: str, journal: str | None, *, drop: bool) -> Overlay:
    """What there is to keep.

    Args:
        store: Where the index is.
        index: Which.
        journal: Its address where one is set.
        drop: Keep nothing that was acknowledged until now.

    Raises:
        DataLoss: Updates that were trimmed from the journal are in no version that can be read.
    """
    log = read_journal(store, index, journal)
    try:
        last, trimmed = (0, 0) if log is None else (log.last(), log.status().trimmed)
    finally:
        if log is not None:
            log.close()
    if drop:
        return Overlay(sequence=last)
    try:
        manifest = store.manifest(index)
        version = store.open(index) if LIVE_FILE in manifest.files else None
    except (FailedPrecondition, DataLoss) as error:
        if trimmed:
            raise DataLoss(
                f"updates up to {trimmed} of {index} are in no version that can be read ({error.message}): "
                "roll back to one that is whole, or drop them with --drop-live-updates"
            ) from error
        return Overlay(waiting=last)
    sequence = manifest.sequence_number
    provenance = Provenance() if version is None else Provenance.of(version)
    return Overlay(sequence, manifest, version, provenance, max(0, last - sequence))


_COLUMNS = {
    Parts.CROWDING_TAG: "crowding_tags",
    Parts.METADATA: "metadata",
    Parts.RESTRICTS: "restricts",
}
_VALUES: dict[Parts, Callable[[Datapoint], Any]] = {
    Parts.CROWDING_TAG: lambda datapoint: datapoint.crowding_tag,
    Parts.METADATA: lambda datapoint: datapoint.metadata,
    Parts.RESTRICTS: lambda datapoint: list(datapoint.restricts),
}


def _laid(column: Iterable[Any] | None, keep: list[int], new: int) -> list[Any]:
    """A column's kept rows, and room for the new ones."""
    values = None if column is None else list(column)
    return [None if values is None else values[row] for row in keep] + [None] * new
