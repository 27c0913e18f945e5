"""What huge pages are worth: searches of an index that `HugePages` moved, beside one as it was.

`python -m benchmarks.huge_pages [--count 1000000] [--json PATH]`: count × 128 clustered vectors, k = 10, with
different queries, in this process alone. Two copies of one index take turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.index.distance import Floats
from earshot.server.huge_pages import HugePages

from .service import INDEX, synthetic

QUERIES, TURNS = 20_000, 5


def resident_mib() -> float:
    """What this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)


def move_all() -> float:
    """Moves what there is without a rest; the seconds that took."""
    pages, began = HugePages(), time.perf_counter()
    pages.begin()
    more = True
    while more:
        pages._not_before = 0.0
        more = pages.turn()
    return time.perf_counter() - began


def rate(index: Index, queries: Floats, batch: int, recall: float) -> float:
    """Queries a second."""
    began = time.perf_counter()
    for start in range(0, len(queries), batch):
        index.search(queries[start : start + batch], 10, target_recall=recall)
    return len(queries) / (time.perf_counter() - began)


def measure(store: Store) -> list[dict[str, Any]]:
    """A row for each recall and batch, and one for the end of a version."""
    queries = synthetic(QUERIES, 7)
    moved = store.open(INDEX)
    moved.search(queries[:64], 10)
    before = resident_mib()
    seconds = move_all()
    after = resident_mib()
    left = store.open(INDEX)  # later, so that nothing moves it
    rows: list[dict[str, Any]] = []
    for recall in (0.95, 0.99):
        for batch in (64, 1):
            asked = queries if batch > 1 else queries[: QUERIES // 4]
            turns = [
                (rate(moved, asked, batch, recall), rate(left, asked, batch, recall)) for _ in range(TURNS)
            ]
            times = round(float(np.median([one / other for one, other in turns])), 3)
            rows.append({"what": f"queries/s, recall {recall}, {batch} at once", "times": times})
    freed = []
    indexes = [moved, left]
    del moved, left
    while indexes:
        began = time.perf_counter()
        del indexes[0]  # the last reference
        freed.append(time.perf_counter() - began)
    rows.append({"what": "time to let go of it", "times": round(freed[0] / freed[1], 3)})
    rows.append({"what": "resident memory", "times": round(after / before, 3)})
    rows.append({"what": "seconds of moving", "times": round(seconds, 2)})
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        store = Store(folder)
        store.create(INDEX)
        store.publish(INDEX, Index.build(synthetic(options.count, 1)))
        rows = measure(store)
    table = Table("in huge pages, of what it is without", "", title=f"{options.count:,} × 128")
    for row in rows:
        table.add_row(row["what"], str(row["times"]))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
