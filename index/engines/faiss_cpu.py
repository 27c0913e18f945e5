"""Faiss on the CPU: any index that `faiss.index_factory` can describe, in the optional package faiss-cpu.

Douze et al., "The Faiss library", 2024; fast-scan: André et al., "Quicker ADC", TPAMI 2021; HNSW: Malkov and
Yashunin, TPAMI 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from earshot.errors import Internal, InvalidArgument

from ..distance import DistanceMeasure, Floats
from .base import QueryParameters, Rows
from .faiss_module import METRICS, faiss_module, layers, omp_threads, read, write

_MIN_DATAPOINTS = 1000  # 16 centroids a code want 39 vectors each, or Faiss warns of too few
_WIDEST_HNSW_SEARCH = 1024
_REFINEMENTS = (("RFlat", 4), ("Refine(SQfp16)", 2), ("Refine(SQ8)", 1))  # and bytes a dimension


@dataclass(frozen=True, slots=True)
class FaissParameters:
    """What a Faiss index is built with.

    Attributes:
        factory: As `faiss.index_factory` reads it, such as "IVF450,PQ64x4fs,RFlat" or "HNSW32". One that
            ends in a refinement (RFlat, Refine(…)) scores candidates again; one that quantises without it
            returns approximate distances.
        construction_width: Of the search for links when an HNSW graph is built (efConstruction); more
            takes longer and finds better links.
    """

    factory: str
    construction_width: int = 200

    @classmethod
    def ivf_pq(cls, count: int, dimension: int, *, memory_budget: int | None = None) -> Self:
        """√count leaves and 4-bit fast-scan codes of two dimensions each, refined in the finest of float32,
        float16 and 8 bits that `memory_budget` (bytes) allows: the layout of our ScaNN."""
        codes = dimension // 2 if dimension % 2 == 0 else dimension
        size = {suffix: count * (width * dimension + ceil(codes / 2) + 8) for suffix, width in _REFINEMENTS}
        fitting = [s for s in size if memory_budget is None or size[s] <= memory_budget]
        if not fitting:
            raise InvalidArgument(
                f"memory_budget is {memory_budget} bytes; {count} datapoints need at least "
                f"{min(size.values())} in Faiss",
                field="memory_budget",
            )
        leaves = min(ceil(sqrt(count)), max(1, count // 40))
        return cls(f"IVF{leaves},PQ{codes}x4fs,{fitting[0]}")

    @classmethod
    def hnsw(cls, links: int = 32) -> Self:
        """A graph of so many links a vector, over float32 vectors; the fastest to search, slow to build."""
        return cls(f"HNSW{links}")


class FaissEngine:
    """One Faiss index.

    Query parameters: `leaves` is nprobe of an IVF index and efSearch of an HNSW graph, `candidates` what a
    refinement scores again. A search runs on the caller's thread alone, as ScaNN's does: callers are many.
    """

    name: ClassVar[str] = "faiss_cpu"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(METRICS) - {DistanceMeasure.L1_DISTANCE}
    parameters_type: ClassVar[type[FaissParameters]] = FaissParameters
    on_device = False
    served_by = name

    def __init__(self, index: Any, parameters: FaissParameters) -> None:
        faiss = faiss_module()
        self._index = index
        self.parameters = parameters
        self._refined = isinstance(index, faiss.IndexRefine)
        self._layers = layers(faiss, index)
        core = self._layers[-1]
        if isinstance(core, faiss.IndexIVF):
            self._leaves = int(core.nlist)
        else:
            self._leaves = min(index.ntotal, _WIDEST_HNSW_SEARCH) if isinstance(core, faiss.IndexHNSW) else 1
        self._search_parameters = lru_cache(maxsize=256)(self._made_parameters)

    @property
    def leaves(self) -> int:
        """Partitions of an IVF index, the widest search worth trying of an HNSW graph, 1 of any other."""
        return self._leaves

    @property
    def rescores(self) -> bool:
        """Whether the index ends in a refinement."""
        return self._refined

    @classmethod
    def choose(
        cls,
        count: int,
        dimension: int,
        measure: DistanceMeasure,
        memory_budget: int | None = None,
        target_recall: float = 0.95,
    ) -> FaissParameters | None:
        """IVF with fast-scan codes."""
        del measure, target_recall
        if count < _MIN_DATAPOINTS:
            return None
        return FaissParameters.ivf_pq(count, dimension, memory_budget=memory_budget)

    @classmethod
    def build(
        cls, vectors: Floats, measure: DistanceMeasure, parameters: FaissParameters, *, threads: int
    ) -> Self:
        """Train and add.

        Raises:
            FailedPrecondition: faiss-cpu is not installed.
            InvalidArgument: Parameters that Faiss refuses.
        """
        faiss = faiss_module()
        with omp_threads(faiss, threads):
            try:
                metric = getattr(faiss, METRICS[measure])
                index = faiss.index_factory(vectors.shape[1], parameters.factory, metric)
                core = layers(faiss, index)[-1]
                if isinstance(core, faiss.IndexHNSW):
                    core.hnsw.efConstruction = parameters.construction_width
                index.train(vectors)
                index.add(vectors)
            except (RuntimeError, AssertionError) as error:
                raise InvalidArgument(f"Faiss refuses {parameters}: {error}", field="engine") from error
        return cls(index, parameters)

    def save(self, folder: Path, vectors_file: Path) -> None:
        """One file of Faiss's own, with a copy of the vectors where it keeps one."""
        del vectors_file
        write(faiss_module(), self._index, folder)

    @classmethod
    def load(
        cls,
        folder: Path,
        vectors_file: Path,
        vectors: Floats,
        measure: DistanceMeasure,
        parameters: FaissParameters,
    ) -> Self:
        """Map what `save` wrote as far as Faiss can; what it cannot map it reads.

        Raises:
            FailedPrecondition: faiss-cpu is not installed.
            DataLoss: The file is missing, damaged, or not over these vectors.
        """
        return cls(read(faiss_module(), folder, vectors_file, vectors, measure), parameters)

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        """See `Engine.search`. Faiss releases the GIL and may be called from many threads."""
        if len(queries) == 0:
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        candidates = min(max(parameters.candidates, k), self._index.ntotal)
        leaves = min(max(parameters.leaves, 1), self.leaves)
        made = self._search_parameters(leaves, candidates / k)
        with omp_threads(faiss_module(), 1):
            try:
                distances, rows = self._index.search(queries, k, params=made)
            except RuntimeError as error:
                raise Internal(f"Faiss failed on a valid query: {error}") from error
        if rows[:, -1].min() < 0:
            distances[rows < 0] = np.nan
        return rows, distances

    def _made_parameters(self, leaves: int, factor: float) -> Any:
        faiss = faiss_module()
        core = self._layers[-1]
        made = None
        if isinstance(core, faiss.IndexIVF):
            made = faiss.SearchParametersIVF(nprobe=leaves)
        elif isinstance(core, faiss.IndexHNSW):
            made = faiss.SearchParametersHNSW(efSearch=leaves)
        for layer in reversed(self._layers[:-1]):
            if isinstance(layer, faiss.IndexRefine):
                made = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=made)
            elif made is not None:
                made = faiss.SearchParametersPreTransform(index_params=made)
        return made
