"""The index engine beside raw ScaNN, a hand-made grid and its peers: recall, queries a second, build, memory.

`python -m benchmarks.engine [--quick] [--json PATH] [--out FOLDER] [--data FOLDER]` prints tables and writes
engine.csv and engine.svg. `--sets`, `--parts`, `--peers` and `--counts` choose what a run measures; `--read`
puts runs together. k = 10; queries are not those of tuning. Times are of the processor on one thread, the
best of several interleaved rounds, so that other work on the machine matters least.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when the libraries are imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.datasets import Dataset, Floats, Rows, data_folder, real, recall_of, synthetic
from benchmarks.engine_report import report
from benchmarks.grid import Tuned, asked, beside_grid
from benchmarks.growth import Growth, growth
from benchmarks.peers import PEERS
from benchmarks.raw import Raw, raw_of_own_measure, raw_scann
from benchmarks.timing import ROUNDS, TARGETS, Action, K, Point, fastest, in_batches
from earshot.index import Index

SETS = ("sift10k", "glove_twitter25_12k", "lsa128_podcast100k", "synthetic")
SYNTHETIC = 200_000
SETTINGS = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
FEW_SETTINGS = (16, 32, 64, 128)
SLOWEST_US = 2000
PARTS = ("ours", "overhead", "grid", "peers", "elsewhere", "growth")
COUNTS = (100_000, 200_000, 1_000_000)
A_PASS = 500  # queries between two looks at the clock


@dataclass(frozen=True, slots=True)
class Overhead:
    """Ours beside raw ScaNN with the same parameters, µs a query.

    `named_us` is ScaNN with ids of its own; `own_us` ScaNN as its own builder makes it for squared L2, which
    we turn into a dot product, and `raw_us` for other measures.
    """

    data: str
    batch: int
    raw_us: float
    rows_us: float
    ids_us: float
    named_us: float
    own_us: float


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Recall that text queries get from tuning on base vectors, and on text queries."""

    target: float
    promised: float
    blind: float
    blind_us: float
    tuned: float
    tuned_us: float


ROWS = {"points": Point, "overhead": Overhead, "tuned": Tuned, "elsewhere": Elsewhere, "growth": Growth}


def our_points(data: Dataset, index: Index, truth: Rows) -> list[Point]:
    """Every tuned operating point for k = 10, as unseen queries see it."""
    built_for = index.manifest.tuning.target_recall
    points = []
    for point in index.manifest.tuning.points:
        if point.k != K or not point.leaves:
            continue
        options = {
            "fraction_leaf_nodes_to_search": point.leaves / index.manifest.engine.parameters["leaves"],
            "approximate_neighbor_count": point.candidates,
        }

        def ask(options: dict[str, Any] = options) -> Rows:
            return in_batches(lambda block: index.search(block, K, **options).rows, data.queries)

        recall = recall_of(ask(), truth)
        us = fastest({"": ask}, len(data.queries))[""]
        setting = f"built for {built_for}, {point.leaves}/{point.candidates}"
        points.append(Point(data.name, "Earshot", setting, recall, us))
    return points


def peer_points(
    data: Dataset, truth: Rows, settings: Iterable[int], names: Iterable[str], console: Console
) -> list[Point]:
    """These peers at settings from coarse to nearly exact."""
    points: list[Point] = []
    for name in names:
        build = PEERS[name]
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


def overhead(data: Dataset, index: Index, raw: Raw, batches: Iterable[int] = (1, 64, 256)) -> list[Overhead]:
    """Our layers over ScaNN's own calls, with the default operating point."""
    point = index.manifest.tuning.chosen
    results = []
    prepared = raw.prepared(data.queries)
    own = raw_of_own_measure(index, data, raw)
    for batch in batches:
        # A pass short enough to fall between two of the machine's other duties, many times.
        starts = range(0, max(batch, min(A_PASS, len(data.queries)) - batch + 1), batch)
        whole = [start for start in starts if start + batch <= len(data.queries)]
        blocks, raw_blocks = (
            [queries[start : start + batch] for start in whole] for queries in (data.queries, prepared)
        )

        def ask(block: Floats, searcher: Any) -> Any:
            if len(block) == 1:
                return searcher.search(block[0], K, point.candidates, point.leaves)
            return searcher.search_batched(block, K, point.candidates, point.leaves)

        ways: dict[str, Action] = {
            "raw": partial(_each, partial(ask, searcher=raw), raw_blocks),
            "rows": partial(_each, lambda block: index.search(block, K), blocks),
        }
        # Apart from those, as what follows a way that makes many strings takes longer.
        more: dict[str, Action] = {
            "named": partial(_each, partial(ask, searcher=raw.named), raw_blocks),
            "ids": partial(_each, lambda block: index.search(block, K).ids, blocks),
        }
        if own is not raw:
            more["own"] = partial(_each, partial(ask, searcher=own), blocks)
        each = batch * len(blocks)
        best = fastest(ways, each, 30 * ROUNDS) | fastest(more, each, 30 * ROUNDS)
        best.setdefault("own", best["raw"])
        columns = ("raw", "rows", "ids", "named", "own")
        results.append(Overhead(data.name, batch, *(best[way] for way in columns)))
    return results


