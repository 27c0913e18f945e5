"""`earshot search`: one query, from the data folder or from a running server."""

from __future__ import annotations

from typing import Annotated

import typer

from earshot.client import Client
from earshot.server import load_settings, search_folder

from .options import CacheDir, DataDir, IndexName, Json
from .output import print_hits, print_json

__all__ = ["search"]


def search(
    index: IndexName,
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.", show_default=False)],
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 5,
    server: Annotated[
        str | None,
        typer.Option(
            help="Ask this server (127.0.0.1:8081 for gRPC, http://127.0.0.1:8080) and not the data folder."
        ),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Search an index by meaning. Without --server it reads the data folder itself; no server is needed."""
    if server:
        with Client(server) as client:
            found = client.search(index, text, k=k)
    else:
        found = search_folder(load_settings(data_dir=data_dir, cache_dir=cache_dir), index, text, k)
    if json:
        print_json(found)
    else:
        print_hits(found)
