"""Earshot beside what users would pick instead, at the same recall.

`python -m benchmarks.service_peers [--count 200000] [--only NAME …] [--keep FOLDER] [--json PATH]`: each is
given the same vectors, its knob is turned until it finds 0.96 of the true neighbors, and then eight clients
ask one query at a time, or 64 together: eight connections of a load generator in C. Different queries come
from wrk (as JSON) or pgbench; "again" is the same query from all, which then lies in every cache, from h2load
(over gRPC) or pgbench. With --clients eight processes with the service's own Python client ask as well.
Embedded engines have no clients; they are asked by threads of this process. Two data sets: clustered, as in
`benchmarks.service`, and one that is harder for every index, without clusters. A peer whose package is not
installed is named and left out; peers are best installed beside this project in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .datasets import DIMENSION, Floats, Rows, recall_of, synthetic
from .peer import CLIENTS, Ask, K
from .peer_services import SERVICES

RECALL, BATCH = 0.96, 64
SINGLES, BATCHES = 128, 8  # different requests; pgbench draws from 128 statements at most
MEASURED = 400  # queries by which the knob is set
THREADS = (1, 2, CLIENTS)  # that ask an embedded engine at a time


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; rates are queries a second, one by one and 64 at a time.

    Those of `client` are of the Python client; the others of threads, or of the load generator in C. `again`
    is the same query one by one.
    """

    data: str
    peer: str
    setting: str
    recall: float
    again: float | None
    single: float
    batched: float
    client_single: float | None
    client_batched: float | None


def hard(count: int) -> tuple[Floats, Floats]:
    """Vectors and queries: normal, the i-th dimension with variance 1 / √i, scaled to length 1."""
    scale = np.arange(1, DIMENSION + 1, dtype=np.float32) ** np.float32(-0.25)

    def draw(count: int, seed: int) -> Floats:
        points = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32) * scale
        unit: Floats = points / np.linalg.norm(points, axis=1, keepdims=True)
        return unit

    return draw(count, 1), draw(2000, 2)


def measure(
    name: str,
    data: str,
    folder: Path,
    vectors: Floats,
    queries: Floats,
    truth: Rows,
    seconds: float,
    with_clients: bool,
) -> Row:
    """Start a service, find the cheapest setting with the recall, and ask."""
    folder.mkdir(parents=True, exist_ok=True)
    with SERVICES[name](vectors, folder) as peer:

        @cache
        def recall(setting: Any) -> float:
            ask = peer.connect(setting)
            found = np.concatenate([ask(queries[row : row + 1]) for row in range(MEASURED)])
            return recall_of(found, truth[:MEASURED])

        place = min(bisect_left(peer.settings, RECALL, key=recall), len(peer.settings) - 1)
        setting = peer.settings[place]
        rates: list[float | None] = []
        if peer.native is None:
            connect = partial(peer.connect, setting)
            rates += [None, *(_rate_of_threads(connect, queries, batch, seconds) for batch in (1, BATCH))]
        else:
            for count, batch in ((1, 1), (SINGLES, 1), (BATCHES, BATCH)):
                requests = queries[: count * batch].reshape(count, batch, -1)
                rates.append(peer.native(setting, requests, seconds))
        for batch in (1, BATCH):
            asks = with_clients and not peer.is_embedded
            rates.append(_rate(partial(peer.connect, setting), queries, batch, seconds) if asks else None)
        return Row(data, name, str(setting), recall(setting), *rates)  # type: ignore[arg-type]


def _rate_of_threads(connect: Callable[[], Ask], queries: Floats, batch: int, seconds: float) -> float:
    """Queries a second of threads in this process, of as many as are best."""

    def load(number: int, until: float) -> int:
        ask, done = connect(), 0
        places = np.random.default_rng(number).permutation(len(queries))
        while time.monotonic() < until:
            ask(queries[places[(done + np.arange(batch)) % len(queries)]])
            done += batch
        return done

    rates = []
    for threads in THREADS:
        with ThreadPoolExecutor(threads) as pool:
            until = time.monotonic() + seconds / len(THREADS)
            began = time.monotonic()
            done = sum(pool.map(load, range(threads), [until] * threads))
            rates.append(done / (time.monotonic() - began))
    return max(rates)


def _rate(connect: Callable[[], Ask], queries: Floats, batch: int, seconds: float) -> float:
    """Queries a second of all clients together, who begin when the last of them is ready."""
    context = multiprocessing.get_context("spawn")
    ready, counts = context.Barrier(CLIENTS), context.SimpleQueue()
    shared = connect, queries, batch, seconds, ready, counts
    clients = [context.Process(target=_load, args=(*shared, number)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    done = sum(counts.get() for _ in clients)
    for client in clients:
        client.join()
    return done / seconds


def _load(
    connect: Callable[[], Ask],
    queries: Floats,
    batch: int,
    seconds: float,
    ready: Any,
    counts: Any,
    number: int,
) -> None:
    done = 0
    try:
        ask = connect()
        places = np.random.default_rng(number).permutation(len(queries))
        ask(queries[:batch])
        ready.wait(600)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ask(queries[places[(done + np.arange(batch)) % len(queries)]])
            done += batch
    finally:
        counts.put(done)  # also where it failed, so that nobody waits for ever


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", choices=SERVICES, default=list(SERVICES))
    parser.add_argument("--data", nargs="+", choices=("clustered", "hard"), default=["clustered", "hard"])
    parser.add_argument("--clients", action="store_true", help="ask with Python clients too")
    parser.add_argument("--keep", type=Path, help="keep what was built here, and use it where it is")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(options, options.keep or Path(folder))
    Console().print(_table(rows, options.count))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def compare(options: argparse.Namespace, folder: Path) -> list[Row]:
    """A row for each service and set of data; what is installed of them."""
    rows: list[Row] = []
    for data in options.data:
        clustered = synthetic(options.count)
        vectors, queries = (clustered.base, clustered.queries) if data == "clustered" else hard(options.count)
        scores = (part @ vectors.T for part in np.array_split(queries[:MEASURED], 20))
        truth = np.concatenate([np.argsort(-part, axis=1)[:, :K] for part in scores])
        for name in options.only:
            home = folder / f"{data}-{options.count}" / name.replace(" ", "-")
            try:
                given = (vectors, queries, truth, options.seconds, options.clients)
                rows.append(measure(name, data, home, *given))
            except ImportError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            print(rows[-1], flush=True)
    return rows


def _table(rows: list[Row], count: int) -> Table:
    title = f"queries/s, {count:,} × {DIMENSION}, k = {K}, {CLIENTS} clients, {os.cpu_count()} cores"
    table = Table(title=title)
    for heading in ("data", "", "setting", "recall", "again", "single", f"{BATCH} at once"):
        table.add_column(heading)
    for heading in ("single, Python", f"{BATCH} at once, Python"):
        table.add_column(heading)
    for row in rows:
        rates = (row.again, row.single, row.batched, row.client_single, row.client_batched)
        table.add_row(
            *(row.data, row.peer, row.setting, f"{row.recall:.3f}"),
            *("" if rate is None else f"{rate:,.0f}" for rate in rates),
        )
    return table


if __name__ == "__main__":
    main()
