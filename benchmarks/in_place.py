"""Fresh datapoints in ScaNN itself, by its in-place upsert, beside rows of our own that are scanned.

`python -m benchmarks.in_place [--datapoints N]`. Both are fed batches of 100 at 5,000 rows a second from one
thread while another searches at the recall the version was tuned for. What is asked of them: µs a row, the
searches' p50 and p99 alone and beside that load, and how many of 200 new rows a search for the row itself
finds first: ordinary ones, drawn as the version's are, and outliers, in directions that no cluster has.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from earshot.index import Index
from earshot.index.distance import Floats
from earshot.index.journal import Put
from earshot.index.live import LiveIndex
from earshot.index.tuning import choose
from earshot.server.workers import multiply_on_one_thread, take_short_turns

from .raw import raw_scann
from .service import DIMENSIONS, synthetic

K, BATCH, RATE, SECONDS, PROBES = 10, 100, 5_000, 3.0, 200
RECALL = 0.95

Insert = Callable[[Floats], int]
"""Puts rows in; returns the number of the first."""
Search = Callable[[Floats], list[int]]
"""The rows that one query finds, best first; fresh ones by the numbers that `Insert` gave."""


def outliers(number: int, seed: int) -> Floats:
    """Unit vectors in random directions, float32 [number, 128]."""
    found = np.random.default_rng(seed).standard_normal((number, DIMENSIONS), dtype=np.float32)
    unit: Floats = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def latencies(search: Search, queries: Floats, seconds: float) -> tuple[float, float]:
    """p50 and p99 of one caller's searches, ms."""
    took: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        search(queries[len(took) % len(queries)])
        took.append(time.perf_counter() - start)
    p50, p99 = np.quantile(took, (0.5, 0.99)) * 1e3
    return float(p50), float(p99)


def found_first(insert: Insert, search: Search, rows: Floats) -> int:
    """Of rows put in together, how many a search for each finds first."""
    first = insert(rows)
    return sum(search(row)[:1] == [first + place] for place, row in enumerate(rows))


def measure(insert: Insert, search: Search) -> dict[str, str]:
    """Everything that is asked of one way."""
    queries, fresh = synthetic(1000, 2), synthetic(20_000, 3)
    ordinary = found_first(insert, search, synthetic(PROBES, 4))
    rare = found_first(insert, search, outliers(PROBES, 5))
    alone = latencies(search, queries, SECONDS)
    stop, spent, written = threading.Event(), [0.0], [0]

    def write() -> None:
        began = time.perf_counter()
        while not stop.is_set():
            if (pause := began + written[0] / RATE - time.perf_counter()) > 0:
                time.sleep(pause)
            start = written[0] % len(fresh)
            before = time.thread_time()
            insert(fresh[start : start + BATCH])
            spent[0] += time.thread_time() - before
            written[0] += BATCH

    writer = threading.Thread(target=write)
    writer.start()
    began = time.perf_counter()
    beside = latencies(search, queries, SECONDS)
    elapsed = time.perf_counter() - began
    stop.set()
    writer.join()
    return {
        "µs a row": f"{spent[0] / written[0] * 1e6:.1f}",
        "rows/s": f"{written[0] / elapsed:.0f}",
        "p50, p99 ms alone": f"{alone[0]:.2f}, {alone[1]:.2f}",
        "beside": f"{beside[0]:.2f}, {beside[1]:.2f}",
        f"of {PROBES} found": str(ordinary),
        f"of {PROBES} outliers": str(rare),
    }


def in_scann(index: Index) -> dict[str, str]:
    """ScaNN's own upsert."""
    point = choose(index.manifest.tuning.points, K, RECALL)
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        raw = raw_scann(Index.open(Path(folder) / "index"))  # its own, for rows will be set into it
        native = raw.search.__self__.searcher  # type: ignore[attr-defined]

        def insert(vectors: Floats) -> int:
            first: int = native.size()
            native.upsert([None] * len(vectors), vectors, len(vectors))
            return first

        def search(query: Floats) -> list[int]:
            found: list[int] = raw.search(query, K, point.candidates, point.leaves)[0].tolist()
            return found

        return measure(insert, search)


def beside_scann(index: Index) -> dict[str, str]:
    """Ours: scanned, and set into leaves when there are many."""
    live, names = LiveIndex(index), count(len(index))

    def insert(vectors: Floats) -> int:
        numbers = [next(names) for _ in vectors]
        live.apply(live.sequence + 1, [Put(str(n), v) for n, v in zip(numbers, vectors, strict=True)])
        return numbers[0]

    def search(query: Floats) -> list[int]:
        return [int(name) for name in live.search(query, K, target_recall=RECALL).ids[0]]

    stop = threading.Event()

    def tidy() -> None:
        while not stop.wait(0.1):
            live.tidy()

    tidier = threading.Thread(target=tidy)
    tidier.start()
    try:
        return measure(insert, search)
    finally:
        stop.set()
        tidier.join()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datapoints", type=int, default=60_000)
    options = parser.parse_args()
    take_short_turns()
    multiply_on_one_thread()
    index = Index.build(synthetic(options.datapoints, 0), target_recall=RECALL)
    rows = {"in ScaNN": in_scann(index), "beside ScaNN": beside_scann(index)}
    table = Table("fresh rows", *rows["in ScaNN"], title=f"{options.datapoints:,} × {DIMENSIONS}")
    for name, row in rows.items():
        table.add_row(name, *row.values())
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
