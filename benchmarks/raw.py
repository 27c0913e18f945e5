"""ScaNN itself, without our layers: the searcher within an index, or one built by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scann.scann_ops.py import scann_builder, scann_ops_pybind

from benchmarks.datasets import Dataset, Floats
from earshot.index import Index, ScannParameters
from earshot.index.engines import ScannEngine


@dataclass(frozen=True, slots=True)
class Raw:
    """A searcher of ScaNN's own.

    Attributes:
        search: (query, k, candidates, leaves) → rows, distances.
        search_batched: The same of many queries.
        leaves: It has.
        prepared: Queries as it takes them.
        named: The same searcher with ids of its own (`docids`); None where built by hand.
    """

    search: Callable[..., Any]
    search_batched: Callable[..., Any]
    leaves: int
    prepared: Callable[[Floats], Floats] = np.asarray
    named: Any = None


def raw_scann(index: Index) -> Raw:
    """The searcher within an index, itself: another with the same files lies elsewhere in memory, which alone
    makes a tenth.

    Raises:
        ValueError: The index has several shards, or is not ScaNN's.
    """
    engine = index._shard.engine
    if not isinstance(engine, ScannEngine):
        raise ValueError(f"{index} holds no single searcher of ScaNN's")
    searcher = engine._searcher
    named = scann_ops_pybind.ScannSearcher(searcher.searcher, [str(row) for row in range(len(index))])
    prepared = np.asarray if engine._lift is None else engine._lift.queries
    return Raw(searcher.search, searcher.search_batched, engine.leaves, prepared, named)


def raw_of_own_measure(index: Index, data: Dataset, raw: Raw) -> Raw:
    """`raw`; where the index turns its measure into another, ScaNN built for it with the same parameters."""
    engine = index._shard.engine
    if not isinstance(engine, ScannEngine) or engine._lift is None:
        return raw
    return raw_build(data, engine.parameters, len(os.sched_getaffinity(0)))


def raw_build(data: Dataset, parameters: ScannParameters, threads: int) -> Raw:
    """Build with ScaNN's own builder, as its documentation shows."""
    measure = "squared_l2" if data.measure == "SQUARED_L2_DISTANCE" else "dot_product"
    anisotropic = parameters.anisotropic_threshold
    builder = scann_ops_pybind.builder(data.base, 10, measure)
    builder = builder.tree(
        num_leaves=parameters.leaves,
        num_leaves_to_search=max(1, parameters.leaves // 20),
        training_sample_size=parameters.training_sample_size,
        min_partition_size=parameters.min_partition_size,
        training_iterations=parameters.training_iterations,
        soar_lambda=parameters.soar_lambda,
    )
    builder = builder.score_ah(
        parameters.dimensions_per_block,
        anisotropic_quantization_threshold=np.nan if anisotropic is None else anisotropic,
        training_sample_size=parameters.training_sample_size,
    )
    builder = builder.reorder(100, quantize=scann_builder.ReorderType[parameters.reordering])
    searcher = builder.set_n_training_threads(threads).build()
    return Raw(searcher.search, searcher.search_batched, parameters.leaves)
