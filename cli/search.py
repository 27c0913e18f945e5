"""`earshot search`: one query, from the data folder or from a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import CacheDir, DataDir, IndexName, Json, Server, Where, client_of
from .output import console, print_json, results_table
from .where import parse_where

__all__ = ["search"]


def search(
    index: IndexName,
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 5,
    where: Where = None,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Search an index by meaning. Without --server it reads the data folder itself; no server is needed."""
    with client_of(server, data_dir, cache_dir) as client:
        found = client.search(index, text, k=k, where=parse_where(where) if where else None)
    if json:
        print_json(found)
    else:
        console.print(results_table(found))
