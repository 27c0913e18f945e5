"""ScaNN itself, without our layers: from the files that an index leaves on disk, or built by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scann.scann_ops.py import scann_builder, scann_ops_pybind

from benchmarks.datasets import Dataset, Floats
from earshot.index import Index, ScannParameters
from earshot.index.engines.lift import Lift


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


@contextmanager
def raw_scann(index: Index) -> Iterator[Raw]:
    """The searcher within an index.

    Raises:
        ValueError: The index has several shards, or is not ScaNN's.
    """
    manifest = index.manifest
    if manifest.shards != 1 or manifest.engine.name != "scann":
        raise ValueError(f"{index} of {manifest.shards} shards holds no single searcher of ScaNN's")
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index")
        engine = Path(folder) / "index" / "shard-00000" / "engine"
        assets = (engine / "scann_assets.pbtxt").read_text()
        native = scann_ops_pybind.scann_pybind.ScannNumpy(str(engine), assets)
        searcher = scann_ops_pybind.ScannSearcher(native)
        lifted = (engine / "lift.npy").exists()
        prepared = Lift(*np.load(engine / "lift.npy")).queries if lifted else np.asarray
        leaves = manifest.engine.parameters["leaves"]
        named = scann_ops_pybind.ScannSearcher(native, [str(row) for row in range(manifest.count)])
        yield Raw(searcher.search, searcher.search_batched, leaves, prepared, named)


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
