"""Two versions beside each other: datapoints that came and went, and what their manifests say differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from .index import Index
from .manifest import Manifest
from .tuning import Recall

# What differs between any two builds says nothing; ids and recall have fields of their own below.
_LEFT_OUT = ("version", "created", "seconds", "files", "tuning.points", "tuning.chosen", "source.fingerprint")


class Change(msgspec.Struct, frozen=True):
    """One entry of the manifests, by its dotted name; None where a version lacks it."""

    name: str
    before: Any
    after: Any


class VersionDiff(msgspec.Struct, frozen=True):
    """From version `before` to version `after`.

    `added`, `removed` and `kept` count ids. Recall is the tuning's, of the default operating point.
    """

    index: str
    before: str
    after: str
    added: int
    removed: int
    kept: int
    bytes_before: int
    bytes_after: int
    recall_before: Recall
    recall_after: Recall
    changes: list[Change]


def diff(before: Index, after: Index) -> VersionDiff:
    """What is different in `after`; ids are compared by their 64-bit hashes."""
    old, new = before.id_hashes(), after.id_hashes()
    kept = len(np.intersect1d(old, new, assume_unique=True))
    return VersionDiff(
        index=after.manifest.index,
        before=before.manifest.version,
        after=after.manifest.version,
        added=len(new) - kept,
        removed=len(old) - kept,
        kept=kept,
        bytes_before=before.manifest.bytes,
        bytes_after=after.manifest.bytes,
        recall_before=before.manifest.tuning.chosen.recall,
        recall_after=after.manifest.tuning.chosen.recall,
        changes=changes(before.manifest, after.manifest),
    )


def changes(before: Manifest, after: Manifest) -> list[Change]:
    """The entries of two manifests that differ, sorted by name."""
    old, new = (dict(_flat(msgspec.to_builtins(manifest))) for manifest in (before, after))
    return [
        Change(name, old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        name = f"{prefix}{key}"
        if name in _LEFT_OUT:
            continue
        if isinstance(entry, dict):
            yield from _flat(entry, f"{name}.")
        else:
            yield name, entry
