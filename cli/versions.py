"""`earshot versions`: the builds of one index."""

from __future__ import annotations

from .options import DataDir, IndexName, Json, Server, client_of
from .output import console, plain_table, print_json

__all__ = ["versions"]


def versions(index: IndexName, server: Server = None, json: Json = False, data_dir: DataDir = None) -> None:
    """List the versions of an index, newest first."""
    with client_of(server, data_dir) as client:
        found = client.versions(index)
    if json:
        print_json(found)
        return
    console.print(
        plain_table(
            ("version", "current", "complete", "datapoints", "recall", "MB", "created"),
            [
                (
                    version.name.rpartition("/")[2],
                    version.current,
                    version.complete,
                    version.datapoint_count,
                    version.measured_recall,
                    f"{version.size_bytes / 1e6:.1f}",
                    f"{version.create_time:%Y-%m-%d %H:%M:%S} UTC" if version.create_time else "-",
                )
                for version in found
            ],
        )
    )
