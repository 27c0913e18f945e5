"""What more workers bring on this machine: `python -m benchmarks.workers [--workers 1 2] [--quick]`.

All servers run at once over one index and are asked in turns, so that a busy machine is as busy for each.
Memory is PSS: what is mapped by several processes counts in parts, so the sum is what the machine holds.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from earshot.index import Index, Store
from earshot.server.run import Addresses

from .load import Asked, Load, cpu_seconds, load_by_h2load
from .service import INDEX, requests_of, synthetic

WARM_UP_SECONDS = 0.5


@contextlib.contextmanager
def server(transport: str, data_dir: Path, workers: int) -> Iterator[tuple[int, Addresses]]:
    """`earshot serve` with so many workers: its process id and addresses."""
    command = [str(Path(sys.executable).parent / "earshot"), "serve", "--transport", transport]
    command += ["--workers", str(workers), "--port", "0", "--grpc-port", "0", "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = [process.stdout.readline() for _ in range(2)]
        grpc, http = (re.search(r"(http://)?[\d.]+:\d+", line) for line in said)
        assert grpc is not None
        assert http is not None
        yield process.pid, Addresses(grpc=grpc[0], http=http[0])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def memory(pid: int) -> list[int]:
    """PSS in bytes of each process below `pid` that has an index: all but the supervisor."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    rollups = (Path(f"/proc/{child}/smaps_rollup").read_text() for child in children or [str(pid)])
    return [1024 * int(re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)[1]) for rollup in rollups]  # type: ignore[index]


def measure(
    servers: dict[int, tuple[int, Addresses]], asked: Asked, in_flight: int, rounds: int, seconds: float
) -> dict[int, list[tuple[Load, float]]]:
    """For each number of workers what each round saw, and the CPU seconds a query took."""
    seen: dict[int, list[tuple[Load, float]]] = {workers: [] for workers in servers}
    for _ in range(rounds):
        for workers, (pid, addresses) in servers.items():
            before = cpu_seconds(pid)
            load = load_by_h2load(addresses, asked, in_flight, seconds)
            ran = load.per_second * (seconds + WARM_UP_SECONDS)
            seen[workers].append((load, (cpu_seconds(pid) - before) / ran))
    return seen


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--transports", nargs="+", default=["direct", "portable"])
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="fewer vectors, less time")
    parser.add_argument("--data-dir", type=Path, help="keep the index here, and use it where it is")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = options.data_dir or Path(folder)
        store = Store(data_dir)
        if INDEX not in store.indexes():
            store.create(INDEX)
            store.publish(INDEX, Index.build(synthetic(50_000 if options.quick else 200_000, 1)))
        rounds, seconds = (3, 1.0) if options.quick else (7, 3.0)
        for transport in options.transports:
            with contextlib.ExitStack() as stack:
                servers = {
                    workers: stack.enter_context(server(transport, data_dir, workers))
                    for workers in options.workers
                }
                asked = requests_of(synthetic(64, 2))[1]
                seen = measure(servers, asked, options.in_flight, rounds, seconds)
                held = {workers: memory(pid) for workers, (pid, _) in servers.items()}
            _print(transport, asked, options.in_flight, seen, held)


def _print(
    transport: str,
    asked: Asked,
    in_flight: int,
    seen: dict[int, list[tuple[Load, float]]],
    held: dict[int, list[int]],
) -> None:
    table = Table(
        title=f"{transport}: {asked.name}, {in_flight} in flight; medians of {len(next(iter(seen.values())))}"
    )
    for heading in (
        "workers",
        "queries/s",
        "to the first",
        "p50 ms",
        "p99 ms",
        "CPU µs",
        "MB in all",
        "MB each",
    ):
        table.add_column(heading, justify="right")
    base = next(iter(seen.values()))
    for workers, rounds in seen.items():
        ratio = statistics.median(
            mine[0].per_second / first[0].per_second for mine, first in zip(rounds, base, strict=True)
        )
        table.add_row(
            str(workers),
            f"{statistics.median(load.per_second for load, _ in rounds):,.0f}",
            f"{ratio:.2f}",
            f"{statistics.median(load.p50_ms for load, _ in rounds):.2f}",
            f"{statistics.median(load.p99_ms for load, _ in rounds):.2f}",
            f"{1e6 * statistics.median(cpu for _, cpu in rounds):.0f}",
            f"{sum(held[workers]) / 1e6:.0f}",
            ", ".join(f"{size / 1e6:.0f}" for size in held[workers]),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
