"""The index engine beside raw ScaNN, a hand-made grid and its peers: recall, queries a second, build, memory.

`python -m benchmarks.engine [--quick] [--json PATH] [--out FOLDER] [--data FOLDER]` prints tables and writes
engine.csv and engine.svg. k = 10; queries are not those of tuning. Times are of the processor on one thread,
the best of several interleaved rounds, so that other work on the machine matters least.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when the libraries are imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.datasets import Dataset, Floats, Rows, data_folder, real, recall_of, synthetic
from benchmarks.growth import figures, growth
from benchmarks.peers import PEERS
from earshot.index import Index, ScannParameters
from earshot.index.engines import ScannEngine

K, BATCH = 10, 256
SETS = ("sift10k", "glove_twitter25_12k", "lsa128_podcast100k", "synthetic")
SYNTHETIC = 200_000
TARGETS = (0.9, 0.95, 0.99)
ROUNDS = 5
SETTINGS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
FEW_SETTINGS = (16, 32, 64, 128)
SLOWEST_US = 2000

GRID_BUILDS: dict[str, dict[str, Any]] = {
    "√n leaves": {},
    "2√n leaves": {"leaves": 2.0},
    "4√n leaves": {"leaves": 4.0},
    "4 dimensions a code": {"dimensions_per_block": 4},
    "SOAR": {"soar_lambda": 1.5},
}
GRID_LEAVES = (0.01, 0.03, 0.08, 0.2, 0.6)  # share of all
GRID_CANDIDATES = (20, 40, 80, 160)


@dataclass(frozen=True, slots=True)
class Point:
    """One engine at one setting: `us` of the processor a query, in batches of 256."""

    data: str
    engine: str
    setting: str
    recall: float
    us: float

    @property
    def per_second(self) -> float:
        """Queries a second on one core."""
        return 1e6 / self.us


@dataclass(frozen=True, slots=True)
class Overhead:
    """Ours beside raw ScaNN with the same parameters, µs a query."""

    data: str
    batch: int
    raw_us: float
    rows_us: float
    ids_us: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The tuner's point beside the fastest of the hand-made grid that reached the target on these queries."""

    data: str
    target: float
    recall: float
    us: float
    grid_setting: str
    grid_recall: float
    grid_us: float


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Recall that text queries get from tuning on base vectors, and on text queries."""

    target: float
    promised: float
    blind: float
    blind_us: float
    tuned: float
    tuned_us: float


Action = Callable[[], Any]


def fastest(actions: dict[str, Action], per_call: int, rounds: int = ROUNDS) -> dict[str, float]:
    """µs of the processor a query for each action, in turns, the best of several."""
    best = dict.fromkeys(actions, np.inf)
    for _ in range(rounds):
        for name, action in actions.items():
            began = process_time()
            action()
            best[name] = min(best[name], (process_time() - began) / per_call * 1e6)
    return best


def in_batches(search: Callable[[Floats], Rows], queries: Floats) -> Rows:
    """What a search finds, 256 queries at a time."""
    return np.concatenate([search(queries[i : i + BATCH]) for i in range(0, len(queries), BATCH)])


def our_points(data: Dataset, index: Index, truth: Rows) -> list[Point]:
    """Every tuned operating point for k = 10, as unseen queries see it."""
    engine, points = index._shard.engine, []
    for point in index.manifest.tuning.points:
        if point.k != K or not point.leaves:
            continue
        options = {
            "fraction_leaf_nodes_to_search": point.leaves / engine.leaves,
            "approximate_neighbor_count": point.candidates,
        }

        def ask(options: dict[str, Any] = options) -> Rows:
            return in_batches(lambda block: index.search(block, K, **options).rows, data.queries)

        recall = recall_of(ask(), truth)
        us = fastest({"": ask}, len(data.queries))[""]
        points.append(Point(data.name, "Earshot", f"{point.leaves}/{point.candidates}", recall, us))
    return points


def peer_points(data: Dataset, truth: Rows, settings: Iterable[int], console: Console) -> list[Point]:
    """Every peer at settings from coarse to nearly exact."""
    points: list[Point] = []
    for name, build in PEERS.items():
        with tempfile.TemporaryDirectory() as folder, console.status(f"{data.name}: {name}"):
            try:
                search = build(data.base, data.measure, Path(folder) / "peer", len(os.sched_getaffinity(0)))
            except ImportError as error:
                console.print(f"{name} is left out: {error}")
                continue
            for setting in settings:

                def ask(search: Any = search, setting: int = setting) -> Rows:
                    return in_batches(lambda block: search(block, K, setting), data.queries)

                recall = recall_of(ask(), truth)
                us = fastest({"": ask}, len(data.queries), 3)[""]
                points.append(Point(data.name, name, str(setting), recall, us))
                if recall > 0.998 or us > SLOWEST_US:
                    break
    return points


def overhead(data: Dataset, index: Index, batches: Iterable[int] = (1, 64, 256)) -> list[Overhead]:
    """Our layers over ScaNN's own calls, with the default operating point."""
    searcher: Any = index._shard.engine._searcher  # type: ignore[attr-defined]  # under all of our layers
    point = index.manifest.tuning.chosen
    results = []
    for batch in batches:
        blocks = [
            data.queries[i : i + batch] for i in range(0, max(batch, len(data.queries) - batch + 1), batch)
        ]
        blocks = [block for block in blocks[:500] if len(block) == batch]

        def raw(block: Floats) -> Any:
            if len(block) == 1:
                return searcher.search(block[0], K, point.candidates, point.leaves)
            return searcher.search_batched(block, K, point.candidates, point.leaves)

        ways: dict[str, Callable[[Floats], Any]] = {
            "raw": raw,
            "rows": lambda block: index.search(block, K),
            "ids": lambda block: index.search(block, K).ids,
        }
        best = fastest(
            {name: partial(_each, way, blocks) for name, way in ways.items()},
            batch * len(blocks),
            5 * ROUNDS,
        )
        results.append(Overhead(data.name, batch, best["raw"], best["rows"], best["ids"]))
    return results


