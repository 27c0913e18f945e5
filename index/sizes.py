"""What an index takes, by part: the files of its manifest, added up."""

from __future__ import annotations

from fnmatch import fnmatch

import msgspec

from .manifest import Manifest

_PARTS = {
    "vectors": ("*/vectors.npy", "*/norms.npy"),
    "codes": ("*/engine/hashed_dataset*",),
    "reordering": ("*/engine/int8_*", "*/engine/bfloat16_*"),
    "engine": ("*/engine/*",),
    "ids": ("*/ids.arrow", "*/id_hashes.arrow"),
    "attributes": ("*/attributes.arrow",),
    "filters": ("*/filters/*",),
    "updates": ("live.arrow",),
    "questions": ("questions.npy",),
    "other": ("*",),
}


class Part(msgspec.Struct, frozen=True):
    """One part on disk.

    `vectors` are what engines search and reorder with in float32; `codes` are quantised copies of them;
    `reordering` is a copy of lower precision; `engine` is the rest of its files, partitions mostly.
    """

    name: str
    bytes: int
    bytes_a_vector: float


def sizes(manifest: Manifest) -> list[Part]:
    """The parts of a saved index, largest first; none of an index that has not been saved."""
    total: dict[str, int] = {}
    for path, entry in manifest.files.items():
        part = next(name for name, patterns in _PARTS.items() if any(fnmatch(path, p) for p in patterns))
        total[part] = total.get(part, 0) + entry.bytes
    parts = [Part(name, size, round(size / manifest.count, 2)) for name, size in total.items()]
    return sorted(parts, key=lambda part: -part.bytes)
