"""`earshot remove`: datapoints by id, a running server's or the data folder's."""

from __future__ import annotations

from typing import Annotated

import typer

from earshot.errors import InvalidArgument

from .lines import ids_from
from .options import CacheDir, DataDir, IndexName, Json, Server, client_of
from .output import console, print_json
from .upsert import opened_lines

__all__ = ["remove"]


def remove(
    index: IndexName,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False)] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE|-", help="An id a line, or JSON lines with ids.", show_default=False),
    ] = None,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Remove datapoints by id. One that is not there is no error."""
    names = [*(ids or []), *(ids_from(opened_lines(file)) if file else [])]
    if not names:
        raise InvalidArgument("no ids: name some, or a --file with some", field="ids")
    with client_of(server, data_dir, cache_dir) as client:
        done = client.remove(index, names)
    if json:
        print_json(done)
    else:
        console.print(
            f"removed {done.count} of {len(names)} from {index}, up to sequence number {done.sequence}",
            highlight=False,
        )