def _each(way: Callable[[Floats], Any], blocks: list[Floats]) -> None:
    for block in blocks:
        way(block)


def _asked(index: Index, data: Dataset, target: float) -> Rows:
    return in_batches(lambda block: index.search(block, K, target_recall=target).rows, data.queries)


def beside_grid(data: Dataset, index: Index, truth: Rows, quick: bool) -> list[Tuned]:
    """100 hand-made configurations: 5 builds × 20 searches, or quickly ours × 100; then a second look at the
    fastest of each target, in turns with the tuner's."""
    seen: list[tuple[Point, Action]] = []
    shape = (10, 10) if quick else (len(GRID_LEAVES), len(GRID_CANDIDATES))
    shares = np.geomspace(GRID_LEAVES[0], GRID_LEAVES[-1], shape[0])
    counts = np.geomspace(GRID_CANDIDATES[0], GRID_CANDIDATES[-1], shape[1]).round().astype(int)
    for name, changes in list(GRID_BUILDS.items())[: 1 if quick else None]:
        searcher = _hand_made(data, index, changes)
        if searcher is None:
            continue
        leaves = searcher.leaves
        for visited in sorted({max(1, round(share * leaves)) for share in shares}):
            for candidates in counts.tolist():
                ask = partial(_hand_asked, searcher, data, candidates, visited)
                recall = recall_of(ask(), truth)
                us = fastest({"": ask}, len(data.queries), 2)[""]
                point = Point(data.name, "grid", f"{name}, {visited}/{candidates}", recall, us)
                seen.append((point, ask))
    results = []
    for target in TARGETS[1:]:
        holding = sorted((pair for pair in seen if pair[0].recall >= target), key=lambda pair: pair[0].us)[:3]
        ours = partial(_asked, index, data, target)
        recall = recall_of(ours(), truth)
        actions: dict[str, Action] = {"ours": ours, **{pair[0].setting: pair[1] for pair in holding}}
        best = fastest(actions, len(data.queries))
        us = best.pop("ours")
        if best:
            setting = min(best, key=lambda name: best[name])
            grid_recall = next(pair[0].recall for pair in holding if pair[0].setting == setting)
            results.append(Tuned(data.name, target, recall, us, setting, grid_recall, best[setting]))
    return results


@dataclass(frozen=True, slots=True)
class _HandMade:
    raw: Callable[..., Any]
    leaves: int


def _hand_asked(searcher: _HandMade, data: Dataset, candidates: int, visited: int) -> Rows:
    found = in_batches(lambda block: searcher.raw(block, K, candidates, visited)[0], data.queries)
    return found.astype(np.int64)


