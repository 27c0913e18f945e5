"""The tuner beside hand-made configurations of ScaNN: 5 builds × 20 searches, on queries that neither saw."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.datasets import Dataset, Rows, recall_of
from benchmarks.raw import Raw, raw_build
from benchmarks.timing import Action, K, Point, fastest, in_batches
from earshot.index import Index, ScannParameters

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
class Tuned:
    """The tuner's point beside the fastest of the hand-made grid that reached the target on these queries."""

    data: str
    target: float
    recall: float
    us: float
    grid_setting: str
    grid_recall: float
    grid_us: float


def asked(index: Index, data: Dataset, target: float) -> Rows:
    """What all queries find at a target recall."""
    return in_batches(lambda block: index.search(block, K, target_recall=target).rows, data.queries)


def beside_grid(
    data: Dataset, indexes: dict[float, Index], raw: Raw, truth: Rows, quick: bool
) -> list[Tuned]:
    """100 hand-made configurations: 5 builds × 20 searches, or quickly ours, `raw`, × 100.

    Then a second look at the fastest of each target, in turns with the tuner's in the index built for it.
    """
    index = next(iter(indexes.values()))
    seen: list[tuple[Point, Action]] = []
    shape = (10, 10) if quick else (len(GRID_LEAVES), len(GRID_CANDIDATES))
    shares = np.geomspace(GRID_LEAVES[0], GRID_LEAVES[-1], shape[0])
    counts = np.geomspace(GRID_CANDIDATES[0], GRID_CANDIDATES[-1], shape[1]).round().astype(int)
    for name, changes in list(GRID_BUILDS.items())[: 1 if quick else None]:
        made = _hand_made(data, index, changes) if changes else raw
        for visited in sorted({max(1, round(share * made.leaves)) for share in shares}):
            for candidates in counts.tolist():
                ask = partial(_hand_asked, made, data, candidates, visited)
                recall = recall_of(ask(), truth)
                us = fastest({"": ask}, len(data.queries), 2)[""]
                point = Point(data.name, "grid", f"{name}, {visited}/{candidates}", recall, us)
                seen.append((point, ask))
    results = []
    for target, built in indexes.items():
        holding = sorted((pair for pair in seen if pair[0].recall >= target), key=lambda pair: pair[0].us)[:3]
        ours = partial(asked, built, data, target)
        recall = recall_of(ours(), truth)
        actions: dict[str, Action] = {"ours": ours, **{pair[0].setting: pair[1] for pair in holding}}
        best = fastest(actions, len(data.queries))
        us = best.pop("ours")
        if best:
            setting = min(best, key=lambda name: best[name])
            grid_recall = next(pair[0].recall for pair in holding if pair[0].setting == setting)
            results.append(Tuned(data.name, target, recall, us, setting, grid_recall, best[setting]))
    return results


def _hand_asked(made: Raw, data: Dataset, candidates: int, visited: int) -> Rows:
    queries = made.prepared(data.queries)
    found = in_batches(lambda block: made.search_batched(block, K, candidates, visited)[0], queries)
    return found.astype(np.int64)


def _hand_made(data: Dataset, index: Index, changes: dict[str, Any]) -> Raw:
    if data.measure != "DOT_PRODUCT_DISTANCE" and "soar_lambda" in changes:
        changes = {"leaves": 0.5}
    parameters = ScannParameters(**index.manifest.engine.parameters)
    if "leaves" in changes:
        changes = {"leaves": round(parameters.leaves * changes["leaves"])}
    return raw_build(data, replace(parameters, **changes), len(os.sched_getaffinity(0)))
