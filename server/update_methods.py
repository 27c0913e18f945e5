"""The gRPC methods that update datapoints, from request bytes to response bytes."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import status_pb2  # type: ignore[import-untyped]

from earshot.v1 import datapoint_pb2, datapoint_service_pb2

from . import update_messages as messages
from .proto_codec import numeric_restrict, parse, token_restrict
from .service import Service

__all__ = ["REMOVE", "UPSERT", "remove_datapoints", "upsert_datapoints"]

UPSERT = "/earshot.v1.DatapointService/UpsertDatapoints"
REMOVE = "/earshot.v1.DatapointService/RemoveDatapoints"


def upsert_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/UpsertDatapoints`."""
    request = parse(datapoint_service_pb2.UpsertDatapointsRequest, data)
    reply = service.updates.upsert(
        messages.UpsertDatapointsRequest(
            index=request.index,
            datapoints=[_datapoint(each) for each in request.datapoints],
            update_mask=",".join(request.update_mask.paths),
            request_id=request.request_id,
        )
    )
    return datapoint_service_pb2.UpsertDatapointsResponse(
        sequence=reply.sequence,
        upserted_count=reply.upserted_count,
        errors=[
            datapoint_service_pb2.DatapointError(
                position=each.position,
                datapoint_id=each.datapoint_id,
                status=status_pb2.Status(code=each.status.code, message=each.status.message),
            )
            for each in reply.errors
        ],
    ).SerializeToString()


def remove_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/RemoveDatapoints`."""
    request = parse(datapoint_service_pb2.RemoveDatapointsRequest, data)
    reply = service.updates.remove(
        messages.RemoveDatapointsRequest(
            index=request.index, datapoint_ids=list(request.datapoint_ids), request_id=request.request_id
        )
    )
    return datapoint_service_pb2.RemoveDatapointsResponse(
        sequence=reply.sequence, removed_count=reply.removed_count
    ).SerializeToString()


def _datapoint(point: datapoint_pb2.Datapoint) -> messages.NewDatapoint:
    return messages.NewDatapoint(
        datapoint_id=point.datapoint_id,
        feature_vector=list(point.feature_vector),
        feature_vector_float32=point.feature_vector_float32,
        text=point.text,
        crowding_tag=point.crowding_tag,
        embedding_metadata=_plain_struct(point.embedding_metadata),
        restricts=[token_restrict(each) for each in point.restricts],
        numeric_restricts=[numeric_restrict(each) for each in point.numeric_restricts],
    )


def _plain_struct(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "number_value":
        # A Struct has doubles only; whole ones become the integers that JSON would have.
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    return None if kind is None or kind == "null_value" else getattr(value, kind)
