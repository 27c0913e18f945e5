"""What a search costs between the socket and ScaNN: each transport, beside raw ScaNN in the same run.

`python -m benchmarks.service [--quick] [--json PATH]`: a server and a load generator in processes of their
own, on 200,000 × 128 clustered vectors (50,000 with --quick), k = 10. The load comes from h2load (Debian's
nghttp2-client) where it is installed, or else from grpcio, whose own cost is then the limit. "bare" is a
health check padded to the size of a search: the floor that sockets and Python set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.index.tuning import choose
from earshot.server.run import Addresses, serve
from earshot.server.settings import load_settings
from earshot.v1 import datapoint_pb2, search_service_pb2

Floats = NDArray[np.float32]

INDEX = "benchmark"
DIMENSIONS = 128
CENTRES = 2_000
K = 10
RECALLS = (0.95, 0.99)
SEARCH = "/earshot.v1.SearchService/Search"
BARE = "/grpc.health.v1.Health/Check"
UNKNOWN_FIELD = b"\xfa\x01"  # number 31, length-delimited: skipped by whoever does not know it


@dataclass(frozen=True, slots=True)
class Asked:
    """One kind of request: a path and a body, over gRPC or as JSON over HTTP/2."""

    name: str
    path: str
    body: bytes
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What the load generator saw."""

    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table; `of_raw` is None where nothing is searched."""

    transport: str
    asked: str
    in_flight: int
    per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_us: float
    of_bare: float
    of_raw: float | None


def synthetic(count: int, seed: int) -> Floats:
    """[count, 128] unit vectors: a random centre of 2,000 from N(0, 1), plus 0.6 N(0, 1)."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIMENSIONS), dtype=np.float32)
    draw = np.random.default_rng(seed)
    points = centres[draw.integers(0, CENTRES, count)]
    points = points + np.float32(0.6) * draw.standard_normal((count, DIMENSIONS), dtype=np.float32)
    unit: Floats = points / np.linalg.norm(points, axis=1, keepdims=True)
    return unit


def raw_per_second(index: Index, queries: Floats, recall: float) -> float:
    """Queries a second of ScaNN's own `search_batched` on one thread, with the parameters of `recall`."""
    point = choose(index.manifest.tuning.points, K, recall)
    engine: Any = index._shard.engine  # what is under all of our own layers, on purpose
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < 2:
        batch = queries[done % len(queries) :][:256]
        engine._searcher.search_batched(batch, K, point.candidates, point.leaves)
        done += len(batch)
    return done / (time.perf_counter() - started)


