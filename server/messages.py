"""What is asked and answered, whatever carries it: the service's own types.

The names are those of `proto/earshot/v1`; in JSON they are lowerCamelCase, as Google's mapping has it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

__all__ = [
    "BatchSearchRequest",
    "BatchSearchResponse",
    "Datapoint",
    "Explanation",
    "Neighbor",
    "NumericRestrict",
    "ReadDatapointsRequest",
    "ReadDatapointsResponse",
    "SearchOptions",
    "SearchRequest",
    "SearchResponse",
    "Step",
    "TokenRestrict",
    "Vector",
]

Double: TypeAlias = float | Literal["Infinity", "-Infinity"]
"""A double as JSON can write it."""


class Vector(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A dense vector: exactly one of the two forms is set."""

    values: list[float] = []
    float32: bytes = b""


class TokenRestrict(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Tokens of one namespace, allowed and denied."""

    namespace: str = ""
    allow_list: list[str] = []
    deny_list: list[str] = []


class NumericRestrict(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """One number of one namespace; `op`, a name or a number of the enum, belongs to queries."""

    namespace: str = ""
    value_int: int | None = None
    value_float: float | None = None
    value_double: Double | None = None
    op: str | int = "OPERATOR_UNSPECIFIED"


class SearchOptions(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Where and how to search; everything of a request but its queries."""

    index: str = ""
    neighbor_count: int | None = None
    per_crowding_attribute_neighbor_count: int | None = None
    target_recall: float | None = None
    approximate_neighbor_count: int | None = None
    fraction_leaf_nodes_to_search_override: float | None = None
    return_full_datapoint: bool = False
    restricts: list[TokenRestrict] = []
    numeric_restricts: list[NumericRestrict] = []
    min_sequence: int = 0
    metadata_fields: list[str] = []


class SearchRequest(SearchOptions, frozen=True, kw_only=True):
    """One query for one index; exactly one of text, vector and datapoint_id is set."""

    text: str | None = None
    vector: Vector | None = None
    datapoint_id: str | None = None
    explain: bool = False


class BatchSearchRequest(SearchOptions, frozen=True, kw_only=True):
    """Many queries of one kind for one index; exactly one of the three has entries."""

    texts: list[str] = []
    vectors: list[Vector] = []
    datapoint_ids: list[str] = []


class Datapoint(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A datapoint as it is returned; vector and restricts only where they were asked for."""

    datapoint_id: str
    feature_vector: list[float] | None = None
    crowding_tag: str | None = None
    embedding_metadata: dict[str, Any] = field(default_factory=dict)
    restricts: list[TokenRestrict] = []
    numeric_restricts: list[NumericRestrict] = []


class Neighbor(Struct, frozen=True, rename="camel"):
    """One result: `distance` is the index's own measure, `score` the same with higher always closer."""

    datapoint: Datapoint
    distance: float
    score: float


class Step(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One call of an engine, and what it was asked for."""

    name: str
    neighbor_count: int
    duration: str
    leaves: int | None = None
    candidates: int | None = None


class Explanation(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How one query was answered; see `earshot.index.Explanation`."""

    engine: str
    datapoint_count: int
    leaf_count: int
    steps: list[Step]
    found_count: int
    true_count: int
    target_recall: float | None = None
    measured_recall: float | None = None
    filter_path: str = ""
    passing_count: int | None = None


class SearchResponse(Struct, frozen=True, rename="camel", omit_defaults=True):
    """The neighbors, nearest first, the version that answered, and seconds as `0.000123s`."""

    neighbors: list[Neighbor]
    index_version: str
    search_duration: str
    embed_duration: str | None = None
    explanation: Explanation | None = None
    sequence: int = 0


class BatchSearchResponse(Struct, frozen=True, rename="camel"):
    """An answer for each query, in their order."""

    responses: list[SearchResponse]


class ReadDatapointsRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Ids to read, at most 1,000."""

    index: str = ""
    ids: list[str] = []
    metadata_fields: list[str] = []
    min_sequence: int = 0


class ReadDatapointsResponse(Struct, frozen=True, rename="camel"):
    """The datapoints in the order of the ids."""

    datapoints: list[Datapoint]
