"""Earshot beside what users would pick instead, each with its own client, at the same recall.

`python -m benchmarks.service_peers [--count 200000] [--only NAME …] [--json PATH]`: every service is given
the same vectors, its knob is turned until it finds 0.96 of the true neighbors, and then eight processes, each
with a client of its own, ask one query at a time, or 64 together. Two data sets: clustered, as in
`benchmarks.service`, and one that is harder for every index, without clusters. A peer whose package is not
installed is named and left out; those that need much are better installed elsewhere: the module itself wants
nothing but NumPy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import DIMENSION, Floats, Rows, recall_of, synthetic
from .peer_services import CLIENTS, SERVICES, Ask, K

RECALL, BATCH = 0.96, 64
MEASURED = 400  # queries by which the knob is set


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; rates are queries a second, one by one and 64 at a time."""

    data: str
    peer: str
    setting: str
    recall: float
    single: float
    batched: float
    native_single: float | None = None
    native_batched: float | None = None


def hard(count: int) -> tuple[Floats, Floats]:
    """Vectors and queries: normal, the i-th dimension with variance 1 / √i, scaled to length 1."""
    scale = np.arange(1, DIMENSION + 1, dtype=np.float32) ** np.float32(-0.25)

    def draw(count: int, seed: int) -> Floats:
        points = np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32) * scale
        unit: Floats = points / np.linalg.norm(points, axis=1, keepdims=True)
        return unit

    return draw(count, 1), draw(2000, 2)


def measure(name: str, data: str, vectors: Floats, queries: Floats, truth: Rows, seconds: float) -> Row:
    """Start a service, find the setting, and ask."""
    with tempfile.TemporaryDirectory() as folder, SERVICES[name](vectors, Path(folder)) as peer:
        for setting in peer.settings:
            ask = peer.connect(setting)
            found = np.concatenate([ask(queries[row : row + 1]) for row in range(MEASURED)])
            recall = recall_of(found, truth[:MEASURED])
            if recall >= RECALL:
                break
        single = _rate(partial(peer.connect, setting), queries, 1, seconds)
        return Row(
            data,
            name,
            str(setting),
            recall,
            single,
            _rate(partial(peer.connect, setting), queries, BATCH, seconds),
        )


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
    parser.add_argument("--json", type=Path, help="add the rows to this file")
    options = parser.parse_args()
    rows: list[Row] = []
    for data in options.data:
        clustered = synthetic(options.count)
        vectors, queries = (clustered.base, clustered.queries) if data == "clustered" else hard(options.count)
        truth = np.concatenate(
            [
                np.argsort(-(part @ vectors.T), axis=1)[:, :K]
                for part in np.array_split(queries[:MEASURED], 20)
            ]
        )
        for name in options.only:
            try:
                rows.append(measure(name, data, vectors, queries, truth, options.seconds))
            except ImportError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            print(rows[-1], flush=True)
    if options.json:
        earlier = json.loads(options.json.read_text()) if options.json.exists() else []
        options.json.write_text(json.dumps(earlier + [asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