def _hand_made(data: Dataset, index: Index, changes: dict[str, Any]) -> _HandMade | None:
    engine: Any = index._shard.engine
    if not changes:
        return _HandMade(engine._searcher.search_batched, engine.leaves)
    if data.measure != "DOT_PRODUCT_DISTANCE" and "soar_lambda" in changes:
        changes = {"leaves": 0.5}
    parameters: ScannParameters = engine.parameters
    if "leaves" in changes:
        changes = {"leaves": round(parameters.leaves * changes["leaves"])}
    made = ScannEngine.build(
        index._shard.vectors,
        index.manifest.distance_measure,
        replace(parameters, **changes),
        threads=len(os.sched_getaffinity(0)),
    )
    return _HandMade(made._searcher.search_batched, made.leaves)


def elsewhere(data: Dataset, truth: Rows) -> list[Elsewhere]:
    """Text queries asked of an index tuned on base vectors, and of one tuned on other text queries."""
    blind = Index.build(data.base, distance_measure=data.measure)
    tuned = Index.build(data.base, distance_measure=data.measure, tuning_queries=data.tuning_queries)
    results = []
    for target in TARGETS:
        actions: dict[str, Action] = {
            name: partial(_asked, index, data, target) for name, index in (("blind", blind), ("tuned", tuned))
        }
        recalls = {name: recall_of(action(), truth) for name, action in actions.items()}
        best = fastest(actions, len(data.queries))
        promised = min(
            (p for p in blind.manifest.tuning.points if p.k == K and p.recall.low >= target),
            key=lambda p: p.cost,
        ).recall.value
        results.append(
            Elsewhere(target, promised, recalls["blind"], best["blind"], recalls["tuned"], best["tuned"])
        )
    return results


def data_sets(folder: Path, names: list[str] | None, quick: bool) -> Iterator[Dataset]:
    """Those named, or the usual ones, as far as they are there."""
    if quick:
        yield real("sift10k", folder) or synthetic(10_000)
        return
    for name in names or SETS:
        data = synthetic(SYNTHETIC) if name == "synthetic" else real(name, folder)
        if data is not None:
            yield data


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sets, few peers: under a minute")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--out", type=Path, default=Path(), help="where engine.csv and engine.svg go")
    parser.add_argument("--data", type=Path, default=data_folder(), help="the folder of real data")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="these alone; all where it is not given")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--no-growth", action="store_true", help="leave out 100 k to 1 M datapoints")
    options = parser.parse_args()
    console = Console()
    rows: dict[str, list[Any]] = {"points": [], "overhead": [], "tuned": [], "elsewhere": [], "growth": []}
    for data in data_sets(options.data, options.sets, options.quick):
        with console.status(f"{data.name}: building"):
            index = Index.build(data.base, distance_measure=data.measure)
            truth = index.search(data.queries, K, target_recall=1.0).rows
        rows["points"] += our_points(data, index, truth)
        rows["overhead"] += overhead(data, index)
        with console.status(f"{data.name}: 100 configurations made by hand"):
            rows["tuned"] += beside_grid(data, index, truth, options.quick)
        if not options.no_peers:
            rows["points"] += peer_points(data, truth, FEW_SETTINGS if options.quick else SETTINGS, console)
    text = None if options.quick or options.sets else real("lsa128_podcast100k_text", options.data)
    if text is not None:
        exact = Index.build(text.base, engine="exact")
        rows["elsewhere"] = elsewhere(text, exact.search(text.queries, K).rows)
    if not options.no_growth:
        counts = (10_000,) if options.quick else (100_000, 200_000, 1_000_000)
        with console.status("how cost grows"):
            rows["growth"] = [growth(count) for count in counts]
    report(rows, console, options.out)
    if options.json:
        content = {name: [asdict(row) for row in found] for name, found in rows.items()}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


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
        ["data", "batch", "raw", "rows", "with ids", "raw/rows", "raw/ids", "rows − raw", "ids − raw"],
        [
            [
                *(row.data, row.batch, row.raw_us, row.rows_us, row.ids_us),
                *(row.raw_us / row.rows_us, row.raw_us / row.ids_us),
                *(row.rows_us - row.raw_us, row.ids_us - row.raw_us),
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


if __name__ == "__main__":
    began = perf_counter()
    main()
    print(f"{perf_counter() - began:.0f} s")
