"""What a filter costs: recall and queries a second at each selectivity, beside the same index unfiltered.

`python -m benchmarks.filters [--quick] [--json PATH]`: the synthetic set (2,000 centres from N(0, 1), a point
is a random centre + 0.6 N(0, 1), scaled to length 1), k = 10, batches of 256 queries with one filter. Filters
are independent of the vectors, or against the queries: only the rows farthest from a group of queries pass
("far"), or the nearest ("near"). Times are of the processor, one thread; "first" compiles the filter.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from earshot.index import Index, SearchResult

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

DIMENSION, CENTRES, NOISE = 128, 2000, 0.6
K, BATCH, TARGET = 10, 256, 0.95
INDEPENDENT = (1.0, 0.9, 0.5, 0.25, 0.1, 0.05, 0.03, 0.01, 0.001, 0.0001)
AGAINST = (0.5, 0.1, 0.01, 0.001)
REPEATS = 5
ALONE = 50  # queries asked one by one


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table; `first` and `again` are queries a second, as is `unfiltered` just then."""

    kind: str
    selectivity: float
    passing: int
    path: str
    recall: float
    unfiltered: float
    first: float
    again: float
    first_ratio: float
    again_ratio: float
    one_by_one_us: float


def synthetic(count: int, queries: int, seed: int) -> tuple[Floats, Floats]:
    """Vectors and held-out queries of one mixture."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(CENTRES, DIMENSION)).astype(np.float32)

    def draw(number: int) -> Floats:
        noise = generator.normal(size=(number, DIMENSION)).astype(np.float32)
        points = centres[generator.integers(0, CENTRES, number)] + np.float32(NOISE) * noise
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    return draw(count), draw(queries)


def filters(vectors: Floats, queries: Floats, seed: int) -> dict[tuple[str, float], tuple[Flags, Floats]]:
    """By kind and selectivity: which rows pass, and who asks."""
    generator = np.random.default_rng(seed)
    chosen: dict[tuple[str, float], tuple[Flags, Floats]] = {}
    for share in INDEPENDENT:
        chosen["independent", share] = generator.random(len(vectors)) < share, queries
    anchor = queries[0]
    together = queries[np.argsort(-(queries @ anchor), kind="stable")[:BATCH]]
    order = np.argsort(vectors @ anchor, kind="stable")
    for share in AGAINST:
        rows = int(share * len(vectors))
        for kind, passing in (("far", order[:rows]), ("near", order[len(order) - rows :])):
            chosen[kind, share] = np.isin(np.arange(len(vectors)), passing), together
    return chosen


def measure(vectors: Floats, queries: Floats, seed: int) -> tuple[dict[str, Any], list[Result]]:
    """Builds one index and asks it with all filters."""
    chosen = filters(vectors, queries, seed)
    columns = {f"{kind} {share}": np.where(mask, "yes", "no") for (kind, share), (mask, _) in chosen.items()}
    index = Index.build(vectors, restricts=columns, target_recall=TARGET, threads=1, seed=seed)
    results = [_row(index, vectors, kind, share, *both) for (kind, share), both in chosen.items()]
    about = {
        "count": len(vectors),
        "target_recall": TARGET,
        "unfiltered_recall": index.measure_recall(queries).value,
        "seconds": index.manifest.seconds,
    }
    return about, results


def _row(index: Index, vectors: Floats, kind: str, share: float, mask: Flags, asked: Floats) -> Result:
    where = {f"{kind} {share}": "yes"}
    batches = [asked[start : start + BATCH] for start in range(0, len(asked), BATCH)]
    first, again, unfiltered = np.inf, np.inf, np.inf
    found: list[SearchResult] = []
    for repeat in range(REPEATS):  # in turn, so that all see the same machine
        # Another token that nothing has: the same rows pass, and the filter is new.
        unseen = {f"{kind} {share}": ["yes", f"never {repeat}"]}
        spent, found = _timed(index, batches, where=unseen)
        first = min(first, spent)
        again = min(again, _timed(index, batches, where=where)[0])
        unfiltered = min(unfiltered, _timed(index, batches)[0])
    alone, _ = _timed(index, list(asked[:ALONE]), where=where)
    plan = found[0].plan
    assert plan is not None
    return Result(
        kind=kind,
        selectivity=share,
        passing=plan.passing,
        path=str(plan.path),
        recall=_recall(found, vectors, asked, mask),
        unfiltered=round(len(asked) / unfiltered),
        first=round(len(asked) / first),
        again=round(len(asked) / again),
        first_ratio=round(unfiltered / first, 3),
        again_ratio=round(unfiltered / again, 3),
        one_by_one_us=round(alone / len(asked[:ALONE]) * 1e6, 1),
    )


def _recall(found: list[SearchResult], vectors: Floats, asked: Floats, mask: Flags) -> float:
    distances = np.concatenate([result.distances for result in found])
    width = min(K, int(mask.sum()))
    assert distances.shape[1] == width
    if not width:
        return 1.0
    hits = 0
    for start in range(0, len(asked), BATCH):
        scores = asked[start : start + BATCH] @ vectors[mask].T
        least = np.partition(scores, scores.shape[1] - width, axis=1)[:, scores.shape[1] - width]
        hits += int((distances[start : start + BATCH] >= least[:, np.newaxis] - 1e-6).sum())
    return round(hits / (len(asked) * width), 4)


def _timed(index: Index, batches: list[Floats], **options: Any) -> tuple[float, list[SearchResult]]:
    began = process_time()
    result = [index.search(batch, K, **options) for batch in batches]
    return process_time() - began, result


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 vectors instead of 200,000")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    count, questions = (20_000, 256) if arguments.quick else (200_000, 1024)
    about, results = measure(*synthetic(count, questions, seed=1), seed=2)
    table = Table(title=f"{count:,} × {DIMENSION}, k = {K}, target recall {TARGET}; ratios to unfiltered")
    for column in (
        "filter",
        "passing",
        "path",
        "recall",
        "first",
        "again",
        "first ×",
        "again ×",
        "alone, µs",
    ):
        table.add_column(column, justify="left" if column in {"filter", "path"} else "right")
    for row in results:
        table.add_row(
            f"{row.kind} {row.selectivity:.2%}",
            f"{row.passing:,}",
            row.path,
            f"{row.recall:.4f}",
            f"{row.first:,}",
            f"{row.again:,}",
            f"{row.first_ratio:.2f}",
            f"{row.again_ratio:.2f}",
            f"{row.one_by_one_us:,.0f}",
        )
    console = Console(width=120)
    console.print(table)
    console.print(about)
    if arguments.json:
        figures = {**about, "results": [asdict(row) for row in results]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
