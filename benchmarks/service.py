"""What a search costs between the socket and ScaNN: each transport, beside raw ScaNN in the same run.

`python -m benchmarks.service [--quick] [--json PATH]`: a server and a load generator in processes of their
own (`benchmarks.load`), on 200,000 × 128 clustered vectors (50,000 with --quick), k = 10. "bare" is a health
check padded to the size of a search: the floor that sockets and Python set. Rates count queries, latencies
are of requests. Single requests ask the same query again and again, and are compared with ScaNN doing so;
4,096 different ones are asked too, by a generator in Python (`benchmarks.h2`) and, where wrk is installed, as
JSON over HTTP/1.1, a connection each.
Each row takes turns with both, a second each; what is shown are medians, of the ratios too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.index.tuning import choose
from earshot.server.logs import configure_logging
from earshot.server.run import Addresses
from earshot.server.settings import load_settings
from earshot.server.transports import serve_with
from earshot.v1 import datapoint_pb2, search_service_pb2

from .h2 import load_by_frames
from .load import Asked, Load, cpu_seconds, load_by_grpcio, load_by_h2load, load_by_wrk

Floats = NDArray[np.float32]

INDEX = "benchmark"
DIMENSIONS = 128
CENTRES = 2_000
K = 10
RECALLS = (0.95, 0.99)
BATCH, STREAM, DIFFERENT = 64, 256, 4096
SECONDS = 1.0  # a turn
MOST_QUERIES = 512  # at a time, so that none is refused
SEARCH = "/earshot.v1.SearchService/Search"
BATCH_SEARCH = "/earshot.v1.SearchService/BatchSearch"
STREAM_SEARCH = "/earshot.v1.SearchService/StreamSearch"
BARE = "/grpc.health.v1.Health/Check"
UNKNOWN_FIELD = b"\xfa\x01"  # number 31, length-delimited: skipped by whoever does not know it


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table: medians of turns, each right after one of the bare face and of ScaNN alone."""

    transport: str
    asked: str
    in_flight: int
    per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    bare_per_second: float
    bare_p50_ms: float
    raw_per_second: float
    of_bare: float
    of_raw: float


