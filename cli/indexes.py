"""`earshot indexes`: what there is."""

from __future__ import annotations

from .options import DataDir, Json, Server, client_of
from .output import console, plain_table, print_json

__all__ = ["indexes"]


def indexes(server: Server = None, json: Json = False, data_dir: DataDir = None) -> None:
    """List the indexes of the data folder, or of a server."""
    with client_of(server, data_dir) as client:
        found = client.indexes()
    if json:
        print_json(found)
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
