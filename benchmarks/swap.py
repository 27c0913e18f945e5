"""What a version swap does to those who search meanwhile: failures, and the p99 before, during and after.

`python -m benchmarks.swap [--transport direct] [--quick] [--json PATH]`: 200,000 × 128 (50,000 with --quick),
k = 10, recall 0.95, 32 searches in flight all the time from h2load (Debian's nghttp2-client) on this machine.
The new version is built before; under load happens what a server does: read, check, open and warm it, swap.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.v1 import datapoint_pb2, search_service_pb2

from .service import INDEX, server, synthetic

SECONDS = 30.0
SWAP_AT = 10.0
POLL_SECONDS = 0.05
SETTLING_SECONDS = 0.5  # of which what is left of the old version's searches, and its memory, is a part
STATUS_OK = 200


@dataclass(frozen=True, slots=True)
class Window:
    """One part of the time."""

    name: str
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    failed: int


def measure(transport: str, store: Store, body: Path) -> list[Window]:
    """Before, while the new version is loaded and swapped in, and after."""
    first, second = (row.version for row in store.versions(INDEX))
    store.rollback(INDEX, first)
    log = body.with_name("log")
    query, search = body.read_bytes(), f"/v1/indexes/{INDEX}:search"
    with (
        server(transport, Path(store.location)) as (_, addresses),
        httpx.Client(base_url=addresses.http) as client,
    ):
        client.post(search, content=query).raise_for_status()
        asking = subprocess.Popen(
            [
                *("h2load", "-t1", "-c8", "-m4", f"-D{SECONDS:g}", f"--log-file={log}", "-d", str(body)),
                *("-H", "content-type: application/json", f"{addresses.http}{search}"),
            ],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(SWAP_AT)
        store.rollback(INDEX, second)
        # A search now and then: who asks for more, as for all metrics, takes the cores from what is measured.
        while not client.post(search, content=query).json()["indexVersion"].endswith(second):
            time.sleep(POLL_SECONDS)
        swapped = time.time()
        asking.wait()
        page = client.get("/metrics").text
    # The last that was opened is the one that was swapped in.
    (loading,) = re.findall(r"^earshot_index_load_seconds.* (\S+)$", page, re.MULTILINE)
    began = swapped - POLL_SECONDS - float(loading)
    rows = np.loadtxt(log, dtype=np.int64)
    rows = rows[rows[:, 1] != 0]  # cut by the end of the run
    edges = {
        "before": (swapped - SWAP_AT + 2, began),
        "swap": (began, swapped + SETTLING_SECONDS),
        "after": (swapped + SETTLING_SECONDS, float(rows[:, 0].max()) / 1e6),
    }
    return [_window(name, rows, low, high) for name, (low, high) in edges.items()]


def _window(name: str, rows: NDArray[np.int64], low: float, high: float) -> Window:
    ended = (rows[:, 0] + rows[:, 2]) / 1e6
    inside = rows[(ended >= low) & (ended < high)]
    p50, p99, longest = np.percentile(inside[:, 2] / 1e3, (50, 99, 100)).tolist()
    failed = int((inside[:, 1] != STATUS_OK).sum())
    return Window(name, high - low, len(inside) / (high - low), p50, p99, longest, failed)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", default="direct", choices=("direct", "envoy", "portable"))
    parser.add_argument("--quick", action="store_true", help="50,000 vectors")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is needed (Debian: nghttp2-client)")
    query = synthetic(1, 2)[0]
    request = search_service_pb2.SearchRequest(
        vector=datapoint_pb2.Vector(float32=query.astype("<f4").tobytes()), target_recall=0.95
    )
    with tempfile.TemporaryDirectory() as folder:
        store, body = Store(Path(folder) / "data"), Path(folder) / "body.json"
        body.write_text(json.dumps(json_format.MessageToDict(request)))
        store.create(INDEX)
        index = Index.build(synthetic(50_000 if options.quick else 200_000, 1))
        for _ in range(2):
            store.publish(INDEX, index)
        windows = measure(options.transport, store, body)
    table = Table(title=f"{options.transport}: a version swap under 32 searches in flight")
    for heading in ("", "seconds", "queries/s", "p50 ms", "p99 ms", "longest ms", "failed"):
        table.add_column(heading, justify="right")
    for row in windows:
        figures = (row.seconds, row.per_second, row.p50_ms, row.p99_ms, row.longest_ms)
        table.add_row(row.name, *(f"{value:,.1f}" for value in figures), str(row.failed))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in windows], indent=2) + "\n")


if __name__ == "__main__":
    main()