def synthetic(count: int, seed: int, topics: int = 0) -> Floats:
    """[count, 128] unit vectors: a random centre of 2,000 from N(0, 1), plus 0.6 N(0, 1).

    Other `topics` have other centres.
    """
    centres = np.random.default_rng(topics).standard_normal((CENTRES, DIMENSIONS), dtype=np.float32)
    draw = np.random.default_rng(seed)
    points: Floats = centres[draw.integers(0, CENTRES, count)]
    points += np.float32(0.6) * draw.standard_normal((count, DIMENSIONS), dtype=np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points


def raw_per_second(index: Index, queries: Floats, recall: float) -> float:
    """Queries a second of ScaNN's own `search_batched` on one thread, with the parameters of `recall`."""
    point = choose(index.manifest.tuning.points, K, recall)
    engine: Any = index._shard.engine  # what is under all of our own layers, on purpose
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < 0.3:
        batch = queries[done % len(queries) :][:256]
        engine._searcher.search_batched(batch, K, point.candidates, point.leaves)
        done += len(batch)
    return done / (time.perf_counter() - started)


class Raw:
    """ScaNN alone, with the very queries that the requests bring, again and again."""

    def __init__(self, index: Index, queries: Floats) -> None:
        self._index = index
        self._queries = {
            f"{count} queries": np.tile(queries[:count], (max(256 // count, 1), 1))
            for count in (1, BATCH, STREAM, DIFFERENT)
        }

    def per_second(self, name: str) -> float:
        """Queries a second of, say, `64 queries, recall 0.95`, now."""
        queries, _, recall = name.partition(", recall ")
        return raw_per_second(self._index, self._queries[queries], float(recall))


@contextmanager
def server(transport: str, data_dir: Path, workers: int = 1) -> Iterator[tuple[int, Addresses]]:
    """A server in its own process, or several: its process id and addresses."""
    command = [sys.executable, "-m", "benchmarks.service", "--serve", transport, "--data-dir", str(data_dir)]
    process = subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.pid, Addresses(**json.loads(process.stdout.readline()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def run_server(transport: str, data_dir: Path, workers: int) -> None:
    """The server's process."""
    settings = load_settings(
        data_dir=data_dir,
        transport=transport,
        workers=workers,
        port=0,
        grpc_port=0,
        compact_updates=0,  # nothing else at work
    )
    configure_logging(settings)
    serve_with(
        settings,
        ready=lambda addresses: print(json.dumps(asdict(addresses)), flush=True),
    )


def requests_of(queries: Floats) -> list[Asked]:
    """The bare one first, then searches one by one, as JSON, in a batch and in a stream."""
    vectors = [datapoint_pb2.Vector(float32=query.tobytes()) for query in queries.astype("<f4")]
    asked: list[Asked] = []
    as_json = f"/v1/indexes/{INDEX}:search"
    for recall in RECALLS:
        name = f"recall {recall}"
        searches = [
            search_service_pb2.SearchRequest(index=INDEX, vector=vector, target_recall=recall)
            for vector in vectors[:DIFFERENT]
        ]
        messages = tuple(search.SerializeToString() for search in searches)
        bodies = tuple(body_of(search) for search in searches)
        batch = search_service_pb2.BatchSearchRequest(
            index=INDEX, vectors=vectors[:BATCH], target_recall=recall
        ).SerializeToString()
        one, some, many, all_of_them = (f"{count} queries, {name}" for count in (1, BATCH, STREAM, DIFFERENT))
        asked += [
            Asked(f"Search, {name}", SEARCH, messages[:1], 1, one),
            Asked(f"JSON, {name}", as_json, bodies[:1], 1, one, is_json=True),
            Asked(f"Search, different, {name}", SEARCH, messages, 1, all_of_them, is_varied=True),
            Asked(f"JSON, different, {name}", as_json, bodies, 1, all_of_them, is_json=True, is_varied=True),
            Asked(f"BatchSearch of {BATCH}, {name}", BATCH_SEARCH, (batch,), BATCH, some),
            Asked(f"StreamSearch of {STREAM}, {name}", STREAM_SEARCH, messages[:STREAM], STREAM, many),
        ]
    padding = len(asked[0].messages[0])
    length = bytes([padding & 0x7F | 0x80, padding >> 7])
    return [Asked("bare", BARE, (UNKNOWN_FIELD + length + bytes(padding),)), *asked]


def body_of(search: search_service_pb2.SearchRequest) -> bytes:
    """The request as JSON over HTTP, where the path names the index."""
    members = json_format.MessageToDict(search)
    del members["index"]
    return json.dumps(members).encode()


def measure(
    transport: str,
    data_dir: Path,
    queries: Floats,
    in_flights: Sequence[int],
    turns: int,
    raw: Raw,
    workers: int,
) -> list[Result]:
    """Every request at every number in flight, against one server."""
    has_h2load, has_wrk = (shutil.which(program) is not None for program in ("h2load", "wrk"))
    load = load_by_h2load if has_h2load else load_by_grpcio
    # The warm-up costs CPU too, so the time is spread over what ran in it as well.
    ran = SECONDS + (0.5 if has_h2load else 0)
    results: list[Result] = []
    with server(transport, data_dir, workers) as (pid, addresses):
        bare, *requests = requests_of(queries)

        def turn(asked: Asked, in_flight: int) -> tuple[float, ...]:
            alone = raw.per_second(asked.raw)
            floor = load(addresses, bare, in_flight, SECONDS)
            before = cpu_seconds(pid)
            seen = (_load_varied if asked.is_varied else load)(addresses, asked, in_flight, SECONDS)
            rate = seen.per_second * asked.queries
            cpu = 1e6 * (cpu_seconds(pid) - before) / (rate * (SECONDS if asked.is_varied else ran))
            of_bare, of_raw = rate / floor.per_second, rate / alone
            times = rate, seen.p50_ms, seen.p99_ms, cpu
            return *times, floor.per_second, floor.p50_ms, alone, of_bare, of_raw

        for in_flight in in_flights:
            for asked in requests:
                if asked.is_json and not (
                    has_wrk if asked.is_varied else has_h2load and transport != "portable"
                ):
                    continue  # only there is HTTP/2; h2load's HTTP/1.1 sends a body so that TCP waits 40 ms
                if asked.queries > 1 and (not has_h2load or in_flight * asked.queries > MOST_QUERIES):
                    continue
                seen = [turn(asked, in_flight) for _ in range(turns)]
                results.append(Result(transport, asked.name, in_flight, *np.median(seen, axis=0).tolist()))
    return results


def _load_varied(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    if asked.is_json:
        return load_by_wrk(addresses, asked, in_flight, seconds)
    return load_by_frames(addresses.grpc, asked.path, asked.messages, in_flight, seconds)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer vectors, less time: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--transports", nargs="+", default=["portable", "envoy", "direct"])
    parser.add_argument("--in-flight", type=int, nargs="+", help="only so many calls at a time")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, help="keep the index here, and use it where it is")
    options = parser.parse_args()
    if options.serve:
        run_server(options.serve, options.data_dir, options.workers)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(options, options.data_dir or Path(folder))


def compare(options: argparse.Namespace, data_dir: Path) -> None:
    """Build the index where it is not there, measure and print."""
    transports, quick = options.transports, options.quick
    console = Console()
    store = Store(data_dir)
    if INDEX not in store.indexes():
        with console.status("building the index"):
            store.create(INDEX)
            store.publish(INDEX, Index.build(synthetic(50_000 if quick else 200_000, 1)))
    index = store.open(INDEX)
    queries = synthetic(4096, 2)
    raw = Raw(index, queries)
    in_flights, turns = ((1, 32), 1) if quick else ((1, 8, 32, 128), 3)
    in_flights = options.in_flight or in_flights
    results = [
        result
        for transport in transports
        for result in measure(transport, data_dir, queries, in_flights, turns, raw, options.workers)
    ]
    cores = len(os.sched_getaffinity(0))
    served_by = f"{options.workers} workers" if options.workers > 1 else "one worker"
    console.print(f"{len(index):,} × {DIMENSIONS}, k = {K}, {cores} cores, {served_by}")
    for transport in transports:
        console.print(_table(transport, [row for row in results if row.transport == transport]))
    if options.json:
        options.json.write_text(json.dumps({"rows": [asdict(row) for row in results]}, indent=2) + "\n")


def _table(transport: str, results: list[Result]) -> Table:
    """Narrow enough for 80 columns, which is what rich takes a pipe for."""
    table = Table(title=transport, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("asked", no_wrap=True)
    for heading in ("recall", "calls", "queries/s", "p50 ms", "p99 ms", "CPU µs", "/ bare", "/ raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results:
        asked, _, recall = row.asked.partition(", recall ")
        table.add_row(
            *(asked, recall, str(row.in_flight), f"{row.per_second:,.0f}"),
            *(f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.server_cpu_us:.0f}"),
            *(f"{row.of_bare:.2f}", f"{row.of_raw:.2f}"),
        )
    return table


if __name__ == "__main__":
    main()
