"""`earshot indexes`: what there is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from earshot.errors import InvalidArgument

from .options import DataDir, Json, Server, client_of, store_of
from .output import console, parts_table, plain_table, print_json, recall_text

__all__ = ["indexes"]


def indexes(
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also the engine, its recall and the bytes a vector by part."),
    ] = False,
    server: Server = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the indexes of the data folder, or of a server."""
    if verbose and server is not None:
        raise InvalidArgument(
            "--verbose reads the data folder, which a server does not show: leave --server away",
            field="verbose",
        )
    with client_of(server, data_dir) as client:
        found = client.indexes()
    names = [index.name.removeprefix("indexes/") for index in found if index.current_version]
    if json:
        parts = _parts(names, data_dir) if verbose else {}
        print_json(
            [{**asdict(index), **parts.get(index.name.removeprefix("indexes/"), {})} for index in found]
        )
        return
    if not found:
        console.print("no indexes yet; make one: earshot rebuild podcasts --source feed.xml", highlight=False)
        return
    console.print(
        plain_table(
            ("index", "version", "datapoints", "dimensions", "measure", "engine", "model", "recall"),
            [
                (
                    index.name.removeprefix("indexes/"),
                    index.current_version.rpartition("/")[2],
                    index.datapoint_count,
                    index.dimensions,
                    index.distance_measure,
                    index.engine,
                    index.model or "-",
                    index.measured_recall,
                )
                for index in found
            ],
        )
    )
    if verbose:
        _tell_parts(names, data_dir)


def _parts(names: list[str], data_dir: str | None) -> dict[str, dict[str, object]]:
    """What only the manifests say, by index."""
    from earshot.index import sizes

    store = store_of(data_dir, None)
    manifests = {name: store.manifest(name) for name in names}
    return {
        name: {
            "engine_entry": manifest.engine,
            "operating_point": manifest.tuning.chosen,
            "parts": sizes(manifest),
        }
        for name, manifest in manifests.items()
    }


def _tell_parts(names: list[str], data_dir: str | None) -> None:
    from earshot.index import sizes

    store = store_of(data_dir, None)
    for name in names:
        manifest = store.manifest(name)
        point = manifest.tuning.chosen
        how = f"{point.leaves} leaves, {point.candidates} candidates" if point.leaves else "exact search"
        console.print(
            f"\n[bold]{name}[/]: {manifest.engine.name} ({manifest.engine.reason}), "
            f"recall {recall_text(point.recall)} at k = {point.k} by {how}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(parts_table(sizes(manifest)))
