"""What a vector file brings, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from earshot.errors import InvalidArgument

from ..distance import DistanceMeasure, Floats

T = TypeVar("T", covariant=True)
VECTORS = ("vectors", "train", "base", "embeddings", "vector", "embedding", "feature_vector")
QUERIES = ("queries", "test")
IDS = ("id", "ids", "datapoint_id")
CROWDING_TAG = "crowding_tag"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a file hold what; None for those with a usual name.

    Attributes:
        vectors: A column, array or data set.
        ids: A column of a table.
        crowding_tag: A column of a table.
        restricts: Columns of a table that searches can filter by.
    """

    vectors: str | None = None
    ids: str | None = None
    crowding_tag: str | None = None
    restricts: tuple[str, ...] = ()


class Reread(Generic[T]):
    """Values read from a file each time they are walked through, so that they are never all in memory."""

    def __init__(self, read: Callable[[], Iterator[T]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[T]:
        return self._read()


@dataclass(frozen=True, eq=False)
class VectorSource:
    """The arguments that `Index.build` takes, as far as the file has them.

    Attributes:
        path: The file.
        vectors: float32 [n, dimension], C-contiguous, mapped: the file itself where it is that already,
            else a scratch file on disk.
        ids: One each, or None.
        crowding_tags: One each, or None.
        metadata: One each, or None.
        restricts: A mapping of namespace to cell for each, or None.
        queries: float32 [q, dimension], where the file brings some; mapped too.
        distance_measure: Where the file says.
    """

    path: Path
    vectors: Floats
    ids: Iterable[str] | None = None
    crowding_tags: Iterable[str | None] | None = None
    metadata: Iterable[dict[str, Any] | None] | None = None
    restricts: Iterable[dict[str, Any]] | None = None
    queries: Floats | None = None
    distance_measure: DistanceMeasure | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        brought = ("ids", "crowding_tags", "metadata", "restricts", "queries")
        more = "".join(f", {name}" for name in brought if getattr(self, name) is not None)
        count, dimension = self.vectors.shape
        return f"<VectorSource: {self.path}, {count} × {dimension}{more}>"


def named(kind: str, wanted: str | None, present: Iterable[str], usual: Iterable[str], path: Path) -> str:
    """The column or array to read: the wanted one, or the first with a usual name, or the only one.

    Raises:
        InvalidArgument: There is none, or it is not clear which; the message lists what there is.
    """
    names = list(present)
    if wanted is not None and wanted in names:
        return wanted
    found = [] if wanted is not None else [name for name in usual if name in names] or names
    if len(found) == 1 or (found and found[0] in usual):
        return found[0]
    listed = ", ".join(map(repr, names)) or "none at all"
    raise InvalidArgument(
        f"{path} has no {kind} {wanted!r}; it has {listed}"
        if wanted is not None
        else f"{path}: which {kind} holds the vectors cannot be told; it has {listed}: name one",
        field="vectors",
    )


def unreadable(path: Path, why: object) -> InvalidArgument:
    """The error for a file that is not what its name says."""
    return InvalidArgument(f"{path} cannot be read: {why}", field="vectors")
