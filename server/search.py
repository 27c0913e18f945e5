"""One search in its steps, so that a face may put a batch between any two: plan, vector, find, attach.

Each step is a plain function over the service's own types; `Service.search` runs them in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earshot.errors import FailedPrecondition, InvalidArgument
from earshot.index import Datapoint, Explanation, SearchResult
from earshot.index.filters import Where

from . import messages
from .restricts import restricts_of, where_of
from .served_index import ServedIndex
from .visible import check_visible

__all__ = [
    "SearchPlan",
    "attach",
    "datapoint_of",
    "explain",
    "find",
    "model_of",
    "plan_search",
    "query_kind",
    "query_text",
    "query_vector",
]

MAX_NEIGHBORS = 10_000
MAX_TEXT_CHARACTERS = 32_768
DEFAULT_NEIGHBORS = 10


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """Where and how to search; queries with equal plans may go to the engine together."""

    served: ServedIndex
    k: int
    target_recall: float | None
    approximate_neighbor_count: int | None
    fraction_leaf_nodes_to_search: float | None
    crowding: int | None
    full: bool
    where: Where | None
    fields: tuple[str, ...] | None
    """Of the metadata; None for all."""

    @property
    def is_usual(self) -> bool:
        """Whether the recall that the index promises is what was asked for."""
        return (
            self.where is None
            and self.target_recall == self.served.target_recall
            and self.approximate_neighbor_count is None
            and self.fraction_leaf_nodes_to_search is None
        )


def plan_search(request: messages.SearchOptions, served: ServedIndex) -> SearchPlan:
    """Everything of a request but the query itself.

    Raises InvalidArgument, and FailedPrecondition for a filter on an index that cannot be filtered.
    """
    if request.min_sequence:
        check_visible(served.index, request.min_sequence)
    where = where_of(request.restricts, request.numeric_restricts)
    if where is not None and not served.index.can_be_filtered:
        raise FailedPrecondition(
            f"index {served.name!r} was built without restricts, so it cannot be filtered: build it "
            "with some",
            field="restricts",
        )
    return SearchPlan(
        served,
        _neighbor_count(request.neighbor_count),
        _target_recall(request, served),
        request.approximate_neighbor_count,
        request.fraction_leaf_nodes_to_search_override,
        _crowding(request.per_crowding_attribute_neighbor_count, served),
        request.return_full_datapoint,
        where,
        tuple(sorted(set(request.metadata_fields))) or None,
    )


def query_kind(request: messages.SearchRequest) -> str:
    """`text`, `vector` or `datapoint_id`. Raises InvalidArgument unless exactly one is set."""
    given = [name for name in ("text", "vector", "datapoint_id") if getattr(request, name) is not None]
    if len(given) != 1:
        raise InvalidArgument(
            f"query: {' and '.join(given) if given else 'nothing'} given; "
            "set exactly one of text, vector and datapoint_id",
            field="query",
        )
    return given[0]


def query_vector(
    vector: messages.Vector, served: ServedIndex, *, field: str = "vector"
) -> NDArray[np.float32]:
    """float32 [dimension] of either form; whether it is finite is the index's to say.

    Raises InvalidArgument unless exactly one form is set, of the index's dimension.
    """
    if bool(vector.values) == bool(vector.float32):
        raise InvalidArgument(f"{field}: set exactly one of values and float32", field=field)
    if vector.values:
        with np.errstate(over="ignore"):  # becomes infinite, which the index names
            query = np.asarray(vector.values, dtype=np.float32)
    elif len(vector.float32) % 4:
        raise InvalidArgument(
            f"{field}.float32 has {len(vector.float32)} bytes; four are needed for each dimension",
            field=f"{field}.float32",
        )
    else:
        query = np.frombuffer(vector.float32, dtype="<f4")
    if len(query) != served.index.dimension:
        raise InvalidArgument(
            f"{field} has {len(query)} numbers; index {served.name!r} has dimension {served.index.dimension}",
            field=field,
        )
    return query


def query_text(text: str, *, field: str = "text") -> str:
    """The text, checked. Raises InvalidArgument where it is empty or too long."""
    if not text.strip():
        raise InvalidArgument(f"{field} is empty: write what to search for", field=field)
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidArgument(
            f"{field} has {len(text)} characters; at most {MAX_TEXT_CHARACTERS} are taken", field=field
        )
    return text


def model_of(served: ServedIndex) -> dict[str, str]:
    """What the manifest says of the model. Raises FailedPrecondition where the index has none."""
    model: dict[str, str] = served.index.manifest.model
    if not model:
        raise FailedPrecondition(
            f"index {served.name!r} was built from vectors, no model is known that makes them from text: "
            "search by vector or datapoint_id",
            field="text",
        )
    return model


def find(plan: SearchPlan, queries: NDArray[np.float32]) -> SearchResult:
    """The neighbors of queries [q, dimension], or [dimension] for one. Raises InvalidArgument."""
    options = _options(plan)
    plan.served.recent.note(queries, plan.k, options)
    found = plan.served.index.search(queries, plan.k, **options)
    if plan.is_usual:
        plan.served.index.watch.offer(queries)
    return found


def explain(plan: SearchPlan, query: NDArray[np.float32]) -> Explanation:
    """How the neighbors of one query [dimension] are found, and they themselves. Raises InvalidArgument."""
    return plan.served.index.explain(query, plan.k, **_options(plan))


def attach(plan: SearchPlan, found: SearchResult, query: int) -> list[messages.Neighbor]:
    """The neighbors of one of the queries with what is stored of them, nearest first."""
    count = int(found.counts[query])
    ids = found.ids[query][:count]
    if plan.full:
        # Not by id: an update may have come since.
        datapoints = [datapoint_of(stored) for stored in found.datapoints(query, plan.fields)]
    else:
        metadata = found.metadata_of(query, plan.fields)
        datapoints = [
            messages.Datapoint(
                datapoint_id=ids[rank],
                crowding_tag=found.crowding_tags[query][rank],
                embedding_metadata=metadata[rank] or {},
            )
            for rank in range(count)
        ]
    return [
        messages.Neighbor(
            datapoint=datapoint,
            distance=float(found.distances[query, rank]),
            score=float(found.scores[query, rank]),
        )
        for rank, datapoint in enumerate(datapoints)
    ]


def datapoint_of(stored: Datapoint) -> messages.Datapoint:
    """A datapoint in full."""
    tokens, numbers = restricts_of(stored.restricts)
    return messages.Datapoint(
        datapoint_id=stored.id,
        feature_vector=stored.vector.tolist(),
        crowding_tag=stored.crowding_tag,
        embedding_metadata=stored.metadata or {},
        restricts=tokens,
        numeric_restricts=numbers,
    )


def _options(plan: SearchPlan) -> dict[str, Any]:
    return {
        "target_recall": plan.target_recall,
        "approximate_neighbor_count": plan.approximate_neighbor_count,
        "fraction_leaf_nodes_to_search": plan.fraction_leaf_nodes_to_search,
        "crowding": plan.crowding,
        "where": plan.where,
    }


def _neighbor_count(given: int | None) -> int:
    if given is None:
        return DEFAULT_NEIGHBORS
    if not 1 <= given <= MAX_NEIGHBORS:
        raise InvalidArgument(
            f"neighbor_count is {given}; it must be 1 to {MAX_NEIGHBORS}", field="neighbor_count"
        )
    return given


def _target_recall(request: messages.SearchOptions, served: ServedIndex) -> float | None:
    says_nothing = (
        request.target_recall in (None, served.promised)
        and request.approximate_neighbor_count is None
        and request.fraction_leaf_nodes_to_search_override is None
    )
    return served.target_recall if says_nothing else request.target_recall


def _crowding(given: int | None, served: ServedIndex) -> int | None:
    if given is None:
        return served.crowding
    if given < 0:
        raise InvalidArgument(
            f"per_crowding_attribute_neighbor_count is {given}; it must be 0 (no limit) or more",
            field="per_crowding_attribute_neighbor_count",
        )
    return given or None
