"""The GPU engine beside raw faiss-gpu, PyTorch, cuVS, ScaNN on the CPU, and the floor that physics sets.

`python -m benchmarks.gpu [--quick] [--json PATH] [--sets 1000000x128 …]` prints tables; `make bench-gpu` sets
the environment up first. Times are of the wall, from NumPy to NumPy: queries cross to the GPU, answers back.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.datasets import Dataset, Floats, Rows, recall_of, synthetic
from benchmarks.gpu_contenders import PROBES, Contender, contenders
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine
from earshot.index.engines.gpus import Gpus, find_gpus

SETS = ((1_000_000, 128), (10_000_000, 128), (1_000_000, 768))
NEIGHBORS = (10, 100)
BATCHES = (1, 32, 1024, 8192)
QUICK_SETS, QUICK_BATCHES = ((200_000, 128),), (1, 1024)
SECONDS = 1.0  # for a measurement
JUDGED = 1000  # queries whose recall is measured
LARGE = 1024
WANTED_OF_RAW = 0.95
WANTED_OF_FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Device:
    """What the hardware gives at best: bytes a second, and operations a second in float16 and float32."""

    name: str
    bandwidth: float
    flops16: float
    flops32: float

    def floor(self, count: int, dimension: int, bytes_a_number: int, batch: int) -> float:
        """Seconds below which no exact search of a batch can go: every vector is read, every product made."""
        reading = bytes_a_number * count * dimension / self.bandwidth
        flops = self.flops16 if bytes_a_number == 2 else self.flops32
        return max(reading, 2 * batch * count * dimension / flops)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender at one k and batch. `of_floor` is its speed as a share of what the floor allows."""

    data: str
    contender: str
    kind: str
    k: int
    batch: int
    queries_a_second: float
    median_ms: float
    p99_ms: float
    recall: float
    build_s: float
    gpu_mib: float
    of_floor: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal is met, in the words of the report."""

    goal: str
    value: float
    wanted: float
    where: str

    @property
    def is_met(self) -> bool:
        """At the worst place."""
        return self.value >= self.wanted


def run(
    data: Dataset,
    gpus: Gpus,
    device: Device | None,
    neighbors: Sequence[int],
    batches: Sequence[int],
    probes: tuple[int, ...] = PROBES,
    seconds: float = SECONDS,
    say: Callable[[str], None] = print,
) -> list[Measurement]:
    """All contenders over one data set."""
    queries = np.resize(data.queries, (max(*batches, JUDGED), data.base.shape[1]))
    judged = min(JUDGED, len(data.queries))
    truth, _ = ExactEngine(data.base, DistanceMeasure(data.measure)).search(queries[:judged], max(neighbors))
    found: list[Measurement] = []
    for contender in contenders(data, gpus, probes):
        say(f"{data.name}: {contender.name}")
        for k in neighbors:
            rows = contender.search(queries[:judged], k)
            recall = recall_of(rows, truth[:, :k])
            found += [
                _measured(data, contender, device, k, batch, recall, queries, seconds) for batch in batches
            ]
        gc.collect()  # the GPU's memory goes with the last reference to an index
    return found


def _measured(
    data: Dataset,
    contender: Contender,
    device: Device | None,
    k: int,
    batch: int,
    recall: float,
    queries: Floats,
    seconds: float,
) -> Measurement:
    times = timings(contender.search, queries, k, batch, seconds)
    median = float(np.median(times))
    floor = None
    if device is not None and contender.bytes_a_number:
        floor = round(
            device.floor(len(data.base), data.base.shape[1], contender.bytes_a_number, batch) / median, 4
        )
    return Measurement(
        data.name,
        contender.name,
        contender.kind,
        k,
        batch,
        round(batch / median, 1),
        round(1000 * median, 4),
        round(1000 * float(np.quantile(times, 0.99)), 4),
        round(recall, 4),
        round(contender.build_s, 2),
        round(contender.gpu_bytes / 2**20, 1),
        floor,
    )


def timings(
    search: Callable[[Floats, int], Rows], queries: Floats, k: int, batch: int, seconds: float
) -> list[float]:
    """Seconds of each call, other queries every time, after two calls that warm up."""
    starts = range(0, len(queries) - batch + 1, batch)
    parts = [np.ascontiguousarray(queries[start : start + batch]) for start in starts]
    for part in (parts[0], parts[-1]):
        search(part, k)
    times: list[float] = []
    while sum(times) < seconds or len(times) < 5:
        part = parts[len(times) % len(parts)]
        began = perf_counter()
        search(part, k)
        times.append(perf_counter() - began)
    return times


def verdicts(measurements: Sequence[Measurement]) -> list[Verdict]:
    """The goals, at large batches: ours beside raw Faiss at the same work, and float16 beside the floor."""
    large = [entry for entry in measurements if entry.batch >= LARGE]
    raw = {(e.data, e.kind, e.k, e.batch): e for e in large if e.contender.startswith("faiss")}
    ratios = [
        (entry.queries_a_second / other.queries_a_second, entry)
        for entry in large
        if entry.contender.startswith("ours")
        and (other := raw.get((entry.data, entry.kind, entry.k, entry.batch)))
    ]
    floors = [
        (entry.of_floor, entry)
        for entry in large
        if entry.kind == "exact float16" and entry.of_floor is not None and entry.contender.startswith("ours")
    ]
    found = []
    for goal, pairs, wanted in (
        ("ours / raw faiss-gpu, batches of 1,024 and more", ratios, WANTED_OF_RAW),
        ("exact float16 / floor, batches of 1,024 and more", floors, WANTED_OF_FLOOR),
    ):
        if pairs:
            value, worst = min(pairs, key=lambda pair: pair[0])
            where = f"{worst.data}, {worst.kind}, k {worst.k}, batch {worst.batch}"
            found.append(Verdict(goal, round(value, 3), wanted, where))
    return found


def measure_device() -> Device | None:
    """The device's own limits, measured with PyTorch; None without it, and then there is no floor."""
    if not find_spec("torch"):
        return None
    torch = import_module("torch")
    if not torch.cuda.is_available():
        return None

    def seconds(work: Callable[[], Any], repeats: int = 10) -> float:
        work()
        times = []
        for _ in range(repeats):
            torch.cuda.synchronize()
            began = perf_counter()
            work()
            torch.cuda.synchronize()
            times.append(perf_counter() - began)
        return min(times)

    block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(block)
    bandwidth = 2 * block.numel() / seconds(lambda: copy.copy_(block))
    flops = []
    for dtype in (torch.float16, torch.float32):
        a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        flops.append(2 * 8192**3 / seconds(lambda a=a: a @ a))  # type: ignore[misc]
    return Device(torch.cuda.get_device_name(), bandwidth, *flops)


