"""`earshot create`: an index before its first version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .options import CacheDir, DataDir, IndexName, Json, Server, Shards, client_of
from .output import console, print_json

__all__ = ["create"]


def create(
    index: IndexName,
    dimensions: Annotated[
        int | None, typer.Option(help="Of every vector; fixed once said.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model that makes vectors of texts, such as all-MiniLM-L6-v2; fixed once said.",
            show_default=False,
        ),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option(
            help="DOT_PRODUCT_DISTANCE, COSINE_DISTANCE, SQUARED_L2_DISTANCE or L1_DISTANCE.",
            show_default=False,
        ),
    ] = None,
    unit_norm: Annotated[
        bool, typer.Option("--unit-norm", help="Scale vectors and queries to length 1.")
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="auto, or the name of an engine.", show_default=False)
    ] = None,
    shards: Shards = None,
    target_recall: Annotated[
        float | None,
        typer.Option(help="Share of the true neighbors that a search shall find.", show_default=False),
    ] = None,
    crowding: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="At most so many results with the same crowding tag where a search says nothing.",
            show_default=False,
        ),
    ] = None,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Make an index without a version: for upserts from the start, or to say once what builds shall do.

    What is left out is left to whatever builds it. `earshot rebuild` and `earshot build` need no create.
    """
    config: dict[str, Any] = {
        "dimensions": dimensions,
        "model": model,
        "distance_measure": measure,
        "feature_norm": "UNIT_L2_NORM" if unit_norm else None,
        "engine": engine,
        "shards": shards,
        "target_recall": target_recall,
        "per_crowding_attribute_neighbor_count": crowding,
    }
    with client_of(server, data_dir, cache_dir) as client:
        made = client.create_index(index, **config)
    if json:
        print_json(made)
    else:
        said = ", ".join(f"{name} {value}" for name, value in made.config.items())
        console.print(f"created [bold]{index}[/]{': ' if said else ''}{said}", highlight=False)
