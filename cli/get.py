"""`earshot get`: datapoints by id, as JSON lines that `earshot upsert` takes."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from .options import CacheDir, DataDir, IndexName, Server, client_of
from .output import console

__all__ = ["get"]


def get(
    index: IndexName,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", show_default=False)],
    server: Server = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Print datapoints, a JSON object a line: id, vector, crowding_tag, metadata and restricts."""
    with client_of(server, data_dir, cache_dir) as client:
        found = client.read(index, ids)
    for point in found:
        vector = None if point.vector is None else point.vector.tolist()
        parts = {
            "id": point.id,
            "vector": vector,
            "crowding_tag": point.crowding_tag,
            "metadata": point.metadata,
            "restricts": point.restricts,
        }
        line = msgspec.json.encode({key: value for key, value in parts.items() if value}).decode()
        console.print(line, soft_wrap=True, markup=False, highlight=False)
