"""`earshot delete`: an index with all its versions, gone."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Server, client_of
from .output import console

__all__ = ["delete"]


def delete(
    index: IndexName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    server: Server = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Remove an index with all its versions and updates, for good. Searches that run finish.

    What is deleted is what was shown: where the index has changed by the time of the answer, nothing is.
    """
    with client_of(server, data_dir, cache_dir) as client:
        found = client.get_index(index)
        version = found.current_version.rpartition("/")[2] or "no version"
        console.print(
            f"[bold]{index}[/]: {found.datapoint_count} datapoints, {version}, with all its other versions",
            highlight=False,
        )
        if not yes:
            typer.confirm("Delete it for good?", abort=True)
        client.delete_index(index, etag=found.etag)
    console.print(f"deleted [bold]{index}[/]", highlight=False)
