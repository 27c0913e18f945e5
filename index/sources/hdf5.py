"""HDF5 as ann-benchmarks has it: `train` to index, `test` to ask, and the distance as an attribute."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earshot.errors import FailedPrecondition

from ..distance import DistanceMeasure, Floats
from ..scratch import rows_a_block, to_scratch
from .raw import check_matrix, is_native
from .source import QUERIES, VECTORS, VectorSource, named, unreadable

_MEASURES = {
    "angular": DistanceMeasure.COSINE_DISTANCE,
    "dot": DistanceMeasure.DOT_PRODUCT_DISTANCE,
    "euclidean": DistanceMeasure.SQUARED_L2_DISTANCE,
}


def read_hdf5(path: Path, vectors: str | None) -> VectorSource:
    """A data set of vectors, mapped where it lies in one piece.

    Raises:
        FailedPrecondition: h5py is not installed.
    """
    try:
        h5py = import_module("h5py")
    except ImportError as error:
        raise FailedPrecondition(f"{path} needs h5py: pip install 'earshot[hdf5]'") from error
    try:
        with h5py.File(path, "r") as file:
            names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
            chosen = named("data set", vectors, names, VECTORS, path)
            questions = next((name for name in QUERIES if name in names and name != chosen), None)
            distance = file.attrs.get("distance")
            if distance is not None and distance not in _MEASURES:
                known = ", ".join(_MEASURES)
                raise unreadable(path, f"its distance is {distance!r}; known are {known}")
            return VectorSource(
                path,
                _matrix(file[chosen], path),
                queries=None if questions is None else _matrix(file[questions], path),
                distance_measure=_MEASURES.get(distance),
            )
    except OSError as error:
        raise unreadable(path, error) from error


def _matrix(dataset: Any, path: Path) -> Floats:
    check_matrix(path, dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()  # None where it is chunked or compressed
    if offset is not None and dataset.external is None:
        array = np.memmap(path, dataset.dtype, "r", offset=offset, shape=dataset.shape)
        if is_native(array):
            return np.asarray(array)
    return to_scratch(_blocks(dataset))


def _blocks(dataset: Any) -> Iterator[npt.NDArray[Any]]:
    count, dimension = dataset.shape
    step = rows_a_block(dimension * dataset.dtype.itemsize)
    for start in range(0, count, step):
        yield dataset[start : start + step]
