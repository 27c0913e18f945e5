"""Protobuf in and out of the types of IndexService and Operations.

Names are the same on both sides and these calls are rare, so protobuf's own JSON mapping does the work.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import json_format
from google.protobuf.message import Message

from earshot.errors import InvalidArgument
from earshot.v1 import index_service_pb2

from . import index_messages as messages
from .proto_codec import parse

__all__ = [
    "create_request",
    "index_message",
    "indexes_message",
    "operation_message",
    "operations_message",
    "rebuild_request",
    "rollback_request",
    "update_request",
    "versions_message",
]

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def create_request(data: bytes) -> messages.CreateIndexRequest:
    """The message of `CreateIndex`. Raises InvalidArgument."""
    request = parse(index_service_pb2.CreateIndexRequest, data)
    return messages.CreateIndexRequest(request.index_id, _struct(request.index, messages.Index))


def update_request(data: bytes) -> messages.UpdateIndexRequest:
    """The message of `UpdateIndex`. Raises InvalidArgument."""
    request = parse(index_service_pb2.UpdateIndexRequest, data)
    return messages.UpdateIndexRequest(
        _struct(request.index, messages.Index), list(request.update_mask.paths)
    )


def rollback_request(data: bytes) -> messages.RollbackIndexRequest:
    """The message of `RollbackIndex`. Raises InvalidArgument."""
    return _struct(parse(index_service_pb2.RollbackIndexRequest, data), messages.RollbackIndexRequest)


def rebuild_request(data: bytes) -> messages.RebuildIndexRequest:
    """The message of `RebuildIndex`. Raises InvalidArgument."""
    return _struct(parse(index_service_pb2.RebuildIndexRequest, data), messages.RebuildIndexRequest)


def index_message(index: messages.Index) -> bytes:
    """An `Index`."""
    return _message(index, index_service_pb2.Index)


def indexes_message(page: messages.ListIndexesResponse) -> bytes:
    """A `ListIndexesResponse`."""
    return _message(page, index_service_pb2.ListIndexesResponse)


def versions_message(page: messages.ListIndexVersionsResponse) -> bytes:
    """A `ListIndexVersionsResponse`."""
    return _message(page, index_service_pb2.ListIndexVersionsResponse)


def operation_message(operation: messages.Operation) -> bytes:
    """An `Operation`."""
    return _message(operation, operations_pb2.Operation)


def operations_message(page: messages.ListOperationsResponse) -> bytes:
    """A `ListOperationsResponse`."""
    return _message(page, operations_pb2.ListOperationsResponse)


def _struct(message: Message, kind: type[T]) -> T:
    try:
        return msgspec.convert(json_format.MessageToDict(message), kind, strict=False)
    except (msgspec.ValidationError, json_format.SerializeToJsonError) as error:
        raise InvalidArgument(f"{message.DESCRIPTOR.name} is not as it should be: {error}") from error


def _message(struct: msgspec.Struct, kind: type[Message]) -> bytes:
    return json_format.ParseDict(_said(msgspec.to_builtins(struct)), kind()).SerializeToString()


def _said(value: Any) -> Any:
    """Without what is empty: an empty string is no time."""
    if isinstance(value, dict):
        return {key: _said(item) for key, item in value.items() if item not in ("", None)}
    return [_said(item) for item in value] if isinstance(value, list) else value
