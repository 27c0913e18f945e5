"""Every call of the client without I/O: requests are built, replies are parsed, pages are followed.

A call is a generator that yields a `Call` and is sent its response message, as `httpx.Auth` does it; so
sync and async, gRPC and HTTP run the same lines.
"""

from __future__ import annotations

import reprlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar

import numpy as np
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from numpy.typing import ArrayLike, NDArray

from earshot.errors import InvalidArgument
from earshot.v1 import datapoint_pb2, datapoint_service_pb2, index_service_pb2, search_service_pb2

from .results import Datapoint, Explanation, Index, IndexVersion, Neighbor, SearchResults, Step
from .where import restricts_from, where_from

__all__ = ["Call", "Flow", "get_index", "indexes", "read", "search", "search_batch", "versions"]

# Of one request; below what a server takes, so that no request keeps others waiting for long.
MAX_QUERIES = 256
MAX_NEIGHBORS = 100_000
MAX_READ = 1_000

R = TypeVar("R")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call:
    """One message to send, and the method that takes it.

    A call that is not `repeatable` is never sent twice, but where the service refused to begin with it. What
    the method says in its `idempotency_level` holds where nothing is said here.
    """

    method: MethodDescriptor
    request: Message
    repeatable: bool | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether sending it again cannot do anything that sending it once does not."""
        if self.repeatable is not None:
            return self.repeatable
        return bool(self.method.GetOptions().idempotency_level)


Flow: TypeAlias = Generator[Call, Any, R]

SEARCH_METHODS = search_service_pb2.DESCRIPTOR.services_by_name["SearchService"].methods_by_name
INDEX_METHODS = index_service_pb2.DESCRIPTOR.services_by_name["IndexService"].methods_by_name
_DATAPOINT = datapoint_service_pb2.DESCRIPTOR.services_by_name["DatapointService"].methods_by_name


def search(
    index: str,
    *,
    text: str | None,
    vector: ArrayLike | None,
    datapoint_id: str | None,
    where: Mapping[str, Any] | None = None,
    metadata_fields: Sequence[str] = (),
    **options: Any,
) -> Flow[SearchResults]:
    """The neighbors of one text, vector or datapoint; `options` are fields of `SearchRequest`."""
    query: dict[str, Any] = {"text": text, "vector": vector, "datapoint_id": datapoint_id}
    given = [name for name, value in query.items() if value is not None]
    if len(given) != 1:
        raise InvalidArgument(
            f"query: {' and '.join(given) or 'nothing'} given; "
            "set exactly one of text, vector and datapoint_id",
            field="query",
        )
    if vector is not None:
        query["vector"] = datapoint_pb2.Vector(float32=_float32_bytes(vector))
    request = build_message(
        search_service_pb2.SearchRequest,
        index=index_name(index),
        **query,
        **restricts_from(where),
        metadata_fields=strings("metadata_fields", metadata_fields),
        **options,
    )
    reply: search_service_pb2.SearchResponse = yield Call(SEARCH_METHODS["Search"], request)
    return results_of(reply)


def search_batch(
    index: str,
    *,
    texts: Sequence[str] | None,
    vectors: ArrayLike | None,
    datapoint_ids: Sequence[str] | None,
    where: Mapping[str, Any] | None = None,
    metadata_fields: Sequence[str] = (),
    **options: Any,
) -> Flow[list[SearchResults]]:
    """The neighbors of many queries, from as many requests as they need; `options` as in `search`."""
    queries: dict[str, Any] = {"texts": texts, "vectors": vectors, "datapoint_ids": datapoint_ids}
    kind, *others = [name for name, value in queries.items() if value is not None] or ["nothing"]
    if others or kind == "nothing":
        raise InvalidArgument(
            f"queries: {' and '.join([kind, *others])} given; "
            "give exactly one of texts, vectors and datapoint_ids",
            field="queries",
        )
    if isinstance(queries[kind], str):
        raise InvalidArgument(f"{kind} is one string; it must be a list of strings", field=kind)
    asked = _vectors(queries[kind]) if kind == "vectors" else list(queries[kind])
    names = strings("metadata_fields", metadata_fields)
    fields = {"index": index_name(index), "metadata_fields": names, **restricts_from(where), **options}
    shared = build_message(search_service_pb2.BatchSearchRequest, **fields)
    size = max(1, min(MAX_QUERIES, MAX_NEIGHBORS // max(1, shared.neighbor_count)))
    results: list[SearchResults] = []
    for start in range(0, len(asked), size):
        request = build_message(search_service_pb2.BatchSearchRequest, **{kind: asked[start : start + size]})
        request.MergeFrom(shared)
        reply: search_service_pb2.BatchSearchResponse = yield Call(SEARCH_METHODS["BatchSearch"], request)
        results += map(results_of, reply.responses)
    return results


def read(index: str, ids: Iterable[str], metadata_fields: Sequence[str] = ()) -> Flow[list[Datapoint]]:
    """Datapoints in the order of their ids, from as many requests as they need."""
    asked = strings("ids", ids)
    shared = build_message(
        datapoint_service_pb2.ReadDatapointsRequest,
        index=index_name(index),
        metadata_fields=strings("metadata_fields", metadata_fields),
    )
    found: list[Datapoint] = []
    for start in range(0, max(1, len(asked)), MAX_READ):  # one that asks for nothing is told what is wrong
        request = build_message(
            datapoint_service_pb2.ReadDatapointsRequest, ids=asked[start : start + MAX_READ]
        )
        request.MergeFrom(shared)
        reply: datapoint_service_pb2.ReadDatapointsResponse = yield Call(
            _DATAPOINT["ReadDatapoints"], request
        )
        found += map(_datapoint, reply.datapoints)
    return found


def get_index(name: str) -> Flow[Index]:
    """One index."""
    request = index_service_pb2.GetIndexRequest(name=index_name(name, field="name"))
    reply: index_service_pb2.Index = yield Call(INDEX_METHODS["GetIndex"], request)
    return index_of(reply)


def indexes() -> Flow[list[Index]]:
    """All indexes, by name, from as many pages as there are."""
    found: list[Index] = []
    request = index_service_pb2.ListIndexesRequest()
    while True:
        reply: index_service_pb2.ListIndexesResponse = yield Call(INDEX_METHODS["ListIndexes"], request)
        found += map(index_of, reply.indexes)
        if not reply.next_page_token:
            return found
        request = index_service_pb2.ListIndexesRequest(page_token=reply.next_page_token)


def versions(index: str) -> Flow[list[IndexVersion]]:
    """All versions of an index, newest first, from as many pages as there are."""
    found: list[IndexVersion] = []
    parent = index_name(index)
    request = index_service_pb2.ListIndexVersionsRequest(parent=parent)
    while True:
        reply: index_service_pb2.ListIndexVersionsResponse = yield Call(
            INDEX_METHODS["ListIndexVersions"], request
        )
        found += map(_version, reply.versions)
        if not reply.next_page_token:
            return found
        request = index_service_pb2.ListIndexVersionsRequest(parent=parent, page_token=reply.next_page_token)


def results_of(reply: search_service_pb2.SearchResponse) -> SearchResults:
    return SearchResults(
        neighbors=tuple(
            Neighbor(
                id=found.datapoint.datapoint_id,
                score=found.score,
                distance=found.distance,
                metadata=_metadata(found.datapoint.embedding_metadata),
                crowding_tag=found.datapoint.crowding_tag or None,
                vector=_array(found.datapoint),
                restricts=where_from(found.datapoint),
            )
            for found in reply.neighbors
        ),
        index_version=reply.index_version,
        embed_seconds=_seconds(reply.embed_duration) if reply.HasField("embed_duration") else None,
        search_seconds=_seconds(reply.search_duration),
        explanation=_explanation(reply.explanation) if reply.HasField("explanation") else None,
        sequence=reply.sequence,
    )


def _explanation(told: search_service_pb2.Explanation) -> Explanation:
    return Explanation(
        engine=told.engine,
        datapoint_count=told.datapoint_count,
        leaf_count=told.leaf_count,
        target_recall=told.target_recall if told.HasField("target_recall") else None,
        measured_recall=told.measured_recall if told.HasField("measured_recall") else None,
        filter_path=told.filter_path,
        passing_count=told.passing_count if told.HasField("passing_count") else None,
        steps=tuple(
            Step(
                step.name,
                step.neighbor_count,
                step.leaves if step.HasField("leaves") else None,
                step.candidates if step.HasField("candidates") else None,
                _seconds(step.duration),
            )
            for step in told.steps
        ),
        found_count=told.found_count,
        true_count=told.true_count,
    )


def index_name(name: str, *, field: str = "index") -> str:
    # Also what a path of HTTP can say: one segment, and not one that means another folder.
    short = name.removeprefix("indexes/")
    if "/" in short or short in {"", ".", ".."}:
        raise InvalidArgument(
            f"{field} {name!r} is not the name of an index: write 'indexes/podcasts' or 'podcasts'",
            field=field,
        )
    return f"indexes/{short}"


def strings(name: str, given: Iterable[str]) -> list[str]:
    """A list of strings; one string in its place is a mistake that protobuf would take letter by letter."""
    if isinstance(given, str):
        raise InvalidArgument(f"{name} is the string {given!r}; give a list: [{given!r}]", field=name)
    return list(given)


def _datapoint(found: datapoint_pb2.Datapoint) -> Datapoint:
    return Datapoint(
        id=found.datapoint_id,
        vector=_array(found),
        crowding_tag=found.crowding_tag or None,
        metadata=_metadata(found.embedding_metadata),
        restricts=where_from(found),
    )


def build_message(kind: type[M], **fields: Any) -> M:
    """A message of the fields that are not None. Raises InvalidArgument naming one that does not fit."""
    message = kind()
    for name, value in fields.items():
        if value is None:
            continue
        try:
            message.MergeFrom(kind(**{name: value}))
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"{name} is {reprlib.repr(value)}: {error}", field=name) from error
    return message


def _float32_bytes(vector: ArrayLike) -> bytes:
    """`vector` as the protocol wants it: little-endian float32, shape (dimensions,)."""
    numbers = _float32(vector, "vector")
    if numbers.ndim != 1 or not numbers.size:
        raise InvalidArgument(
            f"vector has shape {numbers.shape}; one query is one row of numbers, shape (dimensions,)",
            field="vector",
        )
    return numbers.tobytes()


def _vectors(vectors: ArrayLike) -> list[datapoint_pb2.Vector]:
    """The rows of `vectors`, shape (queries, dimensions)."""
    numbers = _float32(vectors, "vectors")
    if numbers.ndim != 2 and numbers.size:
        raise InvalidArgument(
            f"vectors has shape {numbers.shape}; many queries are rows of numbers, "
            "shape (queries, dimensions)",
            field="vectors",
        )
    return [datapoint_pb2.Vector(float32=row.tobytes()) for row in numbers]


def _float32(values: ArrayLike, field: str) -> NDArray[np.float32]:
    try:
        array = np.asarray(values)
        if array.dtype.kind in "cSUmM":  # NumPy would parse or truncate these without a word
            raise InvalidArgument(f"{field} has dtype {array.dtype}; real numbers are needed", field=field)
        with np.errstate(over="ignore"):  # becomes infinite, which the server names
            return array.astype("<f4")
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{field} is not an array of numbers: {error}", field=field) from error


def _array(datapoint: datapoint_pb2.Datapoint) -> NDArray[np.float32] | None:
    return np.array(datapoint.feature_vector, np.float32) if datapoint.feature_vector else None


def _metadata(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _metadata(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        # A Struct has doubles only; whole ones come back as the integers that JSON would show.
        number = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind is None or kind == "null_value" else getattr(value, kind)


def _seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


def moment(message: Message, field: str) -> datetime | None:
    """The time in a field, None where it is unset."""
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def index_of(index: index_service_pb2.Index) -> Index:
    # A measure that is newer than this client has a number and no name here.
    measure = index_service_pb2.DistanceMeasure.DESCRIPTOR.values_by_number.get(index.distance_measure)
    config = index.config
    return Index(
        config={field.name: _config_value(field, value) for field, value in config.ListFields()},
        etag=index.etag,
        problem=index.problem,
        name=index.name,
        current_version=index.current_version,
        dimensions=index.dimensions,
        distance_measure=measure.name if measure else "DISTANCE_MEASURE_UNSPECIFIED",
        datapoint_count=index.datapoint_count,
        model=index.model,
        engine=index.engine,
        target_recall=index.target_recall,
        measured_recall=index.measured_recall,
        update_time=moment(index, "update_time"),
    )


def _config_value(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is None:
        return value
    known = field.enum_type.values_by_number.get(value)
    return known.name if known else value


def _version(version: index_service_pb2.IndexVersion) -> IndexVersion:
    return IndexVersion(
        name=version.name,
        current=version.current,
        datapoint_count=version.datapoint_count,
        measured_recall=version.measured_recall,
        size_bytes=version.size_bytes,
        create_time=moment(version, "create_time"),
        complete=version.complete,
    )
