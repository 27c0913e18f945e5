"""Faiss on NVIDIA GPUs, in the optional package faiss-gpu; on disk it is what the CPU reads as well.

Johnson, Douze and Jégou, "Billion-scale similarity search with GPUs", 2017; CAGRA: Ootomo et al., ICDE 2024.
Without a GPU the same index is searched on the CPU, and the log, the manifest and `served_by` say so.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Self

import numpy as np

from earshot.errors import InvalidArgument, ResourceExhausted

from ..distance import DistanceMeasure, Floats
from .base import Engine, QueryParameters, Rows
from .exact import ExactEngine
from .faiss_cpu import FaissEngine, FaissParameters
from .faiss_module import METRICS, faiss_module, layers, omp_threads, read, write
from .gpu_copies import (
    Copy,
    built_copies,
    built_on_cpu,
    check_memory,
    explained,
    flat_copies,
    moved_copies,
    refined,
)
from .gpu_parameters import FaissGpuParameters, Layout
from .gpus import WIDEST, Gpus, check_count, find_gpus

_log = logging.getLogger(__name__)
_MIN_DATAPOINTS = 1000  # fewer are searched on the CPU before a query has reached a GPU
_WIDEST_GRAPH_SEARCH = 512
_QUERIES_AT_ONCE = 8192  # then others have their turn
_WORTH_THREADS = 64
_FREE_ENOUGH = 0.9  # of what is free, for an index that is chosen here


class FaissGpuEngine:
    """One Faiss index on one GPU or several, or on the CPU where there is none.

    Query parameters: `leaves` is nprobe of an IVF index and itopk of a graph, `candidates` what a refinement
    (on the CPU, where the vectors are) scores again. One thread uses a copy at a time.
    """

    name: ClassVar[str] = "faiss_gpu"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(METRICS)
    parameters_type: ClassVar[type[FaissGpuParameters]] = FaissGpuParameters

    def __init__(
        self,
        parameters: FaissGpuParameters,
        vectors: Floats,
        measure: DistanceMeasure,
        gpus: Gpus | None,
        copies: list[Copy],
        fallback: Engine | None,
        served_by: str,
    ) -> None:
        self.parameters = parameters
        self.served_by = served_by
        self._layout = parameters.layout
        self._count, self._measure = len(vectors), measure
        self._exact = ExactEngine(vectors, measure)
        self._gpus, self._fallback = gpus, fallback
        self._copies: SimpleQueue[Copy] = SimpleQueue()
        for copy in copies:
            self._copies.put(copy)
        self._threads = len(os.sched_getaffinity(0))

    @property
    def on_device(self) -> bool:
        """Whether a GPU does the work."""
        return self._fallback is None

    @property
    def leaves(self) -> int:
        """Partitions of an IVF index that one search can visit, the widest search of a graph, 1 of Flat."""
        if self._fallback is not None:
            return max(1, self._fallback.leaves)
        if self._layout.degree:
            return min(self._count, _WIDEST_GRAPH_SEARCH)
        return min(self._layout.leaves or 1, WIDEST)

    @property
    def rescores(self) -> bool:
        """Whether the index ends in a refinement."""
        return self._layout.refinement != ""

    @classmethod
    def choose(
        cls,
        count: int,
        dimension: int,
        measure: DistanceMeasure,
        memory_budget: int | None = None,
        target_recall: float = 0.95,
    ) -> FaissGpuParameters | None:
        """Exact search as long as a GPU is quick at it, else IVF; in the finest precision that fits.

        Without a GPU IVF, which a CPU can serve as well.

        Raises:
            InvalidArgument: Nothing fits `memory_budget`.
            ResourceExhausted: Nothing fits into what is free on the GPUs.
        """
        del target_recall
        if count < _MIN_DATAPOINTS:
            return None
        gpus, _ = find_gpus()
        choices = FaissGpuParameters.choices(count, dimension, measure)
        if gpus is None:
            choices = [choice for choice in choices if choice.layout.leaves] or choices
        budget = memory_budget
        if budget is None and gpus is not None:
            memories = [gpus.memory(device) for device in range(gpus.count)]
            budget = sum(max(0, int(_FREE_ENOUGH * memory.free) - memory.scratch) for memory in memories)
        needed = {choice: choice.memory(count, dimension) for choice in choices}
        for choice, size in needed.items():
            if budget is None or size <= budget:
                return choice
        least = (
            f"{count} datapoints of {dimension} dimensions need at least {min(needed.values())} bytes "
            "in Faiss on a GPU"
        )
        if memory_budget is None:
            raise ResourceExhausted(f"{budget} bytes can be had on the GPUs; {least}")
        raise InvalidArgument(f"memory_budget is {memory_budget} bytes; {least}", field="memory_budget")

    @classmethod
    def build(
        cls, vectors: Floats, measure: DistanceMeasure, parameters: FaissGpuParameters, *, threads: int
    ) -> Self:
        """Train and add on the GPU; on the CPU where there is none.

        Raises:
            FailedPrecondition: Neither faiss-gpu nor faiss-cpu is installed.
            InvalidArgument: Parameters that Faiss refuses, or more GPUs than there are.
            ResourceExhausted: It needs more memory than is free on the GPUs.
        """
        layout = parameters.layout
        if measure is DistanceMeasure.L1_DISTANCE and not _is_flat(layout):
            raise InvalidArgument(
                f"factory is {parameters.factory!r}; {measure} is known to Flat alone", field="factory"
            )
        gpus, reason = _usable(layout)
        try:
            if gpus is None:
                fallback: Engine = ExactEngine(vectors, measure)
                if not _is_flat(layout):
                    faiss = faiss_module()
                    index = built_on_cpu(faiss, vectors, getattr(faiss, METRICS[measure]), layout, threads)
                    fallback = FaissEngine(index, FaissParameters(parameters.factory))
                return cls._on_cpu(parameters, vectors, measure, fallback, reason)
            devices = check_count(parameters.devices, gpus.count)
            check_memory(gpus, devices, parameters, vectors)
            build = flat_copies if _is_flat(layout) else built_copies
            copies = build(gpus, devices, parameters, vectors, getattr(gpus.faiss, METRICS[measure]))
        except (RuntimeError, AssertionError) as error:
            raise explained(error, f"Faiss refuses {parameters}") from error
        return cls._on_gpus(parameters, vectors, measure, gpus, copies, len(devices))

    def save(self, folder: Path, vectors_file: Path) -> None:
        """Faiss's file of the index as the CPU has it; nothing for Flat, which is the vectors file."""
        if _is_flat(self._layout):
            return
        if self._fallback is not None:
            self._fallback.save(folder, vectors_file)
            return
        assert self._gpus is not None
        copy = self._copies.get()
        try:
            index = self._gpus.to_cpu(copy.base)
            write(
                self._gpus.faiss,
                refined(self._gpus.faiss, [Copy(index, index)], copy.refinement)[0].whole,
                folder,
            )
        finally:
            self._copies.put(copy)

    @classmethod
    def load(
        cls,
        folder: Path,
        vectors_file: Path,
        vectors: Floats,
        measure: DistanceMeasure,
        parameters: FaissGpuParameters,
    ) -> Self:
        """Read what `save` wrote, and move it to the GPUs: to all there are where it was built on more.

        Raises:
            FailedPrecondition: Neither faiss-gpu nor faiss-cpu is installed, and the file needs one.
            DataLoss: The file is missing, damaged, or not over these vectors.
            ResourceExhausted: It needs more memory than is free on the GPUs.
        """
        layout = parameters.layout
        gpus, reason = _usable(layout)
        if gpus is None:
            fallback: Engine = ExactEngine(vectors, measure)
            if not _is_flat(layout):
                index = read(faiss_module(), folder, vectors_file, vectors, measure)
                fallback = FaissEngine(index, FaissParameters(parameters.factory))
            return cls._on_cpu(parameters, vectors, measure, fallback, reason)
        devices = check_count(min(parameters.devices, gpus.count), gpus.count)
        check_memory(gpus, devices, parameters, vectors)
        faiss = gpus.faiss
        index = None if _is_flat(layout) else read(faiss, folder, vectors_file, vectors, measure)
        try:
            if index is None:
                copies = flat_copies(gpus, devices, parameters, vectors, getattr(faiss, METRICS[measure]))
            else:
                copies = moved_copies(gpus, devices, parameters, layers(faiss, index)[-1])
                again = faiss.downcast_index(index.refine_index) if layout.refinement else None
                copies = refined(faiss, copies, again, owner=index)
        except RuntimeError as error:
            raise explained(error, f"Faiss cannot move {folder} to a GPU") from error
        return cls._on_gpus(parameters, vectors, measure, gpus, copies, len(devices))

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        """See `Engine.search`. More neighbors than Faiss selects on a GPU (2,048; 512 of a graph) are found
        by exact search on the CPU."""
        if self._fallback is not None:
            return self._fallback.search(queries, k, parameters)
        if len(queries) == 0:
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        if k > (_WIDEST_GRAPH_SEARCH if self._layout.degree else WIDEST):
            return self._exact.search(queries, k)
        starts = range(0, len(queries), _QUERIES_AT_ONCE)
        found = [self._ask(queries[start : start + _QUERIES_AT_ONCE], k, parameters) for start in starts]
        if len(found) == 1:
            rows, distances = found[0]
        else:
            rows = np.concatenate([rows for rows, _ in found])
            distances = np.concatenate([distances for _, distances in found])
        if rows[:, -1].min() < 0:
            distances[rows < 0] = np.nan
        if self._measure is DistanceMeasure.SQUARED_L2_DISTANCE:
            # A sum of three rounded terms on the GPU; what is near 0 may fall below.
            np.maximum(distances, 0, out=distances)
        return rows, distances

    def _ask(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        assert self._gpus is not None
        faiss = self._gpus.faiss
        copy = self._copies.get()
        try:
            made = self._search_parameters(copy, k, parameters)
            # Few queries are refined before other threads have woken up.
            with omp_threads(faiss, self._threads if len(queries) >= _WORTH_THREADS else 1):
                distances, rows = copy.whole.search(queries, k, params=made)
        except RuntimeError as error:
            raise explained(error, "Faiss failed on a valid query", on_query=True) from error
        finally:
            self._copies.put(copy)
        return rows, distances

    def _search_parameters(self, copy: Copy, k: int, parameters: QueryParameters) -> Any:
        if _is_flat(self._layout) or self._gpus is None:
            return None
        leaves = min(max(parameters.leaves, 1), self.leaves)
        if copy.refinement is None:
            return self._gpus.search_parameters(copy.base, max(leaves, k) if self._layout.degree else leaves)
        candidates = min(max(parameters.candidates, k), WIDEST, self._count)
        return self._gpus.faiss.IndexRefineSearchParameters(
            k_factor=candidates / k, base_index_params=self._gpus.search_parameters(copy.base, leaves)
        )

    @classmethod
    def _on_cpu(
        cls,
        parameters: FaissGpuParameters,
        vectors: Floats,
        measure: DistanceMeasure,
        fallback: Engine,
        reason: str,
    ) -> Self:
        served_by = f"{fallback.name} (no GPU: {reason})"
        _log.warning("an index for a GPU is searched by %s", served_by)
        return cls(parameters, vectors, measure, None, [], fallback, served_by)

    @classmethod
    def _on_gpus(
        cls,
        parameters: FaissGpuParameters,
        vectors: Floats,
        measure: DistanceMeasure,
        gpus: Gpus,
        copies: list[Copy],
        devices: int,
    ) -> Self:
        if devices == 1:
            where = "on a GPU"
        else:
            where = f"on each of {devices} GPUs" if parameters.replicate else f"in parts on {devices} GPUs"
        return cls(parameters, vectors, measure, gpus, copies, None, f"{cls.name} ({where})")


def _is_flat(layout: Layout) -> bool:
    return not layout.leaves and not layout.degree


def _usable(layout: Layout) -> tuple[Gpus | None, str]:
    """The GPUs, or why they are of no use for this layout."""
    gpus, reason = find_gpus()
    if gpus is not None and layout.degree and not gpus.has_cagra:
        return None, "CAGRA needs a Faiss built with cuVS: install faiss-gpu-cuvs in the place of faiss-gpu"
    return gpus, reason
