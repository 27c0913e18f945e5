"""Upserts and removes without I/O: what a person writes, as requests of a bearable size."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from earshot.errors import TABLE as ERRORS
from earshot.errors import EarshotError, InvalidArgument, from_code
from earshot.v1 import datapoint_pb2, datapoint_service_pb2

from .codec import Call, Flow, _float32, index_name, strings
from .results import Datapoint, Removed, Upserted
from .where import restricts_from

__all__ = ["remove", "upsert"]

MAX_DATAPOINTS = 1_000
MAX_BYTES = 4 << 20

_SERVICE = datapoint_service_pb2.DESCRIPTOR.services_by_name["DatapointService"].methods_by_name
_KEYS = ("id", "vector", "text", "crowding_tag", "metadata", "restricts")
_CODES = {row.grpc: name for name, row in ERRORS.items()}


def upsert(
    index: str,
    datapoints: Iterable[Datapoint | Mapping[str, Any]],
    *,
    update_mask: Sequence[str] = (),
    request_id: str | None = None,
) -> Flow[Upserted]:
    """Datapoints, in as many requests as they need; a request that is sent again writes nothing twice."""
    name = request_id or uuid.uuid4().hex
    mask = FieldMask(paths=strings("update_mask", update_mask)) if update_mask else None
    sequence = count = start = 0
    errors: dict[int, EarshotError] = {}
    for number, points in enumerate(_pieces(map(_message_of, datapoints))):
        request = datapoint_service_pb2.UpsertDatapointsRequest(
            index=index_name(index), datapoints=points, update_mask=mask, request_id=_numbered(name, number)
        )
        reply: datapoint_service_pb2.UpsertDatapointsResponse = yield Call(
            _SERVICE["UpsertDatapoints"], request, repeatable=True
        )
        sequence, count = max(sequence, reply.sequence), count + reply.upserted_count
        for each in reply.errors:
            told = from_code(_CODES.get(each.status.code, "INTERNAL"), each.status.message)
            errors[start + each.position] = told
        start += len(points)
    return Upserted(sequence, count, errors)


def remove(index: str, ids: Iterable[str], *, request_id: str | None = None) -> Flow[Removed]:
    """Removes, in as many requests as they need."""
    name = request_id or uuid.uuid4().hex
    names = strings("ids", ids)
    sequence = count = 0
    for number, start in enumerate(range(0, len(names), MAX_DATAPOINTS)):
        request = datapoint_service_pb2.RemoveDatapointsRequest(
            index=index_name(index),
            datapoint_ids=names[start : start + MAX_DATAPOINTS],
            request_id=_numbered(name, number),
        )
        reply: datapoint_service_pb2.RemoveDatapointsResponse = yield Call(
            _SERVICE["RemoveDatapoints"], request, repeatable=True
        )
        sequence, count = max(sequence, reply.sequence), count + reply.removed_count
    return Removed(sequence, count)


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number}" if number else name


def _pieces(points: Iterable[datapoint_pb2.Datapoint]) -> Iterator[list[datapoint_pb2.Datapoint]]:
    piece: list[datapoint_pb2.Datapoint] = []
    size = 0
    for point in points:
        more = point.ByteSize()
        if piece and (len(piece) == MAX_DATAPOINTS or size + more > MAX_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(point)
        size += more
    if piece:
        yield piece


def _message_of(given: Datapoint | Mapping[str, Any]) -> datapoint_pb2.Datapoint:
    if isinstance(given, Datapoint):
        given = {key: getattr(given, key) for key in _KEYS if key != "text"}
    if not isinstance(given, Mapping) or given.keys() - set(_KEYS) or "id" not in given:
        raise InvalidArgument(
            f"datapoints holds {_short(given)}; each is a mapping with the key id and some of "
            f"{', '.join(_KEYS[1:])}",
            field="datapoints",
        )
    metadata = None
    name = given["id"]
    try:
        if given.get("metadata"):
            metadata = Struct()
            metadata.update(given["metadata"])
        point = datapoint_pb2.Datapoint(
            datapoint_id=name,
            crowding_tag=given.get("crowding_tag") or "",
            text=given.get("text") or "",
            embedding_metadata=metadata,
            **_restricts(name, given.get("restricts")),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidArgument(f"datapoint {_short(name)}: {error}", field="datapoints") from error
    vector = given.get("vector")
    if vector is not None:
        numbers = _float32(vector, "vector")
        if numbers.ndim != 1:
            raise InvalidArgument(
                f"vector of datapoint {name!r} has shape {np.shape(numbers)}; it must be (dimensions,)",
                field="vector",
            )
        point.feature_vector_float32 = numbers.tobytes()
    return point


def _restricts(name: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """As in `where`, but numbers are what a datapoint has, not what it is compared with."""
    fields = restricts_from(given)
    for number in fields["numeric_restricts"]:
        if number.op != datapoint_pb2.NumericRestrict.EQUAL:
            raise InvalidArgument(
                f"restricts of datapoint {name!r} compare {number.namespace!r}; it must be a number",
                field="restricts",
            )
        number.ClearField("op")
    return fields


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
