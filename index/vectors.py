"""Whatever array a user brings becomes a float32 matrix that every engine can take.

What cannot be searched (NaN, infinity, a wrong dimension) is refused here, by row, once and for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument

from .distance import Floats
from .scratch import is_mapped, row_blocks, to_scratch

MAX_DIMENSIONS = 4096
_BLOCK_BYTES = 32 << 20
_FEW_QUERIES = 16
_FLOAT32 = np.dtype(np.float32)


def as_vectors(values: Any, *, field: str = "vectors") -> Floats:
    """A matrix of datapoints.

    Args:
        values: Anything NumPy reads as a matrix of numbers, shape [n, dimension], n ≥ 1: float16,
            float32, float64 or an integer type, contiguous or not, memory-mapped or not.
        field: The argument's name, for messages.

    Returns:
        float32, C-contiguous, shape [n, dimension]. No copy is made where it is that already.

    Raises:
        InvalidArgument: Wrong shape or type, no rows, a dimension outside 1 to 4096, or a row that
            holds NaN, infinity or values whose squares overflow float32.
    """
    array = _as_array(values, field)
    if array.ndim != 2:
        raise InvalidArgument(f"{field} has shape {array.shape}; it must be [n, dimension]", field=field)
    count, dimension = array.shape
    if not 1 <= dimension <= MAX_DIMENSIONS:
        raise InvalidArgument(
            f"{field} has dimension {dimension}; it must be between 1 and {MAX_DIMENSIONS}", field=field
        )
    if count == 0:
        raise InvalidArgument(f"{field} is empty; at least one vector is needed", field=field)
    return _as_finite(array, field)


def as_queries(values: Any, dimension: int, *, field: str = "queries") -> Floats:
    """A matrix of queries; one vector, shape [dimension], counts as one row.

    Raises:
        InvalidArgument: As in `as_vectors`, or the dimension is not the index's. No rows are allowed.
    """
    if type(values) is np.ndarray and values.dtype is _FLOAT32 and values.ndim == 2:
        array: npt.NDArray[Any] = values  # the usual case, of which a single query feels every step
    else:
        array = _as_array(values, field)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] != dimension:
        raise InvalidArgument(
            f"{field} has shape {np.shape(values)}; "
            f"the index has dimension {dimension}, so it must be [n, {dimension}] or [{dimension}]",
            field=field,
        )
    return _as_finite(array, field)


def as_tuning_queries(values: Any, dimension: int, *, scaled: bool) -> Floats | None:
    """Queries to measure with, as engines see them; None for None.

    Raises:
        InvalidArgument: As in `as_queries`, or there are none.
    """
    if values is None:
        return None
    queries = as_queries(values, dimension, field="tuning_queries")
    if len(queries) == 0:
        raise InvalidArgument("tuning_queries is empty", field="tuning_queries")
    return unit_norm(queries)[0] if scaled else queries


def unit_norm(vectors: Floats) -> tuple[Floats, Floats]:
    """Rows scaled to length 1 (zero rows stay zero), and the lengths they had, float32 [n].

    What was mapped from a file comes back mapped from a scratch file.
    """
    if not is_mapped(vectors):
        return _unit_norm(vectors)
    norms: list[Floats] = []

    def blocks() -> Iterator[Floats]:
        for block in row_blocks(vectors):
            scaled, lengths = _unit_norm(block)
            norms.append(lengths)
            yield scaled

    return to_scratch(blocks()), np.concatenate(norms)


def _unit_norm(vectors: Floats) -> tuple[Floats, Floats]:
    norms = np.sqrt(squared_norms(vectors))
    divisors = np.where(norms > 0, norms, np.float32(1))
    scaled = np.divide(vectors, divisors[:, np.newaxis], dtype=np.float32)
    if (norms < 1e-15).any():  # their squares underflow float32
        tiny = np.flatnonzero((norms < 1e-15) & vectors.any(axis=1))
        exact = vectors[tiny].astype(np.float64)
        lengths = np.sqrt((exact * exact).sum(axis=1))
        scaled[tiny] = exact / lengths[:, np.newaxis]
        norms[tiny] = lengths
    return scaled, norms


def gathered(vectors: Floats, rows: npt.NDArray[np.int64]) -> Floats:
    """`vectors[rows]`, in a third of the time where the vectors lie in one piece; elsewhere `take` would copy
    all of them first."""
    return vectors.take(rows, axis=0) if vectors.flags.c_contiguous else vectors[rows]


def dot_products(queries: Floats, vectors: Floats) -> Floats:
    """Of each query [q, d] with each vector [n, d], float32 [q, n].

    With a few queries BLAS takes half the time for the product the other way round. With one it makes no
    difference: that is a matrix and a vector.
    """
    if 1 < len(queries) <= _FEW_QUERIES:
        return np.ascontiguousarray((vectors @ queries.T).T)
    products: Floats = queries @ vectors.T
    return products


def squared_norms(vectors: Floats) -> Floats:
    """Σ xᵢ² of each row, float32 [n]."""
    norms: Floats = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32)
    return norms


def _as_array(values: Any, field: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InvalidArgument(f"{field} has rows of different lengths", field=field) from None
    if array.dtype.kind not in "fiu" and array.size:
        raise InvalidArgument(
            f"{field} has type {array.dtype}; it must hold floating point numbers or integers", field=field
        )
    return array


def _as_finite(array: npt.NDArray[Any], field: str) -> Floats:
    if array.dtype is _FLOAT32 and array.flags.c_contiguous and isfinite(np.vdot(array, array)):
        return array  # the usual case, in one call
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = np.ascontiguousarray(array, dtype=np.float32)
        if isfinite(np.vdot(matrix, matrix)):
            return matrix
        step = max(1, _BLOCK_BYTES // (4 * matrix.shape[1]))
        for start in range(0, len(matrix), step):
            # A sum of squares is not finite as soon as one value is not: one pass finds all three faults.
            bad = ~np.isfinite(squared_norms(matrix[start : start + step]))
            if bad.any():
                raise _fault(array[start + int(bad.argmax())], start + int(bad.argmax()), field)
    return matrix


def _fault(row: npt.NDArray[Any], number: int, field: str) -> InvalidArgument:
    if np.isnan(row).any():
        what = "holds NaN"
    elif np.isinf(row).any():
        what = "holds infinity"
    else:
        what = "is too long: its squared length overflows float32"
    return InvalidArgument(f"{field}, row {number}, {what}", field=field)