def _each(way: Callable[[Floats], Any], blocks: list[Floats]) -> None:
    for block in blocks:
        way(block)


def elsewhere(data: Dataset, truth: Rows) -> list[Elsewhere]:
    """Text queries asked of an index tuned on base vectors, and of one tuned on other text queries."""
    blind = Index.build(data.base, distance_measure=data.measure)
    tuned = Index.build(data.base, distance_measure=data.measure, tuning_queries=data.tuning_queries)
    results = []
    for target in TARGETS:
        actions: dict[str, Action] = {
            name: partial(asked, index, data, target) for name, index in (("blind", blind), ("tuned", tuned))
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


def data_sets(folder: Path, names: Iterable[str], quick: bool) -> Iterator[Dataset]:
    """Those named, as far as they are there."""
    if quick:
        yield real("sift10k", folder) or synthetic(10_000)
        return
    for name in names:
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
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS, help="these alone, or none")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="these alone")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="these alone")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, help="of datapoints, for growth")
    parser.add_argument("--read", nargs="+", type=Path, help="measure nothing: report what --json wrote")
    options = parser.parse_args()
    console = Console(width=120)
    if options.read:
        runs = [json.loads(path.read_text()) for path in options.read]
        rows = {name: [kind(**row) for run in runs for row in run[name]] for name, kind in ROWS.items()}
    else:
        rows = measured(options, console)
    if options.json:
        content = {name: [asdict(row) for row in found] for name, found in rows.items()}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    report(rows, console, options.out)


def measured(options: argparse.Namespace, console: Console) -> dict[str, list[Any]]:
    """The rows of each table; see `ROWS`."""
    rows: dict[str, list[Any]] = {name: [] for name in ROWS}
    parts = set(options.parts)
    of_one_set = parts - {"elsewhere", "growth"}
    for data in data_sets(options.data, options.sets, options.quick) if of_one_set else ():
        with console.status(f"{data.name}: building"):
            targets = TARGETS[1:] if {"ours", "grid"} & parts else TARGETS[1:2]
            how: dict[str, Any] = {
                "distance_measure": data.measure,
                "engine": "auto" if of_one_set - {"peers"} else "exact",
            }
            indexes = {target: Index.build(data.base, target_recall=target, **how) for target in targets}
            index = indexes[TARGETS[1]]
            truth = index.search(data.queries, K, target_recall=1.0).rows
        for built in indexes.values() if "ours" in parts else ():
            rows["points"] += our_points(data, built, truth)
        if {"overhead", "grid"} & parts:
            raw = raw_scann(index)
            with console.status(f"{data.name}: 100 configurations made by hand"):
                if "overhead" in parts:
                    rows["overhead"] += overhead(data, index, raw)
                if "grid" in parts:
                    rows["tuned"] += beside_grid(data, indexes, raw, truth, options.quick)
        if "peers" in parts:
            settings = FEW_SETTINGS if options.quick else SETTINGS
            rows["points"] += peer_points(data, truth, settings, options.peers, console)
    text = None if options.quick else real("lsa128_podcast100k_text", options.data)
    if text is not None and "elsewhere" in parts and "lsa128_podcast100k" in options.sets:
        exact = Index.build(text.base, engine="exact")
        rows["elsewhere"] = elsewhere(text, exact.search(text.queries, K).rows)
    if "growth" in parts:
        with console.status("how cost grows"):
            rows["growth"] = [growth(count) for count in ((10_000,) if options.quick else options.counts)]
    return rows


if __name__ == "__main__":
    began = perf_counter()
    main()
    print(f"{perf_counter() - began:.0f} s")
