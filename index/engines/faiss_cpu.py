"""Faiss on the CPU: any index that `faiss.index_factory` can describe, in the optional package faiss-cpu.

Douze et al., "The Faiss library", 2024; fast-scan: André et al., "Quicker ADC", TPAMI 2021; HNSW: Malkov and
Yashunin, TPAMI 2018.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from math import ceil, sqrt
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from earshot.errors import DataLoss, FailedPrecondition, Internal, InvalidArgument, ResourceExhausted

from ..distance import DistanceMeasure, Floats
from .base import QueryParameters, Rows

_MIN_DATAPOINTS = 1000  # 16 centroids a code want 39 vectors each, or Faiss warns of too few
_WIDEST_HNSW_SEARCH = 1024
_FILE = "index.faiss"
_FAISS_METRIC = {
    DistanceMeasure.DOT_PRODUCT_DISTANCE: "METRIC_INNER_PRODUCT",
    DistanceMeasure.SQUARED_L2_DISTANCE: "METRIC_L2",
}
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
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(_FAISS_METRIC)
    parameters_type: ClassVar[type[FaissParameters]] = FaissParameters

    def __init__(self, index: Any, parameters: FaissParameters) -> None:
        faiss = _faiss()
        self._index = index
        self.parameters = parameters
        self._refined = isinstance(index, faiss.IndexRefine)
        self._layers = _layers(faiss, index)
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
        cls, count: int, dimension: int, measure: DistanceMeasure, memory_budget: int | None = None
    ) -> FaissParameters | None:
        """IVF with fast-scan codes."""
        del measure
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
        faiss = _faiss()
        with _threads(faiss, threads):
            try:
                metric = getattr(faiss, _FAISS_METRIC[measure])
                index = faiss.index_factory(vectors.shape[1], parameters.factory, metric)
                core = _layers(faiss, index)[-1]
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
        try:
            _faiss().write_index(self._index, str(folder / _FILE))
        except RuntimeError as error:
            raise ResourceExhausted(f"Faiss could not write to {folder}: {error}") from error

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
        faiss = _faiss()
        path = folder / _FILE
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError) as error:
            raise DataLoss(f"Faiss cannot read {path}: {error}") from error
        expected = (*vectors.shape, getattr(faiss, _FAISS_METRIC[measure]))
        if (index.ntotal, index.d, index.metric_type) != expected:
            raise DataLoss(
                f"{path} holds {index.ntotal} × {index.d}, {vectors_file.name} "
                f"{vectors.shape[0]} × {vectors.shape[1]}, or the measure is another"
            )
        return cls(index, parameters)

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        """See `Engine.search`. Faiss releases the GIL and may be called from many threads."""
        if len(queries) == 0:
            return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
        candidates = min(max(parameters.candidates, k), self._index.ntotal)
        leaves = min(max(parameters.leaves, 1), self.leaves)
        made = self._search_parameters(leaves, candidates / k)
        with _threads(_faiss(), 1):
            try:
                distances, rows = self._index.search(queries, k, params=made)
            except RuntimeError as error:
                raise Internal(f"Faiss failed on a valid query: {error}") from error
        if rows[:, -1].min() < 0:
            distances[rows < 0] = np.nan
        return rows, distances

    def _made_parameters(self, leaves: int, factor: float) -> Any:
        faiss = _faiss()
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


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's, of types without a module
            return import_module("faiss")
    except ImportError as error:
        raise FailedPrecondition(
            "engine faiss_cpu needs the package faiss-cpu: pip install 'earshot[faiss]'"
        ) from error


def _layers(faiss: Any, index: Any) -> list[Any]:
    """The index and those within it, outermost first; the last one holds the vectors or their codes."""
    layers = [index]
    while True:
        if isinstance(layers[-1], faiss.IndexRefine):
            inner = layers[-1].base_index
        elif isinstance(layers[-1], faiss.IndexPreTransform):
            inner = layers[-1].index
        else:
            return layers
        layers.append(faiss.downcast_index(inner))


@contextmanager
def _threads(faiss: Any, count: int) -> Iterator[None]:
    """OpenMP's number of threads, which belongs to the calling thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
