"""Every gRPC method as one function from request bytes to response bytes; no transport in here.

Bytes in, so that a malformed message becomes INVALID_ARGUMENT by our own hand and not
some library's INTERNAL; and so that any face can carry the same table.
"""

from __future__ import annotations

from collections.abc import Callable

from earshot.v1 import datapoint_service_pb2, search_service_pb2

from . import messages
from .index_methods import INDEX_METHODS, SLOW_INDEX_METHODS
from .proto_codec import (
    batch_search_request,
    datapoint_message,
    parse,
    search_request,
    search_response_message,
)
from .service import Service
from .telemetry import stage
from .update_methods import REMOVE, UPSERT, remove_datapoints, upsert_datapoints

__all__ = [
    "BATCH_SEARCH",
    "METHODS",
    "SEARCH",
    "SERVICES",
    "STREAM_SEARCH",
    "WRITES",
    "Method",
]

Method = Callable[[Service, bytes], bytes]

SEARCH = "/earshot.v1.SearchService/Search"
BATCH_SEARCH = "/earshot.v1.SearchService/BatchSearch"
STREAM_SEARCH = "/earshot.v1.SearchService/StreamSearch"

SERVICES = (
    "earshot.v1.SearchService",
    "earshot.v1.IndexService",
    "earshot.v1.DatapointService",
    "google.longrunning.Operations",
)


def search(service: Service, data: bytes) -> bytes:
    """`SearchService/Search`."""
    reply = service.search(search_request(data))
    with stage("encode"):
        return search_response_message(reply).SerializeToString()


def batch_search(service: Service, data: bytes) -> bytes:
    """`SearchService/BatchSearch`."""
    reply = service.batch_search(batch_search_request(data))
    with stage("encode"):
        return search_service_pb2.BatchSearchResponse(
            responses=[search_response_message(response) for response in reply.responses]
        ).SerializeToString()


def read_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/ReadDatapoints`."""
    request = parse(datapoint_service_pb2.ReadDatapointsRequest, data)
    reply = service.read_datapoints(
        messages.ReadDatapointsRequest(
            index=request.index,
            ids=list(request.ids),
            metadata_fields=list(request.metadata_fields),
            min_sequence=request.min_sequence,
        )
    )
    return datapoint_service_pb2.ReadDatapointsResponse(
        datapoints=[datapoint_message(datapoint) for datapoint in reply.datapoints]
    ).SerializeToString()


METHODS: dict[str, Method] = {
    SEARCH: search,
    BATCH_SEARCH: batch_search,
    **INDEX_METHODS,
    "/earshot.v1.DatapointService/ReadDatapoints": read_datapoints,
    UPSERT: upsert_datapoints,
    REMOVE: remove_datapoints,
}
WRITES = frozenset({UPSERT, REMOVE}) | SLOW_INDEX_METHODS
"""The methods that mostly wait, for the disk above all; see `Workers.write`."""
