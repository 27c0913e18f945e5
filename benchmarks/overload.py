"""Goodput under overload: how many searches a second are answered in time when more are asked than can be.

`python -m benchmarks.overload [--transport direct] [--quick] [--json PATH]`: the peak with 64 in flight, then
searches at 1, 2, 4 and 8 times that rate whatever becomes of those before (an open loop), each with a
deadline of a second. The load is JSON over HTTP/2 from h2load (Debian's nghttp2-client), on the same machine.
Searches are exact ones, k = 10, so that the engine is what is too slow, not the generator: of 50,000 × 128,
where a search takes little longer than to refuse one, and of 400,000 × 128.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.v1 import datapoint_pb2, search_service_pb2

from .service import INDEX, server, synthetic

CLIENTS = 8
TIMES = (1, 2, 4, 8)
SIZES = (50_000, 400_000)
DEADLINE = "1S"


@dataclass(frozen=True, slots=True)
class Result:
    """One rate of asking: what was answered in time, refused and late, a second."""

    datapoints: int
    times_peak: float
    asked: float
    answered: float
    refused: float
    late: float
    p99_ms: float
    of_peak: float


def h2load(url: str, body: Path, seconds: float, *options: str) -> tuple[dict[int, float], float]:
    """Answers a second by HTTP status, and the p99 in milliseconds of those that succeeded."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [
            *("h2load", "-t1", f"-c{CLIENTS}", f"-D{seconds:g}", "--warm-up-time=1s", f"--log-file={log}"),
            *("-d", str(body), "-H", "content-type: application/json", "-H", f"grpc-timeout: {DEADLINE}"),
        ]
        subprocess.run([*command, *options, url], check=True, capture_output=True)
        rows = np.loadtxt(log, dtype=np.int64, ndmin=2).reshape(-1, 3)
    statuses = {
        int(status): float(count) / seconds
        for status, count in zip(*np.unique(rows[:, 1], return_counts=True), strict=True)
    }
    in_time = rows[rows[:, 1] == 200, 2]
    return statuses, float(np.percentile(in_time, 99)) / 1e3 if len(in_time) else math.nan


def measure(transport: str, datapoints: int, data_dir: Path, quick: bool) -> list[Result]:
    """The rows, the peak first."""
    store = Store(data_dir)
    store.create(INDEX)
    store.publish(INDEX, Index.build(synthetic(datapoints, 1)))
    query = synthetic(1, 2)[0]
    request = search_service_pb2.SearchRequest(
        vector=datapoint_pb2.Vector(float32=query.astype("<f4").tobytes()), target_recall=1.0
    )
    body = data_dir.parent / "body.json"
    body.write_text(json.dumps(json_format.MessageToDict(request)))
    seconds = 3.0 if quick else 10.0
    with server(transport, data_dir) as (_, addresses):
        url = f"{addresses.http}/v1/indexes/{INDEX}:search"
        statuses, p99 = h2load(url, body, seconds, "-m8")
        peak = statuses.get(200, 0.0)
        results = [
            Result(datapoints, 0, peak, peak, statuses.get(429, 0.0), statuses.get(504, 0.0), p99, 1.0)
        ]
        for times in TIMES[::2] if quick else TIMES:
            rate = math.ceil(times * peak / CLIENTS)
            statuses, p99 = h2load(url, body, seconds, "-m4096", f"--rps={rate}")
            answered = statuses.get(200, 0.0)
            results.append(
                Result(
                    datapoints,
                    times,
                    float(rate * CLIENTS),
                    answered,
                    statuses.get(429, 0.0),
                    statuses.get(504, 0.0),
                    p99,
                    answered / peak,
                )
            )
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transport", default="direct", choices=("direct", "envoy", "portable"))
    parser.add_argument("--quick", action="store_true", help="three seconds a rate, not ten, and few")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("h2load is needed (Debian: nghttp2-client)")
    results: list[Result] = []
    for datapoints in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            results += measure(options.transport, datapoints, Path(folder) / "data", options.quick)
    table = Table(title=f"{options.transport}: searches a second, deadline {DEADLINE}")
    for heading in ("datapoints", "× peak", "asked", "answered", "refused", "late", "p99 ms", "of peak"):
        table.add_column(heading, justify="right")
    for row in results:
        table.add_row(
            f"{row.datapoints:,}",
            "closed" if not row.times_peak else f"{row.times_peak:g}",
            *(f"{value:,.0f}" for value in (row.asked, row.answered, row.refused, row.late, row.p99_ms)),
            f"{row.of_peak:.2f}",
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in results], indent=2) + "\n")


if __name__ == "__main__":
    main()
