"""From the folder of a version to its shards: what `Index.open` does."""

from __future__ import annotations

from pathlib import Path

from .distance import is_scaled, seen_by_engines
from .manifest import Manifest, check_files, read_manifest
from .shard import Shard
from .sharded import combine


def opened(path: Path, *, verify: bool) -> tuple[Shard, Manifest]:
    """One shard that stands for all, and the manifest; see `Index.open`."""
    manifest = read_manifest(path)
    check_files(manifest, path, checksums=verify)
    measure, filters = seen_by_engines(manifest.distance_measure), manifest.filters
    parts = [
        Shard.open(
            path / shard_name(number),
            manifest.engine,
            filters is not None,
            None if filters is None else filters.of_shard(number),
            measure,
            manifest.dimension,
            scaled=is_scaled(manifest.distance_measure, manifest.feature_norm),
        )
        for number in range(manifest.shards)
    ]
    return combine(parts, measure), manifest


def shard_name(number: int) -> str:
    """The folder of one shard."""
    return f"shard-{number:05d}"
