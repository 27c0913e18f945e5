"""What updates cost: how many are durable a second, when they are seen, and what searches feel of them.

`python -m benchmarks.updates [--quick] [--json PATH] [--postgres ADDRESS] [--datapoints N] [--only PART,…]`

The parts: `journal`, appends without a server; `single`, upserts one by one over gRPC to a server in a
process of its own, beside calls that do nothing and the journal alone; `service`, upserts in batches;
`visible`, an upsert and the very next search; `mixed`, the latency of searches and their recall while updates
come at a steady rate; `restart`, how long opening takes with entries in the journal; `recall`, that of a
copy of the index as its datapoints change. Load comes from the same cores. 128 dimensions, clustered.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from earshot.client import Client
from earshot.index import Index, Store
from earshot.index.distance import Floats
from earshot.index.journal import Put, open_journal
from earshot.index.live import LiveIndex

from .h2 import load_by_frames
from .load import Load
from .service import BARE, SEARCH, UNKNOWN_FIELD, synthetic
from .updates_load import INDEX, UPSERT, K, found, raw, search_message, updates_at, upsert_message
from .updates_recall import recall_made_good, recall_under_updates

BATCHES, CALLERS = (1, 100, 1000), (1, 8, 64)
RATES = (0, 1000, 5000)
TURNS = 5
CHANGING, DIMENSION = "changing", 128
PARTS = ("journal", "single", "service", "visible", "mixed", "restart", "recall")

Messages = list[list[bytes]]

console = Console()


def side_by_side(callers: int, seconds: float, call: Callable[[int, int], int]) -> float:
    """What `call` counts a second: called with (caller, turn) over and over by each caller."""
    counts = [0] * callers
    began = time.perf_counter()

    def work(caller: int) -> None:
        turn = 0
        while time.perf_counter() - began < seconds:
            counts[caller] += call(caller, turn)
            turn += 1

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def journals(vectors: Floats, seconds: float, postgres: str | None) -> Iterator[dict[str, Any]]:
    """Durable appends a second."""
    for address in ("sqlite", *([postgres] if postgres else [])):
        for batch in BATCHES:
            for callers in CALLERS:
                rate, size = appends(address, vectors, batch, callers, seconds)
                yield {
                    "journal": "sqlite" if address == "sqlite" else "postgres",
                    "batch": batch,
                    "callers": callers,
                    "upserts/s": round(rate),
                    "bytes an entry": round(size),
                }


def appends(address: str, vectors: Floats, batch: int, callers: int, seconds: float) -> tuple[float, float]:
    """Entries a second that go into a new journal, and bytes an entry there."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        where = Path(folder, "journal.sqlite") if address == "sqlite" else address
        with closing(open_journal(where, INDEX)) as log:

            def call(caller: int, turn: int) -> int:
                log.append([Put(f"{caller}-{turn}-{i}", vectors[i]) for i in range(batch)])
                return batch

            rate = side_by_side(callers, seconds, call)
            status = log.status()
            return rate, status.bytes / max(status.entries, 1)


