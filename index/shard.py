"""One shard: vectors, engine, ids and attributes of a set of datapoints, row by row in the same order.

Rows and distances leave here complete: where the engine comes up short, the net widens, to exact at last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from earshot.errors import DataLoss, FailedPrecondition

from .attributes import Attributes
from .crowding import crowded_search
from .distance import DistanceMeasure, Floats
from .engines import ENGINES, Engine, ExactEngine, QueryParameters, Rows
from .files import link_files, save_array
from .filters import Collected, Filters, FilterTuning, Plan, Where
from .ids import Ids
from .manifest import EngineEntry, sizes_of
from .tuning import Progress, Tuning, tune
from .vectors import unit_norm

VECTORS_FILE = "vectors.npy"
NORMS_FILE = "norms.npy"
ENGINE_FOLDER = "engine"
_FILTERS = "filters"
_WIDENING = 4


@dataclass(frozen=True)
class Shard:
    """Datapoints by row.

    Attributes:
        vectors: As they are compared, float32 [n, dimension].
        norms: The lengths they had where they were scaled to 1, float32 [n], else None.
        engine: Searches them.
        exact: Searches them too, and always finds.
        ids: Row → id and back.
        attributes: Crowding tags and metadata.
        filters: Finds what passes a filter; None where the index was built without restricts.
        parts: The shards that it stands for; see `sharded.combine`.
        written: The folder where vectors and engine lie already as `save` writes them, and what keeps it.
        sequence: Of the last update among these datapoints, where they are followed by updates.
    """

    vectors: Floats
    norms: Floats | None
    engine: Engine
    exact: ExactEngine
    ids: Ids
    attributes: Attributes
    filters: Filters | None = None
    parts: tuple[Shard, ...] = ()
    written: tuple[object, Path] | None = None
    sequence: int = 0

    @classmethod
    def build(
        cls,
        vectors: Floats,
        ids: Ids,
        attributes: Attributes,
        *,
        scaled: bool,
        measure: DistanceMeasure,
        engine: type[Engine],
        parameters: Any,
        threads: int,
    ) -> Self:
        """Train the engine in this process.

        Args:
            scaled: Whether vectors are scaled to unit length; `vectors` is then copied, otherwise kept.
            measure: As the engine sees it.
        """
        norms = None
        if scaled:
            vectors, norms = unit_norm(vectors)
        built = engine.build(vectors, measure, parameters, threads=threads)
        return cls(vectors, norms, built, ExactEngine(vectors, measure), ids, attributes)

    def tune(
        self,
        queries: Floats | None,
        measure: DistanceMeasure,
        target_recall: float,
        seed: int,
        progress: Progress,
    ) -> Tuning:
        """Measure operating points; `measure` as the engine sees it."""
        return tune(
            self.engine,
            self.exact,
            self.vectors,
            queries,
            higher_is_closer=measure.higher_is_closer,
            target_recall=target_recall,
            seed=seed,
            progress=progress,
        )

    def with_filters(
        self,
        collected: Collected,
        measure: DistanceMeasure,
        *,
        queries: Floats | None,
        seed: int,
        progress: Progress,
    ) -> Self:
        """The same shard with filters; arguments as in `Filters.build`."""
        filters = Filters.build(
            collected,
            self.vectors,
            self.engine,
            self.exact,
            measure,
            queries=queries,
            seed=seed,
            progress=progress,
        )
        return replace(self, filters=filters)

    def save(self, folder: Path) -> None:
        """Write the shard's files into `folder`, which exists and is empty."""
        if self.written is not None:
            origin = self.written[1]
            link_files(sizes_of(origin), origin, folder)
        else:
            (folder / ENGINE_FOLDER).mkdir()
            self.engine.save(folder / ENGINE_FOLDER, folder / VECTORS_FILE)
            if not (folder / VECTORS_FILE).exists():
                save_array(folder / VECTORS_FILE, self.vectors)
            if self.norms is not None:
                save_array(folder / NORMS_FILE, self.norms)
        self.ids.save(folder)
        self.attributes.save(folder)
        if self.filters is not None:
            (folder / _FILTERS).mkdir()
            self.filters.save(folder / _FILTERS)

    @classmethod
    def open(
        cls,
        folder: Path,
        entry: EngineEntry,
        filters: bool,
        filter_tuning: FilterTuning | None,
        measure: DistanceMeasure,
        dimension: int,
        *,
        scaled: bool,
    ) -> Self:
        """Map the shard that `save` wrote.

        Raises:
            DataLoss: A file is missing, damaged, or does not fit the others.
        """
        vectors = mapped_vectors(folder, dimension)
        norms = mapped(folder / NORMS_FILE, 1) if scaled else None
        kind = ENGINES.get(entry.name)
        if kind is None:
            raise DataLoss(f"{folder} was built with engine {entry.name!r}, which this program does not have")
        parameters = msgspec.convert(entry.parameters, kind.parameters_type)
        ids, attributes = Ids.open(folder), Attributes.open(folder)
        for name, count in (("ids", len(ids)), ("attributes", len(attributes))):
            if count != len(vectors):
                raise DataLoss(f"{folder} holds {len(vectors)} vectors but {count} {name}")
        engine = kind.load(folder / ENGINE_FOLDER, folder / VECTORS_FILE, vectors, measure, parameters)
        exact = ExactEngine(vectors, measure)
        opened = None
        if filters:
            opened = Filters.open(folder / _FILTERS, filter_tuning, vectors, engine, exact, measure)
        return cls(vectors, norms, engine, exact, ids, attributes, opened)

    def __len__(self) -> int:
        return len(self.vectors)

    def watched(self, watch: Callable[[Any, str], Any]) -> Self:
        """The same shard, with `watch` around each part that searches, told the part's name."""
        exact = watch(self.exact, self.exact.name)
        engine = exact if self.engine is self.exact else watch(self.engine, self.engine.name)
        filters = None if self.filters is None else watch(self.filters, "filtered")
        return replace(self, engine=engine, exact=exact, filters=filters)

    @property
    def can_be_filtered(self) -> bool:
        """Whether any datapoint could have restricts."""
        return self.filters is not None

    def rows(self) -> Rows:
        """The rows that hold a datapoint, ascending, int64."""
        return np.arange(len(self))

    def restricts_of(self, row: int) -> Where:
        """What a row can be found by."""
        return () if self.filters is None else self.filters.of(row)

    def search(
        self,
        queries: Floats,
        k: int,
        parameters: QueryParameters | None,
        crowding: int | None,
        target_recall: float | None = None,
    ) -> tuple[Rows, Floats]:
        """The k nearest rows of each query, or all there are; None for parameters searches exactly.

        The engine goes by its parameters; `target_recall` is for what has none.

        Returns:
            rows int64 [q, w] and distances float32 [q, w], where w is k or, with fewer datapoints to
            answer with, their number; every place is filled.
        """
        del target_recall
        if crowding is None:
            return self._search(queries, min(k, len(self)), parameters)

        def near(queries: Floats, net: int, widening: int) -> tuple[Rows, Floats]:
            wider = parameters and QueryParameters(
                parameters.leaves * widening, parameters.candidates * widening
            )
            # Most of the rows are wanted: a partition saves nothing, and the last word must be exact.
            return self._search(queries, net, None if 4 * net > len(self) else wider)

        width = min(k, self.attributes.reachable(crowding))
        return crowded_search(near, queries, width, self.attributes.crowding_codes, crowding)

    def search_where(
        self, queries: Floats, k: int, where: Where, target_recall: float | None, crowding: int | None
    ) -> tuple[Rows, Floats, Plan]:
        """The k nearest rows of each query that pass a filter, or all that do; None searches exactly.

        Returns:
            rows and distances as `search` does, and what the (first) search did.

        Raises:
            FailedPrecondition: The index was built without restricts.
        """
        filters = self.filters
        if filters is None:
            raise FailedPrecondition("the index was built without restricts, so it cannot be filtered")
        if crowding is None:
            return filters.search(queries, k, where, target_recall)
        plans: list[Plan] = []

        def near(queries: Floats, net: int, widening: int) -> tuple[Rows, Floats]:
            del widening
            rows, distances, plan = filters.search(queries, net, where, target_recall)
            plans.append(plan)
            return rows, distances

        codes = self.attributes.crowding_codes
        tags = codes[filters.passing(where).rows]
        tagged = np.bincount(tags[tags >= 0])
        width = min(k, len(tags) + int(np.minimum(tagged, crowding).sum() - tagged.sum()))
        found = crowded_search(near, queries, width, codes, crowding)
        return *found, plans[0] if plans else filters.search(queries, 0, where, None)[2]

    def _search(self, queries: Floats, k: int, parameters: QueryParameters | None) -> tuple[Rows, Floats]:
        if parameters is None or not self.engine.leaves:
            return self.exact.search(queries, k)
        rows, distances = self.engine.search(queries, k, parameters)
        # Of one row NumPy's reductions take longer than all else here.
        if rows[0, -1] < 0 if len(rows) == 1 else rows[:, -1].min(initial=0) < 0:
            short = np.flatnonzero(rows[:, -1] < 0)
            wider = QueryParameters(parameters.leaves * _WIDENING, parameters.candidates)
            all_visited = parameters.leaves >= self.engine.leaves
            again = self._search(np.ascontiguousarray(queries[short]), k, None if all_visited else wider)
            rows[short], distances[short] = again
        return rows, distances


def mapped_vectors(folder: Path, dimension: int) -> Floats:
    """A shard's vectors, float32 [n, dimension]; columns of an engine's own may follow in the file."""
    array = mapped(folder / VECTORS_FILE, 2)
    if array.shape[1] < dimension:
        raise DataLoss(f"{folder / VECTORS_FILE} has {array.shape[1]} columns; the index has {dimension}")
    return array[:, :dimension]


def mapped(path: Path, dimensions: int) -> Floats:
    """A float32 array on disk. Raises DataLoss where it is not that."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataLoss(f"{path} cannot be read: {error}") from error
    if array.dtype != np.float32 or array.ndim != dimensions:
        raise DataLoss(f"{path} holds {array.dtype} of shape {array.shape}; the index needs float32")
    return np.asarray(array)