def table(measurements: Sequence[Measurement]) -> Table:
    """A line a measurement."""
    shown = Table(
        "contender", "k", "batch", "queries/s", "median ms", "p99 ms", "recall", "build s", "GPU MiB"
    )
    shown.add_column("of floor")
    for entry in measurements:
        floor = "-" if entry.of_floor is None else f"{entry.of_floor:.2f}"
        cells = (entry.k, entry.batch, f"{entry.queries_a_second:,.0f}", entry.median_ms, entry.p99_ms)
        rest = (entry.recall, entry.build_s, entry.gpu_mib, floor)
        shown.add_row(entry.contender, *map(str, (*cells, *rest)))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small set and two batches, under a minute")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--sets", nargs="+", help="such as 1000000x128; all three by default")
    chosen = parser.parse_args(arguments)
    gpus, reason = find_gpus()
    if gpus is None:
        raise SystemExit(f"no GPU: {reason}; this benchmark needs one (make bench-gpu sets all else up)")
    console = Console()
    sets: tuple[tuple[int, int], ...] = QUICK_SETS if chosen.quick else SETS
    if chosen.sets:
        sets = tuple((int(count), int(dimension)) for count, dimension in (s.split("x") for s in chosen.sets))
    device = measure_device()
    console.print(f"{device}" if device else "PyTorch is not here to measure the device: no floors")
    measurements: list[Measurement] = []
    for count, dimension in sets:
        data = synthetic(count, dimension)
        neighbors, batches = (NEIGHBORS[:1], QUICK_BATCHES) if chosen.quick else (NEIGHBORS, BATCHES)
        seconds = 0.2 if chosen.quick else SECONDS
        part = run(
            data,
            gpus,
            device,
            neighbors,
            batches,
            seconds=seconds,
            say=lambda what: print(what, file=sys.stderr, flush=True),
        )
        console.rule(f"{count:,} × {dimension}")
        console.print(table(part))
        measurements += part
    judged = verdicts(measurements)
    for verdict in judged:
        word = "met" if verdict.is_met else "MISSED"
        console.print(f"{word}: {verdict.goal} ≥ {verdict.wanted}: {verdict.value} at {verdict.where}")
    if chosen.json:
        report = {
            "device": asdict(device) if device else None,
            "measurements": [asdict(entry) for entry in measurements],
            "verdicts": [{**asdict(verdict), "is_met": verdict.is_met} for verdict in judged],
        }
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
