"""One open version, and what was asked of searches since it was built."""

from __future__ import annotations

from dataclasses import dataclass, field

from earshot.index import IndexConfig, Tuning
from earshot.index.live import LiveIndex
from earshot.index.tuning import choose

from .warm import Recent

__all__ = ["ServedIndex", "served_index"]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class ServedIndex:
    """One open version. A request holds on to it from start to end, whatever is swapped meanwhile."""

    name: str
    version: str
    index: LiveIndex
    target_recall: float | None = None
    """Asked for since it was built, and measured for it; None for what it was built with."""
    crowding: int | None = None
    """Neighbors with the same tag where a search says nothing; None for no limit."""
    recent: Recent = field(default_factory=Recent, compare=False)
    """What is asked of the index, whatever version answers."""

    @property
    def promised(self) -> float:
        """The recall of a search that asks for none."""
        return self.target_recall or self.index.manifest.tuning.target_recall

    @property
    def is_short(self) -> bool:
        """Whether real searches were measured to find less than promised, beyond chance."""
        return self.index.watch.is_short_of(self.promised)


def served_index(
    name: str, version: str, index: LiveIndex, asked: IndexConfig, recent: Recent
) -> ServedIndex:
    """An open version with what was asked of searches since it was built."""
    manifest = index.manifest
    tuning, target = manifest.tuning, asked.target_recall
    # A target that no approximate search was measured to hold would be searched exactly: not unasked.
    if target is not None and (target == tuning.target_recall or not _is_measured(tuning, target)):
        target = None
    crowding = asked.per_crowding_attribute_neighbor_count
    if crowding is None:
        crowding = manifest.config.get("per_crowding_attribute_neighbor_count")
    return ServedIndex(name, version, index, target, crowding or None, recent)


def _is_measured(tuning: Tuning, target_recall: float) -> bool:
    return not tuning.chosen.leaves or bool(choose(tuning.points, 10, target_recall).leaves)
