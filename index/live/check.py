"""What an update must be before it is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from earshot.errors import EarshotError, InvalidArgument

from ..attributes import encode_metadata
from ..filters import Collected, Restrict, Where
from ..filters.where import canonical
from ..ids import MAX_ID_BYTES, check_id
from ..journal import UNSET, Entry, Patch, Put, Remove
from ..vectors import as_queries

__all__ = ["checked", "checked_restricts", "packed_puts"]

_FLOAT32 = np.dtype(np.float32)


def checked(
    entries: Sequence[Entry], dimension: int, find: Callable[[str], object]
) -> list[Entry | EarshotError]:
    """Each entry as it should be written to the journal, or why it is none.

    Args:
        entries: What a user gave.
        dimension: Of the index.
        find: Raises NotFound where no datapoint has an id.
    """
    vectors = [entry.vector for entry in entries if not isinstance(entry, Remove)]
    are_fine = _are_fine(vectors, dimension)
    if are_fine and all(map(_is_plain, entries)) and _are_ids([entry.id for entry in entries]):
        return list(entries)
    found: list[Entry | EarshotError] = []
    for entry in entries:
        try:
            if not are_fine and not isinstance(entry, Remove) and entry.vector is not UNSET:
                _check_vector(entry.vector, dimension)
            if isinstance(entry, Patch):
                check_id(entry.id)
                find(entry.id)
            found.append(_checked(entry))
        except EarshotError as error:
            found.append(error)
    return found


def packed_puts(names: Sequence[str], vectors: Sequence[bytes], dimension: int) -> list[Put] | None:
    """Whole datapoints that are an id and a packed vector each; None where something is wrong with one.

    Args:
        names: Their ids.
        vectors: Their vectors, little-endian float32.
        dimension: Of the index.
    """
    if set(map(len, vectors)) != {4 * dimension} or not _are_ids(names):
        return None
    matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, dimension)
    if not _is_finite(matrix):
        return None
    return list(map(Put, names, matrix))


def _is_finite(vectors: npt.NDArray[np.float32]) -> bool:
    """Whether all are so; very large ones seem not to be."""
    flat = vectors.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        return isfinite(np.vdot(flat, flat))


def _are_fine(vectors: Sequence[Any], dimension: int) -> bool:
    """Whether nothing is wrong with any, told in one pass; where not, they are looked at one by one."""
    if not vectors:
        return True
    if set(map(type, vectors)) != {np.ndarray}:
        return False
    if {each.dtype for each in vectors} != {_FLOAT32} or {each.shape for each in vectors} != {(dimension,)}:
        return False
    return _is_finite(np.concatenate(vectors))


def _is_plain(entry: Entry) -> bool:
    """Whether it has an id and a vector, and nothing else to be looked at."""
    return (
        type(entry) is Put and entry.crowding_tag is None and entry.metadata is None and entry.restricts == ()
    )


def _are_ids(names: Sequence[Any]) -> bool:
    """As `_are_fine`, of ids: some that are fine but long may seem not to be."""
    if set(map(type, names)) != {str}:
        return False
    lengths = set(map(len, names))
    if 0 in lengths or 4 * max(lengths) > MAX_ID_BYTES:  # a character takes four bytes at most
        return False
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_vector(vector: Any, dimension: int) -> None:
    if np.ndim(vector) != 1:
        raise InvalidArgument(
            f"feature_vector has shape {np.shape(vector)}; it must be [{dimension}]", field="feature_vector"
        )
    as_queries(vector, dimension, field="feature_vector")


def _checked(entry: Entry) -> Entry:
    check_id(entry.id)
    if isinstance(entry, Remove):
        return entry
    if entry.metadata is not UNSET:
        encode_metadata(entry.metadata)
    if not (entry.crowding_tag is UNSET or isinstance(entry.crowding_tag, str | None)):
        raise InvalidArgument(
            f"crowding_tag is {entry.crowding_tag!r}; it must be a string or None", field="crowding_tag"
        )
    if entry.restricts is UNSET or not entry.restricts:
        return entry
    return replace(entry, restricts=checked_restricts(entry.restricts))


def checked_restricts(restricts: Iterable[Restrict]) -> Where:
    """The restricts of one datapoint in their canonical form.

    Raises:
        InvalidArgument: One has an op, or two are numbers of one namespace.
    """
    found = canonical(restricts)
    collected = Collected(1)
    for restrict in found:
        collected.add(0, restrict)
    return found
