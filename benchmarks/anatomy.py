"""Where the CPU time of one query goes: `perf` over the server under load, as a table and a plot.

`python -m benchmarks.anatomy --data-dir FOLDER [--plot PATH.svg]`, with the index that `benchmarks.service
--data-dir FOLDER` built there. Needs Linux's perf, and h2load.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

from .load import Asked, cpu_seconds, load_by_h2load
from .service import requests_of, server, synthetic

SECONDS = 4.0
# The first that fits a thread's name and a library's.
PARTS = (
    ("sockets and wake-ups (kernel)", r".*\[kernel"),
    ("ScaNN", r".*scann"),
    ("NumPy", r".*(multiarray|openblas)"),
    ("event loop (uvloop)", r".* loop\."),
    ("Python", r".*(libpython|python3|cpython|_message)"),
    ("rest (libc)", r".*"),
)
COLOURS = ("#8d99ae", "#c1121f", "#f4a261", "#457b9d", "#2a9d8f", "#e9ecef")
SHOWN = {"Search": 32, "JSON": 32, "BatchSearch": 4, "StreamSearch": 2}


def anatomy(pid: int, run: threading.Thread) -> tuple[dict[str, float], float]:
    """The share of each part in the process's CPU time, and how many cores it kept busy, while `run` runs."""
    run.start()
    time.sleep(1.5)
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/perf.data"
        before, began = cpu_seconds(pid), time.monotonic()
        record = [
            "perf",
            "record",
            "-q",
            "-o",
            file,
            "-p",
            str(pid),
            "-F",
            "1999",
            "--",
            "sleep",
            str(SECONDS),
        ]
        subprocess.run(record, check=True, capture_output=True)
        cores = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        report = ["perf", "report", "-i", file, "--sort", "comm,dso", "--stdio", "-q"]
        lines = subprocess.run(report, check=True, capture_output=True, text=True).stdout.splitlines()
    run.join()
    shares = dict.fromkeys((name for name, _ in PARTS), 0.0)
    for line in lines:
        if (found := re.match(r"\s*([\d.]+)%\s+(\S+\s+\S.*?)\s*$", line)) is not None:
            where = re.sub(r"\s+", " ", found[2])
            shares[next(name for name, pattern in PARTS if re.match(pattern, where))] += float(found[1]) / 100
    return shares, cores


def measure(data_dir: Path) -> dict[str, dict[str, float]]:
    """Microseconds of the server's CPU a query, by kind of request and part."""
    found: dict[str, dict[str, float]] = {}
    with server("direct", data_dir) as (pid, addresses):
        for asked in requests_of(synthetic(4096, 2)):
            in_flight = SHOWN.get(asked.name.partition(",")[0].partition(" ")[0])
            if in_flight is None or asked.is_varied or not asked.name.endswith("0.95"):
                continue
            rates: list[float] = []

            def load(asked: Asked = asked, in_flight: int = in_flight, rates: list[float] = rates) -> None:
                seen = load_by_h2load(addresses, asked, in_flight, SECONDS + 3)
                rates.append(seen.per_second * asked.queries)

            shares, cores = anatomy(pid, threading.Thread(target=load))
            found[f"{asked.name}, {in_flight} in flight"] = {
                part: 1e6 * cores * share / rates[0] for part, share in shares.items()
            }
    return found


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    """A bar for each kind of request."""
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.75 * len(found)))
    for row, parts in enumerate(found.values()):
        left = 0.0
        for (part, value), colour in zip(parts.items(), COLOURS, strict=True):
            axes.barh(
                row, value, left=left, color=colour, edgecolor="white", label=part if row == 0 else None
            )
            if value > 3:
                axes.text(left + value / 2, row, f"{value:.0f}", ha="center", va="center", fontsize=8)
            left += value
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("µs of the server's CPU for one query")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.legend(loc="lower center", ncols=3, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0.9 / (1.2 + 0.75 * len(found)), 1, 1))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found = measure(options.data_dir)
    print("| µs of CPU a query | " + " | ".join(found) + " |")
    print("|---" + "|--:" * len(found) + "|")
    for part, _ in PARTS:
        print(f"| {part} | " + " | ".join(f"{parts[part]:.1f}" for parts in found.values()) + " |")
    print("| **all** | " + " | ".join(f"**{sum(parts.values()):.1f}**" for parts in found.values()) + " |")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
