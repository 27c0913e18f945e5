"""The service: what a request means. It knows no transport; each face calls the same methods.

All methods are synchronous, thread-safe and raise only `earshot.errors`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from earshot.errors import InvalidArgument
from earshot.index import Explanation, SearchResult

from . import messages
from .batch import batch_kind, batch_texts, batch_vectors
from .embedders import Embedders
from .index_service import IndexService
from .names import index_id, version_name
from .operations import Operations
from .registry import Registry
from .search import (
    SearchPlan,
    attach,
    datapoint_of,
    explain,
    find,
    model_of,
    plan_search,
    query_kind,
    query_text,
    query_vector,
)
from .served_index import ServedIndex
from .telemetry import note_queries, stage
from .updates import Updates
from .visible import check_visible

__all__ = ["Service"]

MAX_READ = 1_000


class Service:
    """Search and read over the indexes of a registry; `indexes` is what makes and changes them.

    Without `operations` no rebuild can be asked for.
    """

    def __init__(
        self,
        registry: Registry,
        embedders: Embedders,
        operations: Operations | None = None,
    ) -> None:
        self.registry = registry
        self.indexes = IndexService(registry, embedders, operations)
        self._embedders = embedders
        self.updates = Updates(registry, self.embed)

    def search(self, request: messages.SearchRequest) -> messages.SearchResponse:
        """The neighbors of one query.

        Raises NotFound for an unknown index or datapoint id, InvalidArgument for everything that is
        wrong with the request itself, FailedPrecondition for text on an index without a model.
        """
        served = self.registry.get(index_id(request.index))
        note_queries(served.name, served.version, 1, request.text)
        plan = plan_search(request, served)
        query, embed_seconds = self._query_vector(request, served)
        if request.explain:
            with stage("engine"):
                explained = explain(plan, query)
            answer = _answers(plan, explained.result, explained.seconds, embed_seconds)[0]
            return msgspec.structs.replace(answer, explanation=_explanation(explained))
        started = time.perf_counter()
        with stage("engine"):
            found = find(plan, query)
        return _answers(plan, found, time.perf_counter() - started, embed_seconds)[0]

    def batch_search(self, request: messages.BatchSearchRequest) -> messages.BatchSearchResponse:
        """The neighbors of many queries, in one call of the engine. Raises as `search`, for all of them."""
        served = self.registry.get(index_id(request.index))
        plan = plan_search(request, served)
        queries, embed_seconds = self._query_vectors(request, plan)
        note_queries(served.name, served.version, len(queries))
        started = time.perf_counter()
        with stage("engine"):
            found = find(plan, queries)
        answers = _answers(plan, found, time.perf_counter() - started, embed_seconds)
        return messages.BatchSearchResponse(responses=answers)

    def read_datapoints(self, request: messages.ReadDatapointsRequest) -> messages.ReadDatapointsResponse:
        """Datapoints by id, in full. Raises NotFound naming the ids that are missing."""
        if not 1 <= len(request.ids) <= MAX_READ:
            raise InvalidArgument(
                f"ids: {len(request.ids)} given, 1 to {MAX_READ} can be read at a time", field="ids"
            )
        served = self.registry.get(index_id(request.index))
        note_queries(served.name, served.version, 0)
        index = served.index
        check_visible(index, request.min_sequence)
        return messages.ReadDatapointsResponse(
            datapoints=[
                datapoint_of(found)
                for found in index.read(request.ids, fields=request.metadata_fields or None)
            ]
        )

    def _query_vector(
        self, request: messages.SearchRequest, served: ServedIndex
    ) -> tuple[NDArray[np.float32], float | None]:
        kind = query_kind(request)
        if kind == "datapoint_id":
            return served.index.vectors([request.datapoint_id or ""])[0], None
        if kind == "vector":
            return query_vector(request.vector or messages.Vector(), served), None
        text = query_text(request.text or "")
        started = time.perf_counter()
        return self.embed(served, [text])[0], time.perf_counter() - started

    def _query_vectors(
        self, request: messages.BatchSearchRequest, plan: SearchPlan
    ) -> tuple[NDArray[np.float32], float | None]:
        kind = batch_kind(request, plan)
        if kind == "datapoint_ids":
            return plan.served.index.vectors(request.datapoint_ids), None
        if kind == "vectors":
            return batch_vectors(request.vectors, plan.served), None
        texts = batch_texts(request.texts)
        started = time.perf_counter()
        return self.embed(plan.served, texts), time.perf_counter() - started

    def embed(self, served: ServedIndex, texts: Sequence[str]) -> NDArray[np.float32]:
        """Texts as vectors of the index, float32 [q, dimension].

        Raises FailedPrecondition where the index has no model, or another one is here.
        """
        with stage("embed"):
            embed = self._embedders.get(model_of(served))
            return np.stack([embed(text) for text in texts])


def _answers(
    plan: SearchPlan, found: SearchResult, seconds: float, embed_seconds: float | None
) -> list[messages.SearchResponse]:
    with stage("encode"):
        return [
            messages.SearchResponse(
                neighbors=attach(plan, found, query),
                index_version=version_name(plan.served.name, plan.served.version),
                search_duration=_duration(seconds),
                sequence=found.sequence,
                embed_duration=None if embed_seconds is None else _duration(embed_seconds),
            )
            for query in range(len(found))
        ]


def _explanation(explained: Explanation) -> messages.Explanation:
    return messages.Explanation(
        engine=explained.engine,
        datapoint_count=explained.datapoints,
        leaf_count=explained.leaves,
        steps=[
            messages.Step(step.name, step.neighbors, _duration(step.seconds), step.leaves, step.candidates)
            for step in explained.steps
        ],
        found_count=explained.found,
        true_count=explained.true,
        target_recall=explained.target_recall,
        measured_recall=None if explained.point is None else explained.point.recall.value,
        filter_path="" if explained.filter is None else str(explained.filter.path),
        passing_count=None if explained.filter is None else explained.filter.passing,
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.6f}s"
