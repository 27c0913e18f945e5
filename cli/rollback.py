"""`earshot rollback`: serve an earlier version again."""

from __future__ import annotations

from .options import CacheDir, DataDir, IndexName, Json, Version, store_of
from .output import console, print_json

__all__ = ["rollback"]


def rollback(
    index: IndexName,
    version: Version = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Make an earlier version current again, after verifying it; the newest before the current by default.

    Running servers follow without a failed query. Nothing is removed: name a newer version to go forward.
    """
    store = store_of(data_dir, cache_dir)
    before = store.current(index)
    after = store.rollback(index, version)
    if json:
        print_json({"index": index, "before": before, "current": after})
    else:
        console.print(f"[bold]{index}[/] now serves {after}; it was {before}", highlight=False)
