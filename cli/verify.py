"""`earshot verify`: is a version on disk what was published?"""

from __future__ import annotations

from .options import CacheDir, DataDir, IndexName, Json, Version, store_of
from .output import console, print_json

__all__ = ["verify"]


def verify(
    index: IndexName,
    version: Version = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Read a version whole: checksums, counts, and the recall of a sample, measured now.

    The current version by default. The exit code is 1 where anything is missing, cut short or changed.
    """
    found = store_of(data_dir, cache_dir).verify(index, version)
    if json:
        print_json(found)
        return
    console.print(
        f"[bold]{index} {found.version}[/] is whole: {found.files} files, {found.bytes / 1e6:.1f} MB, "
        f"{found.count} datapoints, sample recall {found.recall.value:.4f} "
        f"[{found.recall.low:.4f}, {found.recall.high:.4f}] at k = 10",
        highlight=False,
        soft_wrap=True,
    )
