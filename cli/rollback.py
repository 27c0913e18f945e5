"""`earshot rollback`: serve an earlier version again."""

from __future__ import annotations

from .options import CacheDir, DataDir, IndexName, Json, Server, Version, client_of
from .output import console, print_json

__all__ = ["rollback"]


def rollback(
    index: IndexName,
    version: Version = None,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Make an earlier version current again, after verifying it; the newest before the current by default.

    Running servers follow without a failed query. Nothing is removed: name a newer version to go forward.
    """
    with client_of(server, data_dir, cache_dir) as client:
        before = client.get_index(index).current_version.rpartition("/")[2]
        after = client.rollback(index, version).current_version.rpartition("/")[2]
    if json:
        print_json({"index": index, "before": before, "current": after})
    else:
        was = before or "none that could be served"
        console.print(f"[bold]{index}[/] now serves {after}; it was {was}", highlight=False)
