"""Every gRPC method as one function from request bytes to response bytes; no transport in here.

Bytes in, so that a malformed message becomes INVALID_ARGUMENT by our own hand and not
some library's INTERNAL; and so that any face can carry the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from earshot.errors import InvalidArgument
from earshot.v1 import datapoint_pb2, datapoint_service_pb2, index_service_pb2, search_service_pb2

from . import messages
from .service import Service

__all__ = [
    "BATCH_SEARCH",
    "METHODS",
    "SEARCH",
    "SERVICES",
    "STREAM_SEARCH",
    "Method",
    "batch_search_request",
    "datapoint_message",
    "search_request",
]

M = TypeVar("M", bound=Message)
Method = Callable[[Service, bytes], bytes]

SEARCH = "/earshot.v1.SearchService/Search"
BATCH_SEARCH = "/earshot.v1.SearchService/BatchSearch"
STREAM_SEARCH = "/earshot.v1.SearchService/StreamSearch"

SERVICES = ("earshot.v1.SearchService", "earshot.v1.IndexService", "earshot.v1.DatapointService")


def search(service: Service, data: bytes) -> bytes:
    """`SearchService/Search`."""
    return _search_response(service.search(search_request(data))).SerializeToString()


def batch_search(service: Service, data: bytes) -> bytes:
    """`SearchService/BatchSearch`."""
    reply = service.batch_search(batch_search_request(data))
    return search_service_pb2.BatchSearchResponse(
        responses=[_search_response(response) for response in reply.responses]
    ).SerializeToString()


def get_index(service: Service, data: bytes) -> bytes:
    """`IndexService/GetIndex`."""
    request = _parse(index_service_pb2.GetIndexRequest, data)
    return _index(service.get_index(request.name)).SerializeToString()


def list_indexes(service: Service, data: bytes) -> bytes:
    """`IndexService/ListIndexes`."""
    request = _parse(index_service_pb2.ListIndexesRequest, data)
    page = service.list_indexes(request.page_size, request.page_token)
    return index_service_pb2.ListIndexesResponse(
        indexes=[_index(index) for index in page.indexes], next_page_token=page.next_page_token
    ).SerializeToString()


def list_index_versions(service: Service, data: bytes) -> bytes:
    """`IndexService/ListIndexVersions`."""
    request = _parse(index_service_pb2.ListIndexVersionsRequest, data)
    page = service.list_index_versions(request.parent, request.page_size, request.page_token)
    return index_service_pb2.ListIndexVersionsResponse(
        versions=[_version(version) for version in page.versions], next_page_token=page.next_page_token
    ).SerializeToString()


def read_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/ReadDatapoints`."""
    request = _parse(datapoint_service_pb2.ReadDatapointsRequest, data)
    reply = service.read_datapoints(
        messages.ReadDatapointsRequest(index=request.index, ids=list(request.ids))
    )
    return datapoint_service_pb2.ReadDatapointsResponse(
        datapoints=[datapoint_message(datapoint) for datapoint in reply.datapoints]
    ).SerializeToString()


METHODS: dict[str, Method] = {
    SEARCH: search,
    BATCH_SEARCH: batch_search,
    "/earshot.v1.IndexService/GetIndex": get_index,
    "/earshot.v1.IndexService/ListIndexes": list_indexes,
    "/earshot.v1.IndexService/ListIndexVersions": list_index_versions,
    "/earshot.v1.DatapointService/ReadDatapoints": read_datapoints,
}


def search_request(data: bytes) -> messages.SearchRequest:
    """The message of `SearchService/Search`. Raises InvalidArgument."""
    request = _parse(search_service_pb2.SearchRequest, data)
    query = request.WhichOneof("query")
    return messages.SearchRequest(
        index=request.index,
        text=request.text if query == "text" else None,
        vector=_vector(request.vector) if query == "vector" else None,
        datapoint_id=request.datapoint_id if query == "datapoint_id" else None,
        **_options(request),
    )


def batch_search_request(data: bytes) -> messages.BatchSearchRequest:
    """The message of `SearchService/BatchSearch`. Raises InvalidArgument."""
    request = _parse(search_service_pb2.BatchSearchRequest, data)
    return messages.BatchSearchRequest(
        index=request.index,
        texts=list(request.texts),
        vectors=[_vector(vector) for vector in request.vectors],
        datapoint_ids=list(request.datapoint_ids),
        **_options(request),
    )


