"""The gRPC methods that update datapoints, from request bytes to response bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import status_pb2  # type: ignore[import-untyped]

from earshot.v1 import datapoint_pb2, datapoint_service_pb2

from . import update_messages as messages
from .proto_codec import numeric_restrict, parse, token_restrict
from .service import Service

__all__ = [
    "REMOVE",
    "UPSERT",
    "packed_upsert",
    "remove_datapoints",
    "remove_request",
    "removed",
    "upsert_datapoints",
    "upsert_request",
    "upserted",
]

UPSERT = "/earshot.v1.DatapointService/UpsertDatapoints"
REMOVE = "/earshot.v1.DatapointService/RemoveDatapoints"

_ID, _PACKED = (
    datapoint_pb2.Datapoint.DESCRIPTOR.fields_by_name[name]
    for name in ("datapoint_id", "feature_vector_float32")
)


def upsert_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/UpsertDatapoints`."""
    return upserted(service.updates.upsert(upsert_request(data)))


def remove_datapoints(service: Service, data: bytes) -> bytes:
    """`DatapointService/RemoveDatapoints`."""
    return removed(service.updates.remove(remove_request(data)))


def upsert_request(data: bytes) -> messages.UpsertDatapointsRequest | messages.PackedUpsert:
    """The message as it travels. Raises InvalidArgument."""
    request = parse(datapoint_service_pb2.UpsertDatapointsRequest, data)
    packed = _packed(request, len(data))
    if packed is not None:
        return packed
    return messages.UpsertDatapointsRequest(
        index=request.index,
        datapoints=[_datapoint(each) for each in request.datapoints],
        update_mask=",".join(request.update_mask.paths),
        request_id=request.request_id,
    )


def remove_request(data: bytes) -> messages.RemoveDatapointsRequest:
    """The message as it travels. Raises InvalidArgument."""
    request = parse(datapoint_service_pb2.RemoveDatapointsRequest, data)
    return messages.RemoveDatapointsRequest(
        index=request.index, datapoint_ids=list(request.datapoint_ids), request_id=request.request_id
    )


def upserted(reply: messages.UpsertDatapointsResponse) -> bytes:
    """The answer as it travels."""
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


def removed(reply: messages.RemoveDatapointsResponse) -> bytes:
    """The answer as it travels."""
    return datapoint_service_pb2.RemoveDatapointsResponse(
        sequence=reply.sequence, removed_count=reply.removed_count
    ).SerializeToString()


def packed_upsert(data: bytes) -> messages.PackedUpsert | None:
    """The message as it travels, if it is one of those that are read quickly. Raises InvalidArgument."""
    return _packed(parse(datapoint_service_pb2.UpsertDatapointsRequest, data), len(data))


def _packed(
    request: datapoint_service_pb2.UpsertDatapointsRequest, size: int
) -> messages.PackedUpsert | None:
    names = [each.datapoint_id for each in request.datapoints]
    vectors = [each.feature_vector_float32 for each in request.datapoints]
    if size != _packed_size(request.index, request.request_id, names, vectors):
        return None
    return messages.PackedUpsert(request.index, names, vectors, request.request_id)


def _packed_size(index: str, request_id: str, names: list[str], vectors: list[bytes]) -> int:
    """How many bytes the message has where its datapoints are an id of ASCII and a vector, all of one size,
    and nothing else is in it; −1 where that cannot be. Looking at each field of each would cost more."""
    sizes = {len(vector) for vector in vectors}
    lengths = list(map(len, names))
    if len(sizes) != 1 or not min(lengths) or max(lengths) > _SHORT or 0 in sizes:
        return -1
    (size,) = sizes
    around = 2 + 1 + len(_varint(size)) + size  # two tags, the id's length, the vector's length
    least, most = around + min(lengths), around + max(lengths)
    if len(_varint(least)) != len(_varint(most)):
        return -1
    points = len(names) * (1 + len(_varint(most)) + around) + sum(lengths)
    return points + sum(1 + len(_varint(len(text))) + len(text) for text in (index, request_id) if text)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > _SHORT:
        found.append(number & _SHORT | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


_SHORT = 0x7F


def _datapoint(point: datapoint_pb2.Datapoint) -> messages.NewDatapoint:
    # Only what was given: of a datapoint that is an id and a vector, looking at the rest would cost the most.
    fields = point.ListFields()
    if len(fields) == 2 and fields[0][0] is _ID and fields[1][0] is _PACKED:
        return messages.NewDatapoint(fields[0][1], feature_vector_float32=fields[1][1])
    given = {
        field.name: _PLAIN[field.name](value) if field.name in _PLAIN else value for field, value in fields
    }
    return messages.NewDatapoint(**given)


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


_PLAIN: dict[str, Callable[[Any], Any]] = {
    "feature_vector": list,
    "embedding_metadata": _plain_struct,
    "restricts": lambda restricts: [token_restrict(each) for each in restricts],
    "numeric_restricts": lambda restricts: [numeric_restrict(each) for each in restricts],
}
