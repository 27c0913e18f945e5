"""The index a data scientist holds: vectors in, neighbors out, at the recall that was asked for.

Everything here is in terms of ids and recall; rows, leaves and candidates are the engines' business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument, NotFound

from .assembly import build, retuned
from .distance import DistanceMeasure, FeatureNorm, Floats, is_scaled
from .engines import Rows
from .explain import Explanation, explain
from .files import link_files
from .filters import as_where
from .manifest import Manifest, file_entry, list_files, write_manifest
from .opening import opened, shard_name
from .planner import MAX_NEIGHBORS, Planner, check_whole
from .result import Datapoint, SearchResult, check_fields, datapoints_of, hits_of, vectors_of
from .shard import Shard
from .tuning import Progress, Recall, recall_of
from .vectors import as_queries, unit_norm


class Index:
    """Immutable; safe to search from many threads at once. Made by `build` or `open`."""

    def __init__(self, shard: Shard, manifest: Manifest, origin: Path | None = None) -> None:
        self._shard = shard
        self._origin = origin
        self.manifest = manifest
        self._scaled = is_scaled(manifest.distance_measure, manifest.feature_norm)
        self._planner = Planner(manifest.tuning, shard.engine.leaves)
        # Looked up here, for Python 3.11 takes its time with members of an Enum.
        self._is_cosine = manifest.distance_measure is DistanceMeasure.COSINE_DISTANCE

    @classmethod
    def build(
        cls,
        vectors: Any,
        ids: Iterable[str] | None = None,
        *,
        crowding_tags: Iterable[str | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        restricts: Any = None,
        shards: int = 1,
        distance_measure: str = DistanceMeasure.DOT_PRODUCT_DISTANCE,
        feature_norm: str = FeatureNorm.NONE,
        engine: Any = "auto",
        target_recall: float = 0.95,
        tuning_queries: Any = None,
        memory_budget: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Build an index, and measure how hard it must look for which recall.

        Args:
            vectors: [n, dimension], any numeric NumPy type; 1 to 4,096 dimensions. An array that is
                float32 and C-contiguous already may be kept without a copy: do not change it after.
            ids: A unique string of at most 1 KiB for each; None numbers them "0", "1", …
            crowding_tags: A string, or None, for each; see `search`.
            metadata: A mapping that JSON can hold, or None, for each.
            restricts: What a search can filter by: columns, `{"language": ["de", …], "year": [2020, …]}`,
                or a mapping or a list of restricts for each datapoint; see `filters.collect`.
            shards: Parts that are built in processes of their own and searched side by side, 1 to 1,024; the
                hash of its id says which part a datapoint is in. An engine's build parameters hold for
                each. Rows of results then count through the shards, not through `vectors`. Fewer than
                1,000 datapoints a shard are not split.
            distance_measure: A `DistanceMeasure`.
            feature_norm: A `FeatureNorm`; UNIT_L2_NORM scales vectors and queries to length 1.
            engine: "auto", "exact", "scann", "faiss_cpu", or build parameters such as
                `ScannParameters(leaves=500)` and `FaissParameters.hnsw()`.
            target_recall: Recall at k = 10 that a search reaches when it says nothing else, over 0 to 1.
            tuning_queries: [q, dimension]; real queries to measure with. Without them a sample of the
                vectors asks, which flatters where queries come from elsewhere.
            memory_budget: Bytes that the engine's codes and vectors may take; it then keeps the finest
                of FLOAT32, BFLOAT16 and INT8 that fits. None for FLOAT32.
            seed: Of the samples drawn here; ScaNN's training takes none.
            threads: For training; None for one a core.
            progress: Called with (stage, done, total); stages are "build", "tune" and, with
                restricts, "filters".

        Raises:
            InvalidArgument: Anything wrong with the above; the message names the row and what would do.
        """
        return cls(
            *build(
                vectors,
                ids,
                crowding_tags=crowding_tags,
                metadata=metadata,
                restricts=restricts,
                shards=shards,
                distance_measure=distance_measure,
                feature_norm=feature_norm,
                engine=engine,
                target_recall=target_recall,
                tuning_queries=tuning_queries,
                memory_budget=memory_budget,
                seed=seed,
                threads=threads,
                progress=progress,
            )
        )

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Self:
        """Map an index that `save` wrote.

        Args:
            folder: Where.
            verify: Compare every file's checksum; False compares sizes alone.

        Raises:
            NotFound: There is no such folder.
            DataLoss: A file is missing, cut short or changed; the message names it.
            FailedPrecondition: A newer program wrote it.
        """
        path = Path(folder)
        return cls(*opened(path, verify=verify), path)

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        files: Mapping[str, Callable[[Path], None]] | None = None,
        **manifest: Any,
    ) -> Manifest:
        """Write the index into a new or empty folder; fields of its manifest can be given.

        An index that was opened shares its files with the folder it came from, by hard link where the
        file system has them: files of an index never change. `Store.publish` does this so that a crash
        leaves the old version or the new.

        Args:
            folder: Where.
            files: More files of the version, by name, each written by a function of its path; they go
                wherever the version goes.
            manifest: Fields of the manifest.

        Returns:
            The manifest as written, with every file's size and checksum.

        Raises:
            InvalidArgument: The folder is not empty.
            DataLoss: The folder that the index was opened from lacks a file by now.
            OSError: It cannot be written.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise InvalidArgument(f"{path} is not empty", field="folder")
        if self._origin is None:
            for number, part in enumerate(self._shard.parts or (self._shard,)):
                (path / shard_name(number)).mkdir()
                part.save(path / shard_name(number))
            entries = list_files(path)
        else:
            # Not counted anew: damage since then must not be sealed.
            entries = {
                name: entry for name, entry in self.manifest.files.items() if name not in (files or {})
            }
            link_files(entries, self._origin, path)
        for name, write in (files or {}).items():
            write(path / name)
            entries[name] = file_entry(path / name)
        written = msgspec.structs.replace(self.manifest, **manifest, files=entries)
        write_manifest(written, path)
        return written

    def tuned(
        self,
        queries: Any = None,
        *,
        target_recall: float | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Self:
        """The same index with its operating points measured anew, on other queries or for another recall.

        Args:
            queries: [q, dimension], or None for a sample of the vectors; as `tuning_queries` of `build`.
            target_recall: As in `build`; None for the one it has.
            seed: Of samples.
            progress: As in `build`.

        Raises:
            InvalidArgument: Anything wrong with the above.
        """
        shard, manifest = retuned(
            self._shard, self.manifest, queries, target_recall=target_recall, seed=seed, progress=progress
        )
        return type(self)(shard, manifest, self._origin)

    def over(self, shard: Shard) -> Index:
        """An index over other datapoints, planned by what was measured with these."""
        other = Index.__new__(Index)
        other.manifest, other._scaled, other._planner = self.manifest, self._scaled, self._planner
        other._shard, other._origin, other._is_cosine = shard, None, self._is_cosine
        return other

    @property
    def can_be_filtered(self) -> bool:
        """Whether `where` has anything to go by."""
        return self._shard.can_be_filtered

    @property
    def shard(self) -> Shard:
        """The datapoints by row, and what searches them."""
        return self._shard

    def file(self, name: str) -> Path | None:
        """One of `save`'s `files` of the version that this was opened from; None where it has none."""
        return self._origin / name if self._origin is not None and name in self.manifest.files else None

    def __len__(self) -> int:
        return len(self._shard)

    def __repr__(self) -> str:
        entry = self.manifest
        return f"<Index: {len(self)} × {entry.dimension}, {entry.distance_measure}, {entry.engine.name}>"

    @property
    def on_device(self) -> bool:
        """Whether a GPU searches it, which likes large batches."""
        return self._shard.engine.on_device

    @property
    def dimension(self) -> int:
        """Of every vector."""
        return self.manifest.dimension

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        target_recall: float | None = None,
        fraction_leaf_nodes_to_search: float | None = None,
        approximate_neighbor_count: int | None = None,
        crowding: int | None = None,
        where: Any = None,
    ) -> SearchResult:
        """The k nearest datapoints of each query.

        Args:
            queries: [q, dimension], or one query, [dimension].
            k: 1 to 10,000; where the index holds fewer, all are returned.
            target_recall: Picks the cheapest operating point measured to reach it; 1 searches exactly.
                None stands for the recall the index was built for.
            fraction_leaf_nodes_to_search: Over 0 to 1; how many of the leaves to visit instead.
            approximate_neighbor_count: How many candidates to score again in full instead, at least k.
            crowding: At most so many neighbors of one crowding tag: as if all datapoints were ranked,
                the first `crowding` of each tag kept (untagged ones always), and the first k taken.
            where: Only datapoints that pass: `{"language": ["de", "fr"], "year": {">=": 2020}}`; see
                `filters.as_where`. `target_recall` plans it; leaves and candidates are the engine's and have
                no say here.

        Raises:
            InvalidArgument: Any of these is out of range, or a query is not finite.
            FailedPrecondition: `where` is given, and the index was built without restricts.
        """
        matrix = as_queries(queries, self.dimension)
        parameters = self._planner.plan(
            k, target_recall, fraction_leaf_nodes_to_search, approximate_neighbor_count
        )
        if crowding is not None:
            check_whole("crowding", crowding, 1, MAX_NEIGHBORS)
        if self._scaled:
            matrix, _ = unit_norm(matrix)
        plan, shard = None, self._shard
        target = self.manifest.tuning.target_recall if target_recall is None else target_recall
        if where is None:
            rows, distances = shard.search(matrix, k, parameters, crowding, target)
        else:
            rows, distances, plan = shard.search_where(matrix, k, as_where(where), target, crowding)
        if self._is_cosine:
            distances = np.clip(np.float32(1) - distances, 0, 2)
        return SearchResult(rows, distances, self.manifest.distance_measure, shard, plan)

    def explain(self, query: Any, k: int = 10, **options: Any) -> Explanation:
        """Search for one query, options as in `search`, and say what was done and how much was found."""
        matrix = as_queries(query, self.dimension, field="query")
        if len(matrix) != 1:
            raise InvalidArgument(f"query holds {len(matrix)} vectors; one is explained", field="query")

        def search(shard: Shard, *arguments: Any, **named: Any) -> SearchResult:
            return self.over(shard).search(*arguments, **named)

        return explain(self.manifest, self._shard, search, matrix, k, options)

    def search_ids(self, ids: Sequence[str], k: int = 10, **options: Any) -> SearchResult:
        """The k nearest of stored datapoints, each itself among them; options as in `search`.

        Raises:
            NotFound: Ids that the index does not hold.
        """
        return self.search(self.vectors(ids), k, **options)

    def vectors(self, ids: Sequence[str]) -> Floats:
        """The stored vectors of these ids, in their order, as they were given; float32 [len(ids), dimension].

        Raises:
            NotFound: Ids that the index does not hold.
        """
        return self.vectors_of(self._rows(ids))

    def read(self, ids: Sequence[str], *, fields: Sequence[str] | None = None) -> list[Datapoint]:
        """The stored datapoints with these ids, in their order; of their metadata all, or these fields.

        Raises:
            NotFound: Ids that the index does not hold.
        """
        check_fields(fields)
        return datapoints_of(self._shard, self._rows(ids), fields)

    def metadata_field(self, name: str) -> list[Any]:
        """One field of every datapoint's metadata, in order; None where it has none."""
        rows = (self._shard.attributes.metadata(row, (name,)) for row in self._shard.rows().tolist())
        return [(row or {}).get(name) for row in rows]

    def id_hashes(self) -> npt.NDArray[np.uint64]:
        """The xxh3_64 of every id, ascending, uint64 [n]; tells indexes apart without reading their ids."""
        return self._shard.ids.hashes

    def sample_ids(self, count: int, seed: int = 0) -> list[str]:
        """The ids of up to `count` datapoints drawn at random."""
        rows = np.random.default_rng(seed).permutation(self._shard.rows())[:count]
        ids: list[str] = self._shard.ids.of(rows).tolist()
        return ids

    def measure_recall(self, queries: Any, k: int = 10, *, target_recall: float | None = None) -> Recall:
        """Recall at k of a search for `target_recall` against exact search, with its interval.

        Args:
            queries: [q, dimension], as in `search`.
            k: As in `search`; at most as many as the index holds are counted.
            target_recall: As in `search`.
        """
        now = self.over(self._shard)  # both searches see the same datapoints
        k, asked = min(k, len(now)), as_queries(queries, self.dimension)
        found = now.search(asked, k, target_recall=target_recall)
        truth = now.search(asked, k, target_recall=1.0)
        return recall_of(hits_of(found, truth, asked), k)

    def sample_recall(self, k: int = 10, *, sample: int = 200, seed: int = 0) -> Recall:
        """Recall of the default operating point now, asked by a sample of the datapoints themselves, none of
        which counts itself: of k neighbors k − 1 are others."""
        now = self.over(self._shard)
        k, own = min(k, len(now)), now._rows(now.sample_ids(sample, seed))
        asked = vectors_of(now._shard, own)
        found = now.search(asked, k)
        hits = hits_of(found, now.search(asked, k, target_recall=1.0), asked)
        others = np.minimum(hits - (found.rows == own[:, np.newaxis]).any(axis=1), k - 1)
        return recall_of(others, k - 1) if k > 1 else recall_of(hits, 1)

    def _rows(self, ids: Sequence[str]) -> Rows:
        if isinstance(ids, str):
            raise InvalidArgument(f"ids is the string {ids!r}; it must be a list of strings", field="ids")
        rows = self._shard.ids.rows_of(ids)
        missing = [repr(ids[i]) for i in np.flatnonzero(rows < 0).tolist()]
        if missing:
            named = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            raise NotFound(f"no datapoint has the id {named}", field="ids")
        return rows

    def vectors_of(self, rows: Rows) -> Floats:
        """The vectors of rows as they were given, float32 [len(rows), dimension]."""
        return vectors_of(self._shard, rows)