@contextmanager
def server(transport: str, data_dir: Path) -> Iterator[tuple[int, Addresses]]:
    """A server in its own process: its process id and addresses."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.service", "--serve", transport, "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.pid, Addresses(**json.loads(process.stdout.readline()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def run_server(transport: str, data_dir: Path) -> None:
    """The server's process."""
    if transport == "hot":
        from earshot.server.hot import serve_hot as start
    else:
        start = serve
    start(
        load_settings(data_dir=data_dir, port=0, grpc_port=0),
        ready=lambda addresses: print(json.dumps(asdict(addresses)), flush=True),
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(cpu_seconds(int(child)) for child in children)


def load_by_h2load(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    """Load from nghttp2's h2load, one thread."""
    clients = min(in_flight, 8)
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(asked.body if asked.is_json else frame(asked.body))
        kind = "application/json" if asked.is_json else "application/grpc"
        url = addresses.http if asked.is_json else f"http://{addresses.grpc}"
        output = subprocess.run(
            [
                *("h2load", "-t1", f"-c{clients}", f"-m{in_flight // clients}", f"-D{seconds:g}"),
                *("--warm-up-time=500ms", "-d", str(body), f"--log-file={log}"),
                *("-H", f"content-type: {kind}", "-H", "te: trailers"),
                url + asked.path,
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        rows = np.loadtxt(log, dtype=np.int64)
    if " 0 failed, 0 errored, 0 timeout" not in output:
        raise RuntimeError(f"{asked.name}: requests failed:\n{output}")
    rows = rows[rows[:, 1] == 200]  # h2load logs the request that the end of its warm-up cut as status 0
    return _summary(rows[:, 2] / 1e6, seconds)


def load_by_grpcio(addresses: Addresses, asked: Asked, in_flight: int, seconds: float) -> Load:
    """Load from grpcio's asyncio client in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.service", "--load", addresses.grpc, asked.path]
    command += [asked.body.hex(), str(in_flight), str(seconds)]
    output = subprocess.run(command, check=True, capture_output=True).stdout
    return Load(**json.loads(output))


def run_load(address: str, path: str, body: str, in_flight: str, seconds: str) -> None:
    """The load generator's process."""

    async def one(call: Any, until: float, took: list[float]) -> None:
        while (started := time.perf_counter()) < until:
            await call(bytes.fromhex(body))
            took.append(time.perf_counter() - started)

    async def main() -> list[float]:
        took: list[float] = []
        async with grpc.aio.insecure_channel(address) as channel:
            until = time.perf_counter() + float(seconds)
            await asyncio.gather(
                *(one(channel.unary_unary(path), until, took) for _ in range(int(in_flight)))
            )
        return took

    print(json.dumps(asdict(_summary(np.array(asyncio.run(main())), float(seconds)))))


def frame(message: bytes) -> bytes:
    """gRPC's length prefix and the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def requests_of(query: Floats) -> list[Asked]:
    """The bare one first, then a search for each recall, then one as JSON."""
    vector = datapoint_pb2.Vector(float32=query.astype("<f4").tobytes())
    searches = {
        recall: search_service_pb2.SearchRequest(index=INDEX, vector=vector, target_recall=recall)
        for recall in RECALLS
    }
    bodies = {recall: search.SerializeToString() for recall, search in searches.items()}
    padding = len(bodies[RECALLS[0]])
    length = bytes([padding & 0x7F | 0x80, padding >> 7])
    as_json = json_format.MessageToDict(searches[RECALLS[0]])
    del as_json["index"]
    return [
        Asked("bare", BARE, UNKNOWN_FIELD + length + bytes(padding)),
        *(Asked(f"recall {recall}", SEARCH, body) for recall, body in bodies.items()),
        Asked(
            f"JSON, recall {RECALLS[0]}",
            f"/v1/indexes/{INDEX}:search",
            json.dumps(as_json).encode(),
            is_json=True,
        ),
    ]


def measure(transport: str, data_dir: Path, query: Floats, quick: bool, raw: list[float]) -> list[Result]:
    """Every request at every number in flight, against one server."""
    has_h2load = shutil.which("h2load") is not None
    load = load_by_h2load if has_h2load else load_by_grpcio
    seconds = 2.0 if quick else 5.0
    results: list[Result] = []
    raw_of = {f"recall {recall}": rate for recall, rate in zip(RECALLS, raw, strict=True)}
    raw_of[f"JSON, recall {RECALLS[0]}"] = raw[0]
    with server(transport, data_dir) as (pid, addresses):
        for in_flight in (1, 32) if quick else (1, 8, 32, 128):
            bare = 0.0
            for asked in requests_of(query):
                if asked.is_json and not (has_h2load and transport == "hot"):
                    continue  # only there is HTTP/2; h2load's HTTP/1.1 sends a body so that TCP waits 40 ms
                before = cpu_seconds(pid)
                seen = load(addresses, asked, in_flight, seconds)
                # The warm-up costs CPU too, so the time is spread over what ran in it as well.
                ran = seen.per_second * (seconds + (0.5 if has_h2load else 0))
                bare = bare or seen.per_second
                of_raw = seen.per_second / raw_of[asked.name] if asked.name in raw_of else None
                results.append(
                    Result(
                        transport,
                        asked.name,
                        in_flight,
                        *(seen.per_second, seen.p50_ms, seen.p99_ms),
                        server_cpu_us=1e6 * (cpu_seconds(pid) - before) / ran,
                        of_bare=seen.per_second / bare,
                        of_raw=of_raw,
                    )
                )
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer vectors, less time: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--transports", nargs="+", default=["portable", "hot"])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, help="keep the index here, and use it where it is")
    parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run_server(options.serve, options.data_dir)
    elif options.load:
        run_load(*options.load)
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(options.data_dir or Path(folder), options.transports, options.quick, options.json)


def compare(data_dir: Path, transports: list[str], quick: bool, json_file: Path | None) -> None:
    """Build the index where it is not there, measure and print."""
    console = Console()
    store = Store(data_dir)
    if INDEX not in store.indexes():
        with console.status("building the index"):
            store.create(INDEX)
            store.publish(INDEX, Index.build(synthetic(50_000 if quick else 200_000, 1)))
    index = store.open(INDEX)
    queries = synthetic(4096, 2)
    raw = [raw_per_second(index, queries, recall) for recall in RECALLS]
    results = [
        result for transport in transports for result in measure(transport, data_dir, queries[0], quick, raw)
    ]
    console.print(_table(results, raw, len(index)))
    if json_file:
        content = {"raw_scann_per_second": dict(zip(map(str, RECALLS), raw, strict=True))}
        json_file.write_text(
            json.dumps({**content, "rows": [asdict(row) for row in results]}, indent=2) + "\n"
        )


def _table(results: list[Result], raw: list[float], count: int) -> Table:
    rates = ", ".join(f"{rate:,.0f}/s at {recall}" for recall, rate in zip(RECALLS, raw, strict=True))
    cores = len(os.sched_getaffinity(0))
    table = Table(title=f"{count:,} × {DIMENSIONS}, k = {K}, {cores} cores; raw ScaNN on one thread: {rates}")
    for heading in ("transport", "asked"):
        table.add_column(heading)
    for heading in ("in flight", "queries/s", "p50 ms", "p99 ms", "server CPU µs", "of bare", "of raw"):
        table.add_column(heading, justify="right")
    for row in results:
        table.add_row(
            row.transport,
            row.asked,
            str(row.in_flight),
            f"{row.per_second:,.0f}",
            f"{row.p50_ms:.2f}",
            f"{row.p99_ms:.2f}",
            f"{row.server_cpu_us:.0f}",
            f"{row.of_bare:.2f}",
            "" if row.of_raw is None else f"{row.of_raw:.2f}",
        )
    return table


def _summary(took: NDArray[np.float64], seconds: float) -> Load:
    p50, p99 = np.percentile(took * 1e3, (50, 99)).tolist()
    return Load(len(took) / seconds, p50, p99)


if __name__ == "__main__":
    main()
