"""The narrow seam between the index and what searches vectors.

An engine knows rows and numbers only. Ids, filters, crowding and merging live above and are written once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from ..distance import DistanceMeasure, Floats

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class QueryParameters:
    """How hard to look.

    Attributes:
        leaves: Partitions visited. Raising it costs time in proportion and finds neighbors that lie
            across a partition's border.
        candidates: Rows kept by the quantised score and scored again in full. Raising it mends the
            quantisation's mistakes; 0 stands for k.
    """

    leaves: int
    candidates: int


class Engine(Protocol):
    """Searches the rows of one matrix under one measure; COSINE never reaches it (unit vectors, dot)."""

    name: ClassVar[str]
    measures: ClassVar[frozenset[DistanceMeasure]]
    parameters_type: ClassVar[type[Any]]

    @property
    def parameters(self) -> Any:
        """The build parameters, a frozen dataclass."""

    @property
    def leaves(self) -> int:
        """Partitions; 0 where there are none, and then query parameters change nothing."""

    @property
    def rescores(self) -> bool:
        """Whether candidates are scored again in full; where not, their number changes nothing."""

    @property
    def on_device(self) -> bool:
        """Whether another processor than the caller's does the work: it likes large batches, and takes time
        that the caller's processor does not count."""

    @property
    def served_by(self) -> str:
        """What searches here, its name for most; other where an engine for a GPU finds none."""

    @classmethod
    def choose(
        cls,
        count: int,
        dimension: int,
        measure: DistanceMeasure,
        memory_budget: int | None = None,
        target_recall: float = 0.95,
    ) -> Any:
        """Build parameters for so many vectors and the recall that will mostly be asked for, or None where
        there are too few for this engine.

        Raises:
            InvalidArgument: They need more than `memory_budget` bytes, however coarse.
        """

    @classmethod
    def build(cls, vectors: Floats, measure: DistanceMeasure, parameters: Any, *, threads: int) -> Self:
        """An engine over `vectors`, float32 [n, dimension], C-contiguous, not to be changed after."""

    def save(self, folder: Path, vectors_file: Path) -> None:
        """Write what `load` needs. `vectors_file` may be written too if the engine keeps the vectors as
        `.npy` anyway; it may then read them from there, and no second copy lies on disk. Columns of the
        engine's own may follow those of the vectors."""

    @classmethod
    def load(
        cls, folder: Path, vectors_file: Path, vectors: Floats, measure: DistanceMeasure, parameters: Any
    ) -> Self:
        """The engine that `save` wrote; `vectors` is `vectors_file`, memory-mapped, without columns that the
        engine added."""

    def search(self, queries: Floats, k: int, parameters: QueryParameters) -> tuple[Rows, Floats]:
        """The k nearest rows, best first, called from many threads at once.

        Args:
            queries: float32 [q, dimension], C-contiguous, finite.
            k: 1 to the number of rows.
            parameters: Ignored by an engine without partitions.

        Returns:
            rows int64 [q, k], −1 where the engine came up short; distances float32 [q, k], there NaN.
        """