def _options(
    request: search_service_pb2.SearchRequest | search_service_pb2.BatchSearchRequest,
) -> dict[str, Any]:
    return {
        "neighbor_count": _optional(request, "neighbor_count"),
        "per_crowding_attribute_neighbor_count": _optional(request, "per_crowding_attribute_neighbor_count"),
        "target_recall": _optional(request, "target_recall"),
        "approximate_neighbor_count": _optional(request, "approximate_neighbor_count"),
        "fraction_leaf_nodes_to_search_override": _optional(
            request, "fraction_leaf_nodes_to_search_override"
        ),
        "return_full_datapoint": request.return_full_datapoint,
        "restricts": [
            messages.TokenRestrict(
                namespace=each.namespace, allow_list=list(each.allow_list), deny_list=list(each.deny_list)
            )
            for each in request.restricts
        ],
        "numeric_restricts": [_numeric_restrict(each) for each in request.numeric_restricts],
    }


def _parse(kind: type[M], data: bytes) -> M:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise InvalidArgument(
            f"the request's {len(data)} bytes are not a {kind.DESCRIPTOR.full_name} message"
        ) from error


def _optional(request: Message, name: str) -> Any:
    return getattr(request, name) if request.HasField(name) else None


def _vector(vector: datapoint_pb2.Vector) -> messages.Vector:
    return messages.Vector(values=list(vector.values), float32=vector.float32)


def _search_response(reply: messages.SearchResponse) -> search_service_pb2.SearchResponse:
    answer = search_service_pb2.SearchResponse(
        neighbors=[
            search_service_pb2.Neighbor(
                datapoint=datapoint_message(neighbor.datapoint),
                distance=neighbor.distance,
                score=neighbor.score,
            )
            for neighbor in reply.neighbors
        ],
        index_version=reply.index_version,
    )
    answer.search_duration.FromJsonString(reply.search_duration)
    if reply.embed_duration is not None:
        answer.embed_duration.FromJsonString(reply.embed_duration)
    return answer


def _numeric_restrict(restrict: datapoint_pb2.NumericRestrict) -> messages.NumericRestrict:
    kind = restrict.WhichOneof("value")
    value = {} if kind is None else {kind: getattr(restrict, kind)}
    return messages.NumericRestrict(namespace=restrict.namespace, op=restrict.op, **value)


def datapoint_message(datapoint: messages.Datapoint) -> datapoint_pb2.Datapoint:
    """A datapoint as protobuf."""
    metadata = None
    if datapoint.embedding_metadata:
        metadata = Struct()
        metadata.update(datapoint.embedding_metadata)
    return datapoint_pb2.Datapoint(
        datapoint_id=datapoint.datapoint_id,
        feature_vector=datapoint.feature_vector,
        crowding_tag=datapoint.crowding_tag or "",
        embedding_metadata=metadata,
        restricts=[
            datapoint_pb2.TokenRestrict(
                namespace=each.namespace, allow_list=each.allow_list, deny_list=each.deny_list
            )
            for each in datapoint.restricts
        ],
        numeric_restricts=[
            datapoint_pb2.NumericRestrict(namespace=each.namespace, value_int=each.value_int)
            if each.value_int is not None
            else datapoint_pb2.NumericRestrict(
                namespace=each.namespace, value_double=float(each.value_double or 0)
            )
            for each in datapoint.numeric_restricts
        ],
    )


def _index(index: messages.Index) -> index_service_pb2.Index:
    answer = index_service_pb2.Index(
        name=index.name,
        current_version=index.current_version,
        dimensions=index.dimensions,
        distance_measure=index_service_pb2.DistanceMeasure.Value(index.distance_measure),
        problem=index.problem,
        datapoint_count=index.datapoint_count,
        model=index.model,
        engine=index.engine,
        target_recall=index.target_recall,
        measured_recall=index.measured_recall,
    )
    if index.update_time:
        answer.update_time.FromJsonString(index.update_time)
    return answer


def _version(version: messages.IndexVersion) -> index_service_pb2.IndexVersion:
    answer = index_service_pb2.IndexVersion(
        name=version.name,
        current=version.current,
        datapoint_count=version.datapoint_count,
        measured_recall=version.measured_recall,
        size_bytes=version.size_bytes,
        complete=version.complete,
    )
    if version.create_time:
        answer.create_time.FromJsonString(version.create_time)
    return answer
