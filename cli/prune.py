"""`earshot prune`: old versions go."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Json, store_of
from .output import console, print_json

__all__ = ["prune"]


def prune(
    index: IndexName,
    keep: Annotated[int, typer.Option(help="How many of the newest whole versions stay.")] = 3,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Remove old and broken versions. The current one always stays."""
    removed = store_of(data_dir, cache_dir).prune(index, keep=keep)
    if json:
        print_json({"index": index, "removed": removed})
    else:
        console.print(f"removed {', '.join(removed)}" if removed else "nothing to remove", highlight=False)
