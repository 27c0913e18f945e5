"""How the index's costs grow with its size: build beside raw ScaNN's, tuning, search, open, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from time import process_time

import numpy as np

from benchmarks.datasets import Dataset, synthetic
from benchmarks.raw import raw_build
from earshot.index import Index, ScannParameters

_OPEN = """
import json, sys, time
from pathlib import Path

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {l.split(":")[0]: int(l.split()[1]) / 1024 for l in lines if l.startswith("Rss")}

from earshot.index import Index
import numpy as np
before = resident()
times = {}
for name, verify in (("open", False), ("verify", True)):
    began = time.perf_counter()
    index = Index.open(sys.argv[1], verify=verify)
    times[name] = time.perf_counter() - began
    if name == "open":
        index.search(np.load(sys.argv[2]), 10).ids
        after = resident()
print(json.dumps({**times, "anonymous": after["RssAnon"] - before["RssAnon"],
                  "mapped": after["RssFile"] - before["RssFile"]}))
"""


@dataclass(frozen=True, slots=True)
class Growth:
    """One size. Seconds of the processor for builds, of the wall for opening; MiB."""

    count: int
    raw_build_s: float
    build_s: float
    tune_s: float
    us_at_95: float
    us_at_99: float
    open_s: float
    open_verified_s: float
    anonymous_mib: float
    mapped_mib: float
    engine_must_take_mib: float
    on_disk_mib: float


def figures(sizes: list[Growth]) -> list[list[str | float]]:
    """A line a figure, a column a size."""
    lines: list[tuple[str, Callable[[Growth], float]]] = [
        ("raw ScaNN's build, CPU s", lambda g: g.raw_build_s),
        ("our build, CPU s", lambda g: g.build_s),
        ("our build / raw", lambda g: g.build_s / g.raw_build_s),
        ("tuning, CPU s", lambda g: g.tune_s),
        ("µs a query at 0.95", lambda g: g.us_at_95),
        ("µs a query at 0.99", lambda g: g.us_at_99),
        ("open, s", lambda g: g.open_s),
        ("open with checksums, s", lambda g: g.open_verified_s),
        ("resident after a search, anonymous MiB", lambda g: g.anonymous_mib),
        ("resident after a search, mapped MiB", lambda g: g.mapped_mib),
        ("engine must take, MiB", lambda g: g.engine_must_take_mib),
        ("on disk, MiB", lambda g: g.on_disk_mib),
    ]
    return [[name, *(figure(size) for size in sizes)] for name, figure in lines]


def growth(count: int) -> Growth:
    """Measure the synthetic set of so many datapoints."""
    data = synthetic(count)
    threads = len(os.sched_getaffinity(0))
    spent: dict[str, float] = {}

    def stage(name: str, done: int, total: int) -> None:
        if done in (0, total):
            spent[f"{name} {'began' if done == 0 else 'ended'}"] = process_time()

    index = Index.build(data.base, threads=threads, progress=stage)
    parameters = ScannParameters(**index.manifest.engine.parameters)
    began = process_time()
    raw_build(data, parameters, threads)
    raw = process_time() - began
    searched = [_microseconds(index, data, target) for target in (0.95, 0.99)]
    with tempfile.TemporaryDirectory() as folder:
        manifest = index.save(Path(folder) / "index")
        np.save(Path(folder) / "queries.npy", data.queries)
        del index
        command = [sys.executable, "-c", _OPEN, f"{folder}/index", f"{folder}/queries.npy"]
        opened = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return Growth(
        count,
        raw,
        spent["build ended"] - spent["build began"],
        spent.get("tune ended", nan) - spent.get("tune began", nan),
        searched[0],
        searched[1],
        opened["open"],
        opened["verify"],
        opened["anonymous"],
        opened["mapped"],
        parameters.memory(count, data.base.shape[1]) / 2**20,
        manifest.bytes / 2**20,
    )


def _microseconds(index: Index, data: Dataset, target: float) -> float:
    best = np.inf
    for _ in range(5):
        began = process_time()
        index.search(data.queries, 10, target_recall=target)
        best = min(best, (process_time() - began) / len(data.queries) * 1e6)
    return best
