"""The tables, the CSV file and the plot of `benchmarks.engine`."""

from __future__ import annotations

import csv
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.growth import figures
from benchmarks.timing import TARGETS, Point


def report(rows: dict[str, list[Any]], console: Console, out: Path) -> None:
    """Print every table, write the points as CSV and plot them."""
    points: list[Point] = rows["points"]
    at_least: list[list[str]] = []
    for data, engine in dict.fromkeys((point.data, point.engine) for point in points):
        mine = [point for point in points if (point.data, point.engine) == (data, engine)]
        cells = []
        for target in TARGETS:
            holding = [point for point in mine if point.recall >= target]
            cells.append(f"{max(point.per_second for point in holding):,.0f}" if holding else "–")
        at_least.append([data, engine, *cells])
    table(console, "queries/s a core at recall", ["data", "engine", *map(str, TARGETS)], at_least)
    table(
        console,
        "over raw ScaNN, same parameters: µs a query",
        [
            *("data", "batch", "raw", "rows", "with ids", "ScaNN's ids"),
            *("raw/rows", "raw/ids", "rows − raw", "ids − raw", "its own L2 / rows"),
        ],
        [
            [
                *(row.data, row.batch, row.raw_us, row.rows_us, row.ids_us, row.named_us),
                *(row.raw_us / row.rows_us, row.raw_us / row.ids_us),
                *(row.rows_us - row.raw_us, row.ids_us - row.raw_us),
                "" if row.own_us == row.raw_us else row.own_us / row.rows_us,
            ]
            for row in rows["overhead"]
        ],
    )
    table(
        console,
        "tuner beside the fastest of 100 configurations, on queries unseen by both",
        ["data", "target", "recall", "µs", "the grid's", "its recall", "its µs", "its/ours"],
        [[*asdict(row).values(), row.grid_us / row.us] for row in rows["tuned"]],
    )
    table(
        console,
        "text queries, index tuned on base vectors and on other text queries",
        ["target", "promised", "blind recall", "µs", "tuned recall", "µs "],
        [list(asdict(row).values()) for row in rows["elsewhere"]],
    )
    sizes = rows["growth"]
    table(console, "growth", ["", *(f"{size.count:,}" for size in sizes)], figures(sizes) if sizes else [])
    if not points:
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / "engine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*Point.__slots__, "per_second"])
        writer.writeheader()
        writer.writerows({**asdict(point), "per_second": round(point.per_second)} for point in points)
    try:
        import_module("matplotlib")
    except ImportError:
        console.print("no plot: it needs matplotlib, pip install 'earshot[bench]'")
    else:
        import_module("benchmarks.plot").plot(points, out / "engine.svg")


def table(console: Console, title: str, headings: list[str], rows: list[list[Any]]) -> None:
    """Print one, unless it is empty."""
    if not rows:
        return
    made = Table(title=title)
    for heading in headings:
        made.add_column(heading)
    for row in rows:
        made.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(made)
