"""From vectors and what belongs to them to a shard and its manifest: train, tune, calibrate, write down.

What `Index.build` and `Index.tuned` do; their arguments are explained there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from time import perf_counter
from typing import Any

import msgspec

from .attributes import Attributes
from .building import MIN_DATAPOINTS_A_SHARD, build_parts
from .distance import DistanceMeasure, FeatureNorm, choice, is_scaled, seen_by_engines
from .engines import select
from .filters import collect
from .ids import Ids
from .manifest import EngineEntry, Manifest
from .planner import check_recall, check_whole
from .shard import Shard
from .sharded import combine, filter_entry, in_one_thread, shard_of, with_filters
from .tuning import Progress
from .vectors import as_tuning_queries, as_vectors

MAX_SHARDS = 1024


def build(
    vectors: Any,
    ids: Iterable[str] | None,
    *,
    crowding_tags: Iterable[str | None] | None,
    metadata: Iterable[Mapping[str, Any] | None] | None,
    restricts: Any,
    shards: int,
    distance_measure: str,
    feature_norm: str,
    engine: Any,
    target_recall: float,
    tuning_queries: Any,
    memory_budget: int | None,
    seed: int,
    threads: int | None,
    progress: Progress | None,
) -> tuple[Shard, Manifest]:
    """See `Index.build`."""
    measure = choice(DistanceMeasure, distance_measure, field="distance_measure")
    norm = choice(FeatureNorm, feature_norm, field="feature_norm")
    check_recall(target_recall)
    if memory_budget is not None:
        check_whole("memory_budget", memory_budget, 1, 1 << 62)
    matrix = as_vectors(vectors)
    count, dimension = matrix.shape
    collected = None if restricts is None else collect(restricts, count)
    scaled, seen_measure = is_scaled(measure, norm), seen_by_engines(measure)
    questions = as_tuning_queries(tuning_queries, dimension, scaled=scaled)
    check_whole("shards", shards, 1, MAX_SHARDS)
    split = shards if count >= shards * MIN_DATAPOINTS_A_SHARD else 1
    budget = None if memory_budget is None else memory_budget // split
    kind, parameters, reason = select(engine, count // split, dimension, seen_measure, budget, target_recall)
    if split < shards:
        reason += f"; {count} datapoints are too few for {shards} shards"
    report = progress or _silent
    began = perf_counter()
    named = Ids.build(ids, count)
    numbers = shard_of(named.by_row(), split)
    parts = build_parts(
        matrix,
        named,
        Attributes.build(count, crowding_tags, metadata),
        numbers,
        scaled=scaled,
        measure=seen_measure,
        engine=kind,
        parameters=parameters,
        threads=threads or len(os.sched_getaffinity(0)),
        progress=partial(report, "build"),
    )
    shard = combine(parts, seen_measure)
    built = perf_counter()
    if shard.engine.served_by != kind.name:
        reason += f"; built on {shard.engine.served_by}"
    tuning = in_one_thread(shard).tune(questions, seen_measure, target_recall, seed, report)
    tuned = perf_counter()
    seconds = {"build": round(built - began, 3), "tune": round(tuned - built, 3)}
    if collected is not None:
        report("filters", 0, 4)
        shard = with_filters(
            shard, collected, numbers, seen_measure, queries=questions, seed=seed, progress=report
        )
        seconds["filters"] = round(perf_counter() - tuned, 3)
        report("filters", 4, 4)
    return shard, Manifest(
        count=count,
        dimension=dimension,
        distance_measure=measure,
        feature_norm=norm,
        engine=EngineEntry(kind.name, asdict(parameters), reason),
        shards=split,
        tuning=tuning,
        filters=None if shard.filters is None else filter_entry(shard.filters),
        seconds=seconds,
    )


def retuned(
    shard: Shard,
    manifest: Manifest,
    queries: Any,
    *,
    target_recall: float | None,
    seed: int,
    progress: Progress | None,
) -> tuple[Shard, Manifest]:
    """See `Index.tuned`."""
    report = progress or _silent
    target = manifest.tuning.target_recall if target_recall is None else target_recall
    check_recall(target)
    measure = manifest.distance_measure
    scaled = is_scaled(measure, manifest.feature_norm)
    questions = as_tuning_queries(queries, manifest.dimension, scaled=scaled)
    began = perf_counter()
    tuning = in_one_thread(shard).tune(questions, seen_by_engines(measure), target, seed, report)
    seconds = {**manifest.seconds, "tune": round(perf_counter() - began, 3)}
    entry = manifest.filters
    if shard.filters is not None:
        report("filters", 0, 4)
        filters = shard.filters.tuned(questions, seed, report)
        shard, entry = replace(shard, filters=filters), filter_entry(filters)
        report("filters", 4, 4)
    return shard, msgspec.structs.replace(manifest, tuning=tuning, filters=entry, seconds=seconds)


def _silent(stage: str, done: int, total: int) -> None:
    del stage, done, total
