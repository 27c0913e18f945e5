"""ScaNN: a k-means tree, asymmetric hashing (AH) of the residuals, and reordering in full precision.

Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", ICML 2020; SOAR: Sun et
al., NeurIPS 2023. Only numbers cross this file: no ids, no pickle, no absolute path on disk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import ceil, isnan, log2, prod, sqrt
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from scann.scann_ops.py import scann_builder, scann_ops_pybind

from earshot.errors import DataLoss, Internal, InvalidArgument, ResourceExhausted

from ..distance import DistanceMeasure, Floats
from ..files import save_array
from .base import QueryParameters, Rows
from .lift import Lift
from .quiet import silence_scann

MIN_DATAPOINTS = 250
_ASSETS = "scann_assets.pbtxt"
_DATASET = "dataset.npy"
_LIFT = "lift.npy"
_SCANN_MEASURE = {
    DistanceMeasure.DOT_PRODUCT_DISTANCE: "dot_product",
    DistanceMeasure.SQUARED_L2_DISTANCE: "squared_l2",
}
_REORDERING_BYTES = {"FLOAT32": 4, "BFLOAT16": 2, "INT8": 1}  # a dimension, finest first
_FEW_DIMENSIONS = 32
_ROWS_A_LEAF = 40


@dataclass(frozen=True, slots=True)
class ScannParameters:
    """What a ScaNN index is built with.

    Attributes:
        leaves: Partitions of the tree. More make each smaller: less to score a leaf, more to choose from.
        dimensions_per_block: Dimensions that share one 4-bit AH code. 2 is ScaNN's usual; more is
            smaller, faster and coarser.
        anisotropic_threshold: Weight of errors along the vector (dot product only; 0.2 is for unit
            length and ScaNN's usual); None quantises for squared error.
        soar_lambda: Spill each vector to a second partition chosen so that the two fail on different
            queries (dot product only); None for no spilling. Costs codes twice.
        reordering: Precision of the vectors that candidates are scored with again, FLOAT32, BFLOAT16 or
            INT8: 4, 2 or 1 bytes a dimension in memory. Distances returned have that precision.
        training_sample_size: Vectors that partitions and codebooks are trained on.
        training_iterations: Rounds of k-means.
        min_partition_size: Smaller partitions are merged away in training.
    """

    leaves: int
    dimensions_per_block: int = 2
    anisotropic_threshold: float | None = 0.2
    soar_lambda: float | None = None
    reordering: str = "FLOAT32"
    training_sample_size: int = 100_000
    training_iterations: int = 12
    min_partition_size: int = 10

    def memory(self, count: int, dimension: int) -> int:
        """Bytes that codes, centroids, lists of rows and vectors to reorder with take."""
        spilled = 1 if self.soar_lambda is None else 2
        code = ceil(ceil(dimension / self.dimensions_per_block) / 2)
        vector = _REORDERING_BYTES[self.reordering] * dimension
        return count * (spilled * (code + 4) + vector) + 4 * self.leaves * dimension


class ScannEngine:
    """One ScaNN searcher."""

    name: ClassVar[str] = "scann"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(_SCANN_MEASURE)
    parameters_type: ClassVar[type[ScannParameters]] = ScannParameters
    rescores = True
    on_device = False
    served_by = name

    def __init__(
        self, searcher: Any, vectors: Floats, parameters: ScannParameters, lift: Lift | None = None
    ) -> None:
        self._searcher = searcher
        self._vectors = vectors
        self._count = len(vectors)
        self._lift = lift
        self.parameters = parameters

    @property
    def leaves(self) -> int:
        """Partitions of the tree."""
        return self.parameters.leaves

    @classmethod
    def choose(
        cls,
        count: int,
        dimension: int,
        measure: DistanceMeasure,
        memory_budget: int | None = None,
        target_recall: float = 0.95,
    ) -> ScannParameters | None:
        """√n leaves, at least 40 vectors each: choosing a leaf costs as much as scoring a vector, so the
        two are balanced. Where more recall is wanted more leaves are looked into, so smaller ones pay: up
        to twice as many at 0.99. Of few dimensions each gets a code of its own. Reordering is in the finest
        precision that fits the budget.

        Measured: 1 dimension a code saves 10 to 40 % of a query's time at recall 0.99 up to 32 dimensions,
        and costs as much from 96; from 250 × 384 up a tree answers 3 times as fast as exact search and
        still reaches 0.99; spilling (SOAR) brings under 15 % either way at 100,000. Of 200,000 × 128, 2√n
        leaves take 1.3 times as long as √n at recall 0.95 and 0.75 times at 0.99, 4√n 1.5 and 0.85.

        Raises:
            InvalidArgument: Not even INT8 fits the budget.
        """
        if count < MIN_DATAPOINTS:
            return None
        finest = ScannParameters(
            leaves=min(ceil(_leaves_for(target_recall) * sqrt(count)), count // _ROWS_A_LEAF),
            dimensions_per_block=1 if dimension <= _FEW_DIMENSIONS else 2,
            anisotropic_threshold=0.2 if measure is DistanceMeasure.DOT_PRODUCT_DISTANCE else None,
            training_sample_size=max(100_000, 100 * ceil(sqrt(count))),
        )
        dimension += measure is DistanceMeasure.SQUARED_L2_DISTANCE  # see `Lift`
        choices = [replace(finest, reordering=precision) for precision in _REORDERING_BYTES]
        for choice in choices:
            if memory_budget is None or choice.memory(count, dimension) <= memory_budget:
                return choice
        raise InvalidArgument(
            f"memory_budget is {memory_budget} bytes; {count} datapoints of {dimension} dimensions "
            f"need at least {choices[-1].memory(count, dimension)} in ScaNN",
            field="memory_budget",
        )

    @classmethod
    def build(
        cls, vectors: Floats, measure: DistanceMeasure, parameters: ScannParameters, *, threads: int
    ) -> Self:
        """Train and build; ScaNN keeps its own copy of the vectors in the reordering's precision.

        Squared L2 becomes a dot product where that is precise (`Lift`) and reordering is in float32.

        ScaNN takes no seed: two builds of the same vectors may differ slightly.

        Raises:
            InvalidArgument: Parameters that ScaNN refuses, such as more leaves than vectors.
        """
        silence_scann()
        count, dimension = vectors.shape
        if not 1 <= parameters.leaves <= count:
            raise InvalidArgument(
                f"leaves is {parameters.leaves}; it must be between 1 and the number of vectors, {count}",
                field="leaves",
            )
        lift, seen = None, vectors
        if measure is DistanceMeasure.SQUARED_L2_DISTANCE and parameters.reordering == "FLOAT32":
            lift = Lift.over(vectors)
        if lift is not None:
            seen, measure = lift.vectors(vectors), DistanceMeasure.DOT_PRODUCT_DISTANCE
        builder = scann_ops_pybind.builder(seen, 10, _SCANN_MEASURE[measure])
        try:
            builder = builder.tree(
                num_leaves=parameters.leaves,
                num_leaves_to_search=max(1, parameters.leaves // 20),
                training_sample_size=parameters.training_sample_size,
                min_partition_size=parameters.min_partition_size,
                training_iterations=parameters.training_iterations,
                soar_lambda=parameters.soar_lambda,
            )
            builder = builder.score_ah(
                min(parameters.dimensions_per_block, dimension),
                anisotropic_quantization_threshold=(
                    np.nan if parameters.anisotropic_threshold is None else parameters.anisotropic_threshold
                ),
                training_sample_size=parameters.training_sample_size,
            )
            builder = builder.reorder(100, quantize=scann_builder.ReorderType[parameters.reordering])
            searcher = builder.set_n_training_threads(threads).build()
        except (ValueError, KeyError, RuntimeError) as error:
            raise InvalidArgument(f"ScaNN refuses {parameters}: {error}", field="engine") from error
        return cls(searcher, vectors, parameters, lift)

    def save(self, folder: Path, vectors_file: Path) -> None:
        """ScaNN's own files. Where it keeps the vectors in float32, they become `vectors_file`, lifted or
        not: the vectors are its first columns either way."""
        try:
            self._searcher.serialize(str(folder), relative_path=True)
        except RuntimeError as error:
            raise ResourceExhausted(
                f"ScaNN could not write to {folder}, free some disk space and try again: {error}"
            ) from error
        for file in sorted(folder.glob("*.npy")):
            _check_complete(file)
        if (folder / _DATASET).exists():
            (folder / _DATASET).replace(vectors_file)
            assets = folder / _ASSETS
            moved = assets.read_text().replace(f'"{_DATASET}"', f'"../{vectors_file.name}"')
            assets.write_text(moved)
        if self._lift is not None:
            save_array(folder / _LIFT, np.array([self._lift.scale]))

    @classmethod
    def load(
        cls,
        folder: Path,
        vectors_file: Path,
        vectors: Floats,
        measure: DistanceMeasure,
        parameters: ScannParameters,
    ) -> Self:
        """Read what `save` wrote, wherever the folder has been moved to.

        Raises:
            DataLoss: A file is missing or not ScaNN's, or names a path outside the index.
        """
        del measure
        silence_scann()
        assets = folder / _ASSETS
        try:
            text = assets.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise DataLoss(f"{assets} cannot be read: {error}") from error
        for path in re.findall(r'asset_path: "([^"]*)"', text):
            if not re.fullmatch(r"\w+\.(npy|pb)", path) and path != f"../{vectors_file.name}":
                raise DataLoss(f"{assets} names {path!r}, which is not a file of this index")
        try:
            # Not scann's load_searcher: that would unpickle any scann_docids.pkl it finds.
            native = scann_ops_pybind.scann_pybind.ScannNumpy(str(folder), text)
        except (RuntimeError, ValueError) as error:
            raise DataLoss(f"ScaNN cannot read {folder}: {error}") from error
        if native.size() != len(vectors):
            raise DataLoss(f"{folder} holds {native.size()} vectors, {vectors_file.name} {len(vectors)}")
        lift = None
        if (folder / _LIFT).exists():
            try:
                (scale,) = np.load(folder / _LIFT, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataLoss(f"{folder / _LIFT} cannot be read: {error}") from error
            lift = Lift(scale)
        return cls(scann_ops_pybind.ScannSearcher(native), vectors, parameters, lift)

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        """See `Engine.search`. ScaNN releases the GIL and may be called from many threads."""
        lift = self._lift
        if lift is None:
            return self._search(queries, k, parameters)
        rows, products = self._search(lift.queries(queries), k, parameters)
        distances, some_are_small = lift.distances(queries, products)
        return lift.mend(queries, self._vectors, rows, distances) if some_are_small else (rows, distances)

    def _search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        # With fewer candidates than k ScaNN silently returns fewer.
        candidates = min(max(parameters.candidates, k), self._count)
        leaves = min(max(parameters.leaves, 1), self.leaves)
        try:
            if len(queries) == 1:
                found, values = self._searcher.search(queries[0], k, candidates, leaves)
                if len(found) == k:
                    return found.astype(np.int64)[np.newaxis], values[np.newaxis]
                return _padded(found, values, k)
            if len(queries) == 0:
                return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
            found, values = self._searcher.search_batched(queries, k, candidates, leaves)
        except RuntimeError as error:
            raise Internal(f"ScaNN failed on a valid query: {error}") from error
        rows = found.astype(np.int64)
        # search_batched pads short rows with row 0 at distance NaN, which any sum would be then.
        if isnan(np.vdot(values, values)):
            rows[np.isnan(values)] = -1
        return rows, values


def _leaves_for(target_recall: float) -> float:
    """As multiples of √n: 1 up to recall 0.95, 2 from 0.99, and between them so that halving what is missed
    has the same effect everywhere."""
    missed = min(max(1 - target_recall, 0.01), 0.05)
    return float((0.05 / missed) ** (1 / log2(5)))


def _padded(found: Any, values: Any, k: int) -> tuple[Rows, Floats]:
    rows = np.full((1, k), -1, np.int64)
    distances = np.full((1, k), np.nan, np.float32)
    rows[0, : len(found)] = found
    distances[0, : len(found)] = values
    return rows, distances


def _check_complete(file: Path) -> None:
    """ScaNN does not report a short write, so a full disk shows only in the file's length."""
    with file.open("rb") as stream:
        try:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            expected = stream.tell() + prod(shape) * dtype.itemsize
        except ValueError:
            expected = -1
    if file.stat().st_size != expected:
        raise ResourceExhausted(f"{file} was not written whole; free some disk space and try again")
