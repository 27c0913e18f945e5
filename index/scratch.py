"""Matrices too large for memory while an index is built: on disk, without a name, mapped."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument

from .distance import Floats
from .files import explained

BLOCK_BYTES = 4 << 20
_LARGE_FILES = Path("/var/tmp")  # noqa: S108  (the file has no name there that could be guessed)


def scratch_folder() -> Path:
    """$TMPDIR, or else /var/tmp, which lies on disk where /tmp may lie in memory."""
    if os.environ.get("TMPDIR") or not os.access(_LARGE_FILES, os.W_OK):
        return Path(tempfile.gettempdir())
    return _LARGE_FILES


def to_scratch(blocks: Iterable[npt.NDArray[Any]]) -> Floats:
    """Blocks of rows as one matrix, float32 [n, dimension], mapped; its file goes when the array does.

    Args:
        blocks: Numbers of any type, each [rows, dimension] of the same dimension.

    Raises:
        InvalidArgument: The dimensions differ.
        ResourceExhausted: The disk is full; $TMPDIR names another folder.
    """
    folder = scratch_folder()
    count, dimension = 0, 0
    with explained(folder), tempfile.TemporaryFile(dir=folder, buffering=0) as stream:
        for block in blocks:
            if count and block.shape[1] != dimension:
                raise InvalidArgument(
                    f"vectors, row {count}, has dimension {block.shape[1]}; the rows before have {dimension}",
                    field="vectors",
                )
            with np.errstate(over="ignore"):  # infinity is refused, by row, where the index is built
                data = np.ascontiguousarray(block, np.float32).data.cast("B") if block.size else b""
            while len(data):  # a raw write may be a short one
                data = data[stream.write(data) :]
            count, dimension = count + len(block), block.shape[1]
        if not count * dimension:
            return np.empty((count, dimension), np.float32)
        return np.asarray(np.memmap(stream, np.float32, "r", shape=(count, dimension)))


def is_mapped(array: npt.NDArray[Any]) -> bool:
    """Whether an array's values lie in a file, and not in memory of their own."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def row_blocks(array: npt.NDArray[Any]) -> Iterable[npt.NDArray[Any]]:
    """Consecutive slices of a matrix's rows, of about BLOCK_BYTES each."""
    step = rows_a_block(array.shape[1] * array.itemsize)
    return (array[start : start + step] for start in range(0, len(array), step))


def rows_a_block(row_bytes: int) -> int:
    """How many rows are moved at a time."""
    return max(1, BLOCK_BYTES // row_bytes)
