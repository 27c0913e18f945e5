"""One door to all formats, by the end of the file's name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from earshot.errors import InvalidArgument, NotFound

from .hdf5 import read_hdf5
from .raw import read_bin, read_npy, read_npz, read_vecs
from .source import Columns, VectorSource
from .tables import read_arrow, read_parquet

_Read = Callable[[Path, Columns], VectorSource]

FORMATS: dict[str, _Read] = {
    ".npy": lambda path, _: read_npy(path),
    ".npz": lambda path, columns: read_npz(path, columns.vectors),
    ".fvecs": lambda path, _: read_vecs(path, "<f4"),
    ".bvecs": lambda path, _: read_vecs(path, "u1"),
    ".ivecs": lambda path, _: read_vecs(path, "<i4"),
    ".fbin": lambda path, _: read_bin(path, "<f4"),
    ".u8bin": lambda path, _: read_bin(path, "u1"),
    ".i8bin": lambda path, _: read_bin(path, "i1"),
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".hdf5": lambda path, columns: read_hdf5(path, columns.vectors),
    ".h5": lambda path, columns: read_hdf5(path, columns.vectors),
}

_TABLES = tuple(suffix for suffix, read in FORMATS.items() if read in (read_parquet, read_arrow))


def open_vectors(
    path: str | os.PathLike[str],
    *,
    vectors: str | None = None,
    ids: str | None = None,
    crowding_tag: str | None = None,
    restricts: Sequence[str] = (),
) -> VectorSource:
    """The vectors of a file as one mapped matrix, and what else the file has of them.

    | format | what is read |
    |---|---|
    | `.npy` | any number type, byte order and memory order |
    | `.npz` | one array; `ids`; `queries` |
    | `.fvecs` `.bvecs` `.ivecs` | rows that begin with their dimension (corpus-texmex.irisa.fr) |
    | `.fbin` `.u8bin` `.i8bin` | rows after count and dimension (big-ann-benchmarks.com) |
    | `.parquet` `.arrow` `.feather` | a column of lists; `id`, `crowding_tag`; other columns as metadata |
    | `.hdf5` `.h5` | `train`; `test` as queries; `distance` (ann-benchmarks; needs the extra `hdf5`) |

    A little-endian float32 matrix of `.npy`, `.fbin` or HDF5 is mapped where it lies. Anything else is
    converted in blocks into a scratch file in $TMPDIR or /var/tmp, 4 bytes a value, which needs no memory
    and goes away with the array.

    Args:
        path: The file; it must not change while the index is built.
        vectors: The column, array or data set of vectors; None for the only one, or one with a usual
            name, such as `vectors`, `embedding`, `train`.
        ids: The column of ids in a table; None for `id` where there is one.
        crowding_tag: The column of crowding tags in a table; None for `crowding_tag` where there is one.
        restricts: Columns of a table that searches can filter by: texts or lists of texts as tokens, numbers
            as they are, dates as numbers like 20260131, true and false as tokens. They stay metadata as well.

    Raises:
        NotFound: There is no such file.
        InvalidArgument: It is of another format, damaged, cut short, or holds no matrix of numbers.
        FailedPrecondition: h5py is needed and not installed.
        ResourceExhausted: There is no room for the scratch file.
    """
    file = Path(path)
    read = FORMATS.get(file.suffix.lower())
    if read is None:
        known = " ".join(FORMATS)
        raise InvalidArgument(f"{file} is of no known format; it must end in {known}", field="vectors")
    if not file.is_file():
        raise NotFound(f"{file} is not there, or not a file", field="vectors")
    for field, given in (("ids", ids), ("crowding_tag", crowding_tag), ("restricts", restricts)):
        if given and file.suffix.lower() not in _TABLES:
            raise InvalidArgument(
                f"{field} is {given!r}, but {file} is no table; only {', '.join(_TABLES)} have columns",
                field=field,
            )
    return read(file, Columns(vectors, ids, crowding_tag, tuple(restricts)))
