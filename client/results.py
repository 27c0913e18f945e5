"""What the client answers with: small frozen values, vectors as NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from earshot.errors import EarshotError, from_code

__all__ = [
    "Datapoint",
    "Explanation",
    "Index",
    "IndexVersion",
    "Neighbor",
    "Operation",
    "RebuildReport",
    "Removed",
    "SearchResults",
    "Step",
    "Upserted",
]


class _Stored:
    """Equality by value although a vector is among the fields, for which `==` gives an array."""

    __slots__ = ()
    id: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(
            np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine is theirs or mine == theirs
            for mine, theirs in (
                (getattr(self, each.name), getattr(other, each.name))
                for each in fields(self)  # type: ignore[arg-type]  # the subclasses are dataclasses
            )
        )

    def __hash__(self) -> int:
        return hash(self.id)


@dataclass(frozen=True, slots=True, eq=False)
class Datapoint(_Stored):
    """What an index holds under an id. `vector`: float32, shape (dimensions,), as it was given.

    `restricts` is what a search can filter by, such as `{"language": ["de"], "year": 2020}`.
    """

    id: str
    vector: NDArray[np.float32] | None
    crowding_tag: str | None
    metadata: dict[str, Any]
    restricts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbor(_Stored):
    """One result of a search.

    `score` is always higher for closer; `distance` is the index's own measure (dot product,
    1 - cosine, squared L2 or L1). `vector` (float32, shape (dimensions,)) and `restricts` are there where
    `return_full_datapoint` asked for them.
    """

    id: str
    score: float
    distance: float
    metadata: dict[str, Any]
    crowding_tag: str | None = None
    vector: NDArray[np.float32] | None = None
    restricts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an engine: how many neighbors it was asked for, how hard it looked where that was said."""

    name: str
    neighbor_count: int
    leaves: int | None
    candidates: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one query was answered.

    `target_recall` is what was asked for and `measured_recall` what was measured for it when the index was
    built; None where parameters or a filter decided instead. `found_count` of the `true_count` neighbors
    that exact search finds were found. `filter_path` is how a filter was searched, `passing_count` how
    many datapoints pass it.
    """

    engine: str
    datapoint_count: int
    leaf_count: int
    target_recall: float | None
    measured_recall: float | None
    filter_path: str
    passing_count: int | None
    steps: tuple[Step, ...]
    found_count: int
    true_count: int


@dataclass(frozen=True, slots=True)
class Upserted:
    """What became of an upsert.

    `sequence` is the number of the last datapoint written, `count` how many were; `errors` says what was
    wrong with the others, by their position.
    """

    sequence: int
    count: int
    errors: dict[int, EarshotError]


@dataclass(frozen=True, slots=True)
class Removed:
    """What became of a removal: its sequence number, and how many of the ids were there."""

    sequence: int
    count: int


@dataclass(frozen=True, slots=True)
class SearchResults(Sequence[Neighbor]):
    """The neighbors, nearest first, as a sequence; equal when they say the same, however long it took.

    `index_version` is the version that answered (`indexes/podcasts/versions/v000001`);
    `embed_seconds` is None where the query was not a text, `explanation` where none was asked for.
    `sequence` is the number of the last update that the answer knows.
    """

    neighbors: tuple[Neighbor, ...]
    index_version: str
    embed_seconds: float | None = field(default=None, compare=False)
    search_seconds: float = field(default=0.0, compare=False)
    explanation: Explanation | None = field(default=None, compare=False)
    sequence: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return len(self.neighbors)

    @overload
    def __getitem__(self, position: int) -> Neighbor: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Neighbor, ...]: ...
    def __getitem__(self, position: int | slice) -> Neighbor | tuple[Neighbor, ...]:
        return self.neighbors[position]


@dataclass(frozen=True, slots=True)
class Index:
    """One index as it is served now. `name` is `indexes/podcasts`; recalls are shares of 1.

    `config` has the fields that were asked for, `etag` changes with them and with the current version, and
    `problem` says why no version or an older one is served.
    """

    name: str
    current_version: str
    dimensions: int
    distance_measure: str
    datapoint_count: int
    model: str
    engine: str
    target_recall: float
    measured_recall: float
    update_time: datetime | None
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    etag: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version of an index on disk; one that is not `complete` is never served."""

    name: str
    current: bool
    datapoint_count: int
    measured_recall: float
    size_bytes: int
    create_time: datetime | None
    complete: bool


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What came of a rebuild; `published` is False where nothing had changed. Recalls are shares of 1."""

    index_version: str
    published: bool
    documents: int
    datapoints: int
    embedded: int
    measured_recall: float
    measured_recall_low: float
    measured_recall_high: float
    bad_records: int
    first_bad_records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """A job over an index that a server runs; `name` is `indexes/podcasts/operations/…`.

    `step` is what it is at, of which `step_done` of `step_total` is done. When all is `done` there is a
    `report`, or the error's code and message.
    """

    name: str
    index: str
    done: bool
    step: str
    step_done: int
    step_total: int
    create_time: datetime | None
    end_time: datetime | None
    error_code: str = ""
    error_message: str = ""
    report: RebuildReport | None = None

    def raise_error(self) -> None:
        """Raises what it failed with, if it did."""
        if self.error_code:
            raise from_code(self.error_code, f"{self.name}: {self.error_message}")
