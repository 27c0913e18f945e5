"""What one search did: its plan, each call of an engine with its time, and how much of the truth it found.

An explained search is an ordinary one: the engines of the shard are replaced by ones that keep a record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from .engines import QueryParameters
from .filters import Plan
from .manifest import Manifest
from .result import SearchResult, hits_of
from .shard import Shard
from .tuning import OperatingPoint, choose


@dataclass(frozen=True, slots=True)
class Step:
    """One call.

    Attributes:
        name: The engine, "filtered" for a filtered search, "rest" for what is left: checks and merging.
        neighbors: Asked for; more than k where crowding or a filter wanted a wider net.
        leaves: Visited, None where the call has no say in it.
        candidates: Scored again in full, None likewise.
        seconds: It took.
    """

    name: str
    neighbors: int
    leaves: int | None
    candidates: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """See `Index.explain`.

    Attributes:
        version: The index's, empty where it has not been published.
        engine: What served it: its name for most.
        leaves: Partitions it has.
        datapoints: In the index.
        k: Neighbors wanted.
        target_recall: Asked for; None where parameters were named instead.
        point: The operating point that answered, with the recall measured for it; None where parameters
            were named, or where a filter has a plan of its own.
        tuned_on: What that recall was measured with.
        crowding: At most so many of a tag.
        rounds: Searches that crowding took, each with a net twice as wide; 1 without it.
        filter: What the filter's planner chose; its first round where there is crowding.
        steps: Every call, in order.
        seconds: All of it, without ids and metadata.
        found: Neighbors as near as the true ones.
        true: Neighbors that exact search finds.
        result: The answer.
    """

    version: str
    engine: str
    leaves: int
    datapoints: int
    k: int
    target_recall: float | None
    point: OperatingPoint | None
    tuned_on: str
    crowding: int | None
    rounds: int
    filter: Plan | None
    steps: list[Step]
    seconds: float
    found: int
    true: int
    result: SearchResult


def explain(
    manifest: Manifest,
    shard: Shard,
    search: Callable[..., SearchResult],
    query: Any,
    k: int,
    options: dict[str, Any],
) -> Explanation:
    """See `Index.explain`; `search` is that of an index over a shard."""
    steps: list[Step] = []
    began = perf_counter()
    result = search(recorded(shard, steps), query, k, **options)
    seconds = perf_counter() - began
    steps.append(Step("rest", k, None, None, seconds - sum(step.seconds for step in steps)))
    parameters = {"fraction_leaf_nodes_to_search", "approximate_neighbor_count", "target_recall"}
    given = {name: options.get(name) for name in parameters if options.get(name) is not None}
    tuning = manifest.tuning
    target = given.get("target_recall", None if given else tuning.target_recall)
    exactly = {name: value for name, value in options.items() if name not in parameters}
    truth = search(shard, query, k, target_recall=1.0, **exactly)
    return Explanation(
        version=manifest.version,
        engine=shard.engine.served_by,
        leaves=shard.engine.leaves,
        datapoints=len(shard),
        k=k,
        target_recall=target,
        point=None if target is None or result.plan is not None else choose(tuning.points, k, target),
        tuned_on=tuning.tuned_on,
        crowding=options.get("crowding"),
        rounds=len(steps) - 1 if options.get("crowding") is not None else 1,
        filter=result.plan,
        steps=steps,
        seconds=seconds,
        found=int(hits_of(result, truth, query).sum()),
        true=int(truth.counts.sum()),
        result=result,
    )


def recorded(shard: Shard, steps: list[Step]) -> Shard:
    """The same shard, which writes down every search in `steps`."""
    return shard.watched(lambda inner, name: _Recorded(inner, name, steps))


class _Recorded:
    """Anything that searches, by `search` or, as fresh rows, by `closer`; everything else passes through."""

    def __init__(self, inner: Any, name: str, steps: list[Step]) -> None:
        self._inner, self._name, self._steps = inner, name, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def search(self, queries: Any, k: int, *how: Any) -> Any:
        return self._noted(self._inner.search, queries, k, *how)

    def closer(self, queries: Any, k: int, *how: Any) -> Any:
        return self._noted(self._inner.closer, queries, k, *how)

    def _noted(self, search: Any, queries: Any, k: int, *how: Any) -> Any:
        began = perf_counter()
        found = search(queries, k, *how)
        seconds = perf_counter() - began
        given = next((entry for entry in how if isinstance(entry, QueryParameters)), None)
        leaves, candidates = (given.leaves, given.candidates) if given else (None, None)
        if leaves is not None:
            leaves = min(leaves, self._inner.leaves)
        self._steps.append(Step(self._name, k, leaves, candidates, seconds))
        return found