@contextmanager
def server(data_dir: Path, compact_updates: int = 0) -> Iterator[str]:
    """A server that compacts after so many updates, 0 for never; its gRPC address."""
    process = subprocess.Popen(
        [Path(sys.executable).parent / "earshot", "serve", "--port", "0"],
        env={
            **os.environ,
            "EARSHOT_DATA_DIR": str(data_dir),
            "EARSHOT_COMPACT_UPDATES": str(compact_updates),
            "EARSHOT_COMPACT_SHARE": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline() + process.stdout.readline()
        yield next(
            word for word in line.replace(",", " ").split() if word.count(":") == 1 and word[-1].isdigit()
        )
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def one_by_one(address: str, vectors: Floats, seconds: float) -> Iterator[dict[str, Any]]:
    """Upserts of one datapoint a call, 20,000 ids in turn, beside what could be reached at best."""
    messages = [upsert_message([f"s{row}"], vectors[row : row + 1]) for row in range(20_000)]
    padding = len(messages[-1])
    nothing = UNKNOWN_FIELD + bytes([padding & 0x7F | 0x80, padding >> 7]) + bytes(padding)
    for callers in CALLERS:
        bare = load_by_frames(address, BARE, [nothing], callers, seconds)
        load = load_by_frames(address, UPSERT, messages, callers, seconds)
        alone = appends("sqlite", vectors, 1, callers, seconds)[0]
        yield {
            "callers": callers,
            "upserts/s": round(load.per_second),
            "p50 ms": round(load.p50_ms, 2),
            "p99 ms": round(load.p99_ms, 2),
            "bare calls/s": round(bare.per_second),
            "of bare": round(load.per_second / bare.per_second, 2),
            "journal alone/s": round(alone),
            "of journal": round(load.per_second / alone, 2),
        }


def through_service(address: str, vectors: Floats, seconds: float) -> Iterator[dict[str, Any]]:
    """Durable and visible upserts a second; each caller goes round 20,000 ids in all."""
    for batch in BATCHES[1:]:
        for callers in CALLERS:
            own = max(1, 20_000 // (batch * callers))
            messages = [
                [
                    upsert_message([f"u{c}-{m}-{i}" for i in range(batch)], vectors[:batch])
                    for m in range(min(own, 50))
                ]
                for c in range(callers)
            ]
            with grpc.insecure_channel(address) as channel:
                turns = partial(_write, raw(channel, UPSERT), messages)
                rate = batch * side_by_side(callers, seconds, turns)
            yield {"batch": batch, "callers": callers, "upserts/s": round(rate)}


def _write(upsert: Callable[[bytes], bytes], messages: Messages, caller: int, turn: int) -> int:
    upsert(messages[caller][turn % len(messages[caller])])
    return 1


def visible(address: str, queries: Floats, count: int) -> Iterator[dict[str, Any]]:
    """An upsert, then one search for it: whether that found it, and how long both took."""
    seen, took = 0, []
    with grpc.insecure_channel(address) as channel:
        upsert, search = raw(channel, UPSERT), raw(channel, SEARCH)
        for number in range(count):
            # Longer than all before, so that none has a larger dot product with it than itself.
            vector = queries[number % len(queries)] * np.float32(1.01 + 0.001 * number)
            write, ask = upsert_message([f"v{number}"], vector[np.newaxis]), search_message(vector)
            began = time.perf_counter()
            upsert(write)
            seen += f"v{number}" in found(search(ask))
            took.append(time.perf_counter() - began)
    yield {
        "upserts": count,
        "seen by the next search": seen,
        "upsert and search, median ms": round(1e3 * float(np.median(took)), 2),
    }


def mixed(address: str, queries: Floats, seconds: float) -> Iterator[dict[str, Any]]:
    """One caller's searches under each rate of updates, in batches of 100, which take turns.

    Latencies are medians of `TURNS` turns; `of quiet` compares each with the turn without updates before it,
    which has the fresh datapoints of those before. The first row is of the index before any update.
    """
    asks = [search_message(query) for query in queries]
    exact = [search_message(query, 1.0) for query in queries[:100]]
    search = partial(load_by_frames, address, SEARCH, asks, 1)
    search(seconds)
    untouched = search(seconds)
    loads: dict[int, list[Load]] = {rate: [] for rate in RATES}
    came: dict[int, list[float]] = {rate: [] for rate in RATES}
    recalls = {}
    for _ in range(TURNS):
        for rate in RATES:
            with updates_at(address, rate) as written:
                before, began = written(), time.perf_counter()
                loads[rate].append(search(seconds))
                came[rate].append((written() - before) / (time.perf_counter() - began))
            with grpc.insecure_channel(address) as channel:
                ask = raw(channel, SEARCH)
                hits = [len(found(ask(asks[i])) & found(ask(exact[i]))) / K for i in range(len(exact))]
                recalls[rate] = round(float(np.mean(hits)), 4)
    quiet = np.array([load.p99_ms for load in loads[0]])
    yield {
        "upserts/s": "none yet",
        "came": 0,
        "searches/s": round(untouched.per_second),
        "p50 ms": round(untouched.p50_ms, 2),
        "p99 ms": round(untouched.p99_ms, 2),
        "of quiet": "",
        "recall after": "",
    }
    for rate, turns in loads.items():
        p99 = np.array([load.p99_ms for load in turns])
        yield {
            "upserts/s": rate,
            "came": round(float(np.median(came[rate]))),
            "searches/s": round(float(np.median([load.per_second for load in turns]))),
            "p50 ms": round(float(np.median([load.p50_ms for load in turns])), 2),
            "p99 ms": round(float(np.median(p99)), 2),
            "of quiet": round(float(np.median(p99 / quiet)), 2),
            "recall after": recalls[rate],
        }


def restart(data_dir: Path, vectors: Floats, entries: int) -> dict[str, Any]:
    """Seconds until a version and the entries after it answer, and until a server does; bytes on disk."""
    store = Store(data_dir)
    path = store.journal_file(INDEX)
    assert path is not None
    with closing(open_journal(path, INDEX)) as log:
        while log.last() - store.manifest(INDEX).sequence_number < entries:
            start = log.last()
            rows = range(start, start + 1000)
            log.append([Put(f"r{row}", vectors[row % len(vectors)]) for row in rows])
        status = log.status()
    began = time.perf_counter()
    version = store.open(INDEX)
    opened = time.perf_counter()
    with closing(open_journal(path, INDEX, read_only=True)) as log:
        live = LiveIndex(version, log.read(version.manifest.sequence_number))
    replayed = time.perf_counter()
    live.search(vectors[0], K)
    answered = time.perf_counter()
    with server(data_dir) as address, Client(address) as client:
        client.search(INDEX, vector=vectors[0], k=1)
        served = time.perf_counter()
    return {
        "datapoints": len(live),
        "entries": status.last - version.manifest.sequence_number,
        "open version s": round(opened - began, 2),
        "replay s": round(replayed - opened, 2),
        "first search s": round(answered - replayed, 3),
        "server answers s": round(served - answered, 2),
        "version MB": round(version.manifest.bytes / 1e6),
        "journal MB": round(status.bytes / 1e6),
    }


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """A part's results as a table."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    console.print(table)


def with_index(
    wanted: set[str],
    count: int,
    seconds: float,
    quick: bool,
    note: Callable[[str, list[dict[str, Any]]], None],
) -> None:
    """The parts that need an index of so many datapoints."""
    updates = synthetic(20_000, 1)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        store = Store(folder)
        store.create(INDEX)
        began = time.perf_counter()
        built = Index.build(synthetic(count, 0))
        store.publish(INDEX, built)
        note("build", [{"datapoints": count, "seconds": round(time.perf_counter() - began, 1)}])
        if wanted - {"restart", "recall"}:
            with server(Path(folder)) as address:
                parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
                    "visible": lambda: visible(address, updates, 200 if quick else 1000),
                    "mixed": lambda: mixed(address, synthetic(1000, 2), seconds),
                    "single": lambda: one_by_one(address, updates, seconds),
                    "service": lambda: through_service(address, updates, seconds),
                }
                for name in parts:
                    if name in wanted:
                        note(name, list(parts[name]()))
        if "restart" in wanted:
            note("restart", [restart(Path(folder), updates, 5000 if quick else 100_000)])
        if "recall" in wanted:
            store.create(CHANGING)
            store.publish(CHANGING, built)
            target = built.manifest.tuning.target_recall
            with server(Path(folder)) as address:
                rows = list(recall_under_updates(address, CHANGING, target))
            with server(Path(folder), 10 * count) as address:
                note("recall", rows + list(recall_made_good(address, CHANGING, target)))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="20,000 datapoints, shorter runs")
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--postgres", help="address of an empty database, to measure that journal beside")
    parser.add_argument("--datapoints", type=int, help="of the index (1,000,000; with --quick 20,000)")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    options = parser.parse_args()
    wanted = set(options.only.split(","))
    if wanted - set(PARTS):
        parser.error(f"--only takes some of {', '.join(PARTS)}")
    count = options.datapoints or (20_000 if options.quick else 1_000_000)
    seconds = 1.0 if options.quick else 5.0
    results: dict[str, Any] = {"datapoints": count, "cores": os.cpu_count()}

    def note(part: str, rows: list[dict[str, Any]]) -> None:
        results[part] = rows
        show(part, rows)

    if "journal" in wanted:
        note("journal", list(journals(synthetic(20_000, 1), seconds, options.postgres)))
    if wanted - {"journal"}:
        with_index(wanted, count, seconds, options.quick, note)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
