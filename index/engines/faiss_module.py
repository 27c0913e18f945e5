"""What both Faiss engines need of the package, whose module is `faiss` in faiss-cpu and faiss-gpu alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from earshot.errors import DataLoss, FailedPrecondition, ResourceExhausted

from ..distance import DistanceMeasure, Floats

FILE = "index.faiss"
METRICS = {
    DistanceMeasure.DOT_PRODUCT_DISTANCE: "METRIC_INNER_PRODUCT",
    DistanceMeasure.SQUARED_L2_DISTANCE: "METRIC_L2",
    DistanceMeasure.L1_DISTANCE: "METRIC_L1",
}


def faiss_module() -> Any:
    """The package.

    Raises:
        FailedPrecondition: It is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # SWIG's, of types without a module
            return import_module("faiss")
    except ImportError as error:
        raise FailedPrecondition(
            "engine faiss_cpu needs the package faiss-cpu: pip install 'earshot[faiss]'"
        ) from error


def layers(faiss: Any, index: Any) -> list[Any]:
    """The index and those within it, outermost first; the last one holds the vectors or their codes."""
    found = [index]
    while True:
        if isinstance(found[-1], faiss.IndexRefine):
            inner = found[-1].base_index
        elif isinstance(found[-1], faiss.IndexPreTransform):
            inner = found[-1].index
        else:
            return found
        found.append(faiss.downcast_index(inner))


@contextmanager
def omp_threads(faiss: Any, count: int) -> Iterator[None]:
    """OpenMP's number of threads, which belongs to the calling thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def write(faiss: Any, index: Any, folder: Path) -> None:
    """One file of Faiss's own. Raises ResourceExhausted where it cannot be written."""
    try:
        faiss.write_index(index, str(folder / FILE))
    except RuntimeError as error:
        raise ResourceExhausted(f"Faiss could not write to {folder}: {error}") from error


def read(faiss: Any, folder: Path, vectors_file: Path, vectors: Floats, measure: DistanceMeasure) -> Any:
    """What `write` wrote, mapped as far as Faiss can; what it cannot map it reads.

    Raises:
        DataLoss: The file is missing, damaged, or not over these vectors.
    """
    path = folder / FILE
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as error:
        raise DataLoss(f"Faiss cannot read {path}: {error}") from error
    if (index.ntotal, index.d, index.metric_type) != (*vectors.shape, getattr(faiss, METRICS[measure])):
        raise DataLoss(
            f"{path} holds {index.ntotal} × {index.d}, {vectors_file.name} "
            f"{vectors.shape[0]} × {vectors.shape[1]}, or the measure is another"
        )
    return index
