"""Matrices in files of their own: NumPy's, those of the TEXMEX sets (SIFT, GIST), and those of big-ann.

A little-endian float32 matrix is mapped where it lies; anything else becomes one, block by block.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument

from ..distance import Floats
from ..scratch import row_blocks, rows_a_block, to_scratch
from .source import IDS, QUERIES, VECTORS, VectorSource, named, unreadable


def read_npy(path: Path) -> VectorSource:
    """A `.npy` of any number type, byte order and memory order."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, error) from error
    check_matrix(path, array.shape, array.dtype)
    if is_native(array):
        return VectorSource(path, np.asarray(array))
    if not array.flags.c_contiguous:
        return VectorSource(path, to_scratch(row_blocks(array)))
    with path.open("rb") as stream:  # read, not mapped: pages of a map would count as ours
        return VectorSource(path, to_scratch(_npy_blocks(stream, path)))


def read_npz(path: Path, vectors: str | None) -> VectorSource:
    """One array of a `.npz`, with `ids` and `queries` where it has them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            chosen = named("array", vectors, names, VECTORS, path)
            questions = next((name for name in QUERIES if name in names and name != chosen), None)
            known = next((name for name in IDS if name in names), None)
            return VectorSource(
                path,
                _member(archive, chosen, path),
                ids=None if known is None else _strings(archive, known, path),
                queries=None if questions is None else _member(archive, questions, path),
            )
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(path, error) from error


def read_vecs(path: Path, dtype: str) -> VectorSource:
    """`.fvecs`, `.bvecs`, `.ivecs`: each row begins with its dimension, an int32."""
    head = _head(path, 1)
    dimension = int(head[0])
    kind = np.dtype(dtype)
    check_matrix(path, (1, dimension), kind)
    row = np.dtype([("dimension", "<i4"), ("values", kind, (dimension,))])
    count = _rows(path, 0, row.itemsize)

    def blocks() -> Iterator[npt.NDArray[Any]]:
        done = 0
        with path.open("rb") as stream:
            while done < count:
                rows = np.fromfile(stream, row, rows_a_block(row.itemsize))
                others = np.flatnonzero(rows["dimension"] != dimension)
                if len(others):
                    number, other = done + int(others[0]), int(rows["dimension"][others[0]])
                    raise unreadable(path, f"row {number} has dimension {other}, row 0 has {dimension}")
                yield rows["values"]
                done += len(rows)

    return VectorSource(path, to_scratch(blocks()))


def read_bin(path: Path, dtype: str) -> VectorSource:
    """`.fbin`, `.u8bin`, `.i8bin` of big-ann-benchmarks: count and dimension as uint32, then the rows."""
    count, dimension = (int(value) for value in _head(path, 2))
    kind = np.dtype(dtype)
    check_matrix(path, (count, dimension), kind)
    if _rows(path, 8, dimension * kind.itemsize) != count:
        raise unreadable(path, f"it says {count} rows, but its size is another")
    array = np.memmap(path, kind, "r", offset=8, shape=(count, dimension))
    return VectorSource(path, np.asarray(array) if is_native(array) else to_scratch(row_blocks(array)))


def check_matrix(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises InvalidArgument unless so shaped an array is a matrix of numbers with rows."""
    if len(shape) != 2 or 0 in shape or min(shape) < 0 or dtype.kind not in "fiu":
        raise InvalidArgument(
            f"{path} holds {dtype} of shape {shape}; it must hold numbers of shape [n, dimension]",
            field="vectors",
        )


def is_native(array: npt.NDArray[Any]) -> bool:
    """Whether every engine can take it as it lies."""
    return array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> Floats:
    with archive.open(f"{name}.npy") as stream:
        return to_scratch(_npy_blocks(stream, path))


def _strings(archive: zipfile.ZipFile, name: str, path: Path) -> list[str]:
    with archive.open(f"{name}.npy") as stream:
        values = np.lib.format.read_array(stream, allow_pickle=False)
    if values.dtype.kind not in "Uiu":
        raise unreadable(path, f"{name} holds {values.dtype}; ids are strings")
    return [str(value) for value in values.tolist()]


def _npy_blocks(stream: IO[bytes], path: Path) -> Iterator[npt.NDArray[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    check_matrix(path, shape, dtype)
    if by_column and shape[1] > 1:
        raise unreadable(path, "an array is stored column by column; save it after np.ascontiguousarray")
    row_bytes = shape[1] * dtype.itemsize
    step = rows_a_block(row_bytes)
    for start in range(0, shape[0], step):
        wanted = min(step, shape[0] - start)
        data = stream.read(wanted * row_bytes)
        if len(data) < wanted * row_bytes:
            raise unreadable(path, f"it ends at row {start + len(data) // row_bytes} of {shape[0]}")
        yield np.frombuffer(data, dtype).reshape(-1, shape[1])


def _head(path: Path, count: int) -> npt.NDArray[np.int32]:
    head = np.fromfile(path, "<i4", count)
    if len(head) < count:
        raise unreadable(path, "it is too short to hold a vector")
    return head


def _rows(path: Path, offset: int, row_bytes: int) -> int:
    count, rest = divmod(path.stat().st_size - offset, row_bytes)
    if rest:
        raise unreadable(path, f"its size is not that of whole rows of {row_bytes} bytes")
    return count
