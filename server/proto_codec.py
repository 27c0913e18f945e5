"""Protobuf in and out of the service's own types; a malformed message is InvalidArgument."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from earshot.errors import InvalidArgument
from earshot.v1 import datapoint_pb2, search_service_pb2

from . import messages

__all__ = [
    "batch_search_request",
    "datapoint_message",
    "numeric_restrict",
    "parse",
    "search_request",
    "search_response_message",
    "token_restrict",
]

M = TypeVar("M", bound=Message)


def search_request(data: bytes) -> messages.SearchRequest:
    """The message of `SearchService/Search`. Raises InvalidArgument."""
    request = parse(search_service_pb2.SearchRequest, data)
    query = request.WhichOneof("query")
    return messages.SearchRequest(
        index=request.index,
        text=request.text if query == "text" else None,
        vector=_vector(request.vector) if query == "vector" else None,
        datapoint_id=request.datapoint_id if query == "datapoint_id" else None,
        explain=request.explain,
        **_options(request),
    )


def batch_search_request(data: bytes) -> messages.BatchSearchRequest:
    """The message of `SearchService/BatchSearch`. Raises InvalidArgument."""
    request = parse(search_service_pb2.BatchSearchRequest, data)
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
        "restricts": [token_restrict(each) for each in request.restricts],
        "numeric_restricts": [numeric_restrict(each) for each in request.numeric_restricts],
        "min_sequence": request.min_sequence,
        "metadata_fields": list(request.metadata_fields),
    }


def parse(kind: type[M], data: bytes) -> M:
    """A message from its bytes. Raises InvalidArgument."""
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


def search_response_message(reply: messages.SearchResponse) -> search_service_pb2.SearchResponse:
    """An answer as protobuf."""
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
        sequence=reply.sequence,
    )
    answer.search_duration.FromJsonString(reply.search_duration)
    if reply.embed_duration is not None:
        answer.embed_duration.FromJsonString(reply.embed_duration)
    if reply.explanation is not None:
        # Seldom asked for, so the names, which are the same, do the work.
        json_format.ParseDict(msgspec.to_builtins(reply.explanation), answer.explanation)
    return answer


def token_restrict(restrict: datapoint_pb2.TokenRestrict) -> messages.TokenRestrict:
    """Tokens of a namespace."""
    return messages.TokenRestrict(
        namespace=restrict.namespace,
        allow_list=list(restrict.allow_list),
        deny_list=list(restrict.deny_list),
    )


def numeric_restrict(restrict: datapoint_pb2.NumericRestrict) -> messages.NumericRestrict:
    """A number of a namespace, or a comparison with one."""
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
