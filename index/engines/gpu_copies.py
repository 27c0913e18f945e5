"""How an index gets onto GPUs: memory looked at first, then one copy a replica, or one in parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from earshot.errors import EarshotError, Internal, InvalidArgument, ResourceExhausted

from ..distance import Floats
from .faiss_module import omp_threads
from .gpu_parameters import FaissGpuParameters, Layout
from .gpus import Gpus

_ROWS_AT_ONCE = 1 << 18
_TRAINING_A_LEAF = 256
_LEAST_TRAINING = 1 << 16  # 256 centroids a code want 256 vectors each


@dataclass(frozen=True, eq=False)
class Copy:
    """One index that one thread may search at a time.

    Attributes:
        base: What lies on the GPU.
        whole: What is searched: `base`, or `base` and the refinement after it.
        refinement: The CPU index that scores candidates again, or None.
        owner: Keeps alive what Faiss reads the refinement from.
    """

    base: Any
    whole: Any
    refinement: Any = None
    owner: Any = None


def check_memory(gpus: Gpus, devices: list[int], parameters: FaissGpuParameters, vectors: Floats) -> None:
    """Raises ResourceExhausted where the index will not fit: nothing has been allocated then."""
    needed = parameters.memory(*vectors.shape)
    if not parameters.replicate:
        needed = -(-needed // len(devices))
    for device in devices:
        memory = gpus.memory(device)
        if needed + memory.scratch > memory.free:
            raise ResourceExhausted(
                f"{parameters.factory} of {len(vectors)} × {vectors.shape[1]} needs "
                f"{needed + memory.scratch} bytes on GPU {device}, where {memory.free} of {memory.total} are "
                "free: use more GPUs, fewer bytes a vector (FLOAT16, SQ8 or PQ), or free some"
            )


def flat_copies(
    gpus: Gpus, devices: list[int], parameters: FaissGpuParameters, vectors: Floats, metric: int
) -> list[Copy]:
    """Vectors go from where they lie to the GPU, without a copy of theirs on the way.

    Whole ones in float16 are searched by our own kernels where they run: Faiss writes every score to memory,
    which takes several times as long as computing it (`fused_top_k`). Faiss merges what lies in parts.
    """
    half = parameters.precision == "FLOAT16"

    def filled(device: int, rows: Floats) -> Any:
        index = gpus.flat(device, vectors.shape[1], metric, half=half)
        index.add(rows)
        return index

    def whole(device: int) -> Any:
        fused = gpus.fused(device, vectors, metric) if half else None
        return filled(device, vectors) if fused is None else fused

    if parameters.replicate or len(devices) == 1:
        return [Copy(index, index) for index in map(whole, devices)]
    shards = gpus.faiss.IndexShards(vectors.shape[1], True, True)  # threaded, rows one after the other
    for device, rows in zip(devices, np.array_split(vectors, len(devices)), strict=True):
        if len(rows):
            shards.add_shard(filled(device, rows))
    return [Copy(shards, shards)]


def moved_copies(gpus: Gpus, devices: list[int], parameters: FaissGpuParameters, index: Any) -> list[Copy]:
    """Copies of a CPU index, trained or full."""
    together = [[device] for device in devices] if parameters.replicate else [devices]
    if parameters.layout.degree:
        together = together if parameters.replicate else [devices[:1]]  # a graph is not split
    return [Copy(moved, moved) for moved in (gpus.moved(index, some) for some in together)]


def built_copies(
    gpus: Gpus, devices: list[int], parameters: FaissGpuParameters, vectors: Floats, metric: int
) -> list[Copy]:
    """Trained and filled on the GPUs."""
    layout = parameters.layout
    if layout.degree:
        graph = gpus.cagra(devices[0], vectors, metric, layout.degree)
        if not parameters.replicate or len(devices) == 1:
            return [Copy(graph, graph)]
        return [Copy(graph, graph), *moved_copies(gpus, devices[1:], parameters, gpus.to_cpu(graph))]
    index = gpus.faiss.index_factory(vectors.shape[1], layout.core, metric)
    # Of k-means' distances the GPU computes all; Faiss takes any index that finds the nearest centroid.
    nearest = gpus.flat(devices[0], vectors.shape[1], gpus.faiss.METRIC_L2, half=False)
    index.clustering_index = nearest
    index.train(training_sample(vectors, layout))
    index.clustering_index = None
    copies = moved_copies(gpus, devices, parameters, index)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        for copy in copies:
            copy.base.add(vectors[start : start + _ROWS_AT_ONCE])
    return refined(gpus.faiss, copies, refinement(gpus.faiss, layout, vectors, metric))


def built_on_cpu(faiss: Any, vectors: Floats, metric: int, layout: Layout, threads: int) -> Any:
    """The same index where there is no GPU."""
    dimension = vectors.shape[1]
    with omp_threads(faiss, threads):
        if layout.degree:
            index = faiss.IndexHNSWCagra(dimension, max(1, layout.degree // 2), metric)
        else:
            index = faiss.index_factory(dimension, layout.core, metric)
            index.train(training_sample(vectors, layout))
        index.add(vectors)
        again = refinement(faiss, layout, vectors, metric)
        return refined(faiss, [Copy(index, index)], again)[0].whole


def refinement(faiss: Any, layout: Layout, vectors: Floats, metric: int) -> Any:
    """The CPU index that scores candidates again, or None."""
    if not layout.refinement:
        return None
    if layout.refinement == "RFlat":
        index = faiss.IndexFlat(vectors.shape[1], metric)
    else:
        index = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, metric)
        index.train(vectors[:1])
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        index.add(vectors[start : start + _ROWS_AT_ONCE])
    return index


def refined(faiss: Any, copies: list[Copy], again: Any, owner: Any = None) -> list[Copy]:
    """The same copies with a refinement after them, which they share; unchanged where it is None."""
    if again is None:
        return copies
    return [
        Copy(copy.base, faiss.IndexRefine(copy.base, again), again, (copy.owner, owner)) for copy in copies
    ]


def training_sample(vectors: Floats, layout: Layout) -> Floats:
    """As many vectors as k-means makes use of, float32 [m, dimension]."""
    size = max(_TRAINING_A_LEAF * layout.leaves, _LEAST_TRAINING)
    if size >= len(vectors):
        return np.ascontiguousarray(vectors)
    rows = np.random.default_rng(0).choice(len(vectors), size, replace=False)
    return np.ascontiguousarray(vectors[np.sort(rows)])


def explained(error: Exception, what: str, *, on_query: bool = False) -> EarshotError:
    """Faiss's error as one of ours."""
    reason = str(error)
    if "out of memory" in reason or "cudaMalloc" in reason:
        return ResourceExhausted(f"{what}: the GPU's memory is full; free some, or use fewer bytes a vector")
    if on_query:
        return Internal(f"{what}: {reason}")
    return InvalidArgument(f"{what}: {reason}", field="engine")
