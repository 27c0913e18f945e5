"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["CacheDir", "DataDir", "IndexName", "Json"]

IndexName = Annotated[
    str, typer.Argument(metavar="INDEX", help="Name of the index, such as podcasts.", show_default=False)
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder that holds the indexes [default: $EARSHOT_DATA_DIR or .earshot].", show_default=False
    ),
]
CacheDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder for models and computed embeddings [default: $EARSHOT_CACHE_DIR or the user's cache].",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
