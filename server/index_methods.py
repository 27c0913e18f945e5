"""The methods of IndexService and Operations as functions from request bytes to response bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.longrunning import operations_pb2  # type: ignore[import-untyped]

from earshot.v1 import index_service_pb2

from . import index_messages as messages
from .index_codec import (
    create_request,
    index_message,
    indexes_message,
    operation_message,
    operations_message,
    rebuild_request,
    rollback_request,
    update_request,
    versions_message,
)
from .proto_codec import parse

if TYPE_CHECKING:
    from .service import Service

__all__ = ["INDEX_METHODS", "SLOW_INDEX_METHODS"]


def create_index(service: Service, data: bytes) -> bytes:
    """`IndexService/CreateIndex`."""
    return index_message(service.indexes.create(create_request(data)))


def get_index(service: Service, data: bytes) -> bytes:
    """`IndexService/GetIndex`."""
    return index_message(service.indexes.get(parse(index_service_pb2.GetIndexRequest, data).name))


def list_indexes(service: Service, data: bytes) -> bytes:
    """`IndexService/ListIndexes`."""
    request = parse(index_service_pb2.ListIndexesRequest, data)
    return indexes_message(service.indexes.list(request.page_size, request.page_token))


def update_index(service: Service, data: bytes) -> bytes:
    """`IndexService/UpdateIndex`."""
    return index_message(service.indexes.update(update_request(data)))


def delete_index(service: Service, data: bytes) -> bytes:
    """`IndexService/DeleteIndex`."""
    request = parse(index_service_pb2.DeleteIndexRequest, data)
    service.indexes.delete(messages.DeleteIndexRequest(request.name, request.etag, request.force))
    return b""


def rebuild_index(service: Service, data: bytes) -> bytes:
    """`IndexService/RebuildIndex`."""
    return operation_message(service.indexes.rebuild(rebuild_request(data)))


def rollback_index(service: Service, data: bytes) -> bytes:
    """`IndexService/RollbackIndex`."""
    return index_message(service.indexes.rollback(rollback_request(data)))


def list_index_versions(service: Service, data: bytes) -> bytes:
    """`IndexService/ListIndexVersions`."""
    request = parse(index_service_pb2.ListIndexVersionsRequest, data)
    return versions_message(service.indexes.versions(request.parent, request.page_size, request.page_token))


def get_operation(service: Service, data: bytes) -> bytes:
    """`Operations/GetOperation`."""
    return operation_message(service.indexes.operation(parse(operations_pb2.GetOperationRequest, data).name))


def list_operations(service: Service, data: bytes) -> bytes:
    """`Operations/ListOperations`."""
    request = parse(operations_pb2.ListOperationsRequest, data)
    return operations_message(service.indexes.operations(request.name, request.page_size, request.page_token))


def cancel_operation(service: Service, data: bytes) -> bytes:
    """`Operations/CancelOperation`."""
    service.indexes.cancel(parse(operations_pb2.CancelOperationRequest, data).name)
    return b""


def delete_operation(service: Service, data: bytes) -> bytes:
    """`Operations/DeleteOperation`."""
    service.indexes.delete_operation(parse(operations_pb2.DeleteOperationRequest, data).name)
    return b""


def wait_operation(service: Service, data: bytes) -> bytes:
    """`Operations/WaitOperation`."""
    request = parse(operations_pb2.WaitOperationRequest, data)
    seconds = request.timeout.ToNanoseconds() / 1e9 if request.HasField("timeout") else None
    return operation_message(service.indexes.wait(request.name, seconds))


_INDEX = "/earshot.v1.IndexService/"
_OPERATIONS = "/google.longrunning.Operations/"

INDEX_METHODS: dict[str, Callable[[Service, bytes], bytes]] = {
    f"{_INDEX}CreateIndex": create_index,
    f"{_INDEX}GetIndex": get_index,
    f"{_INDEX}ListIndexes": list_indexes,
    f"{_INDEX}UpdateIndex": update_index,
    f"{_INDEX}DeleteIndex": delete_index,
    f"{_INDEX}RebuildIndex": rebuild_index,
    f"{_INDEX}RollbackIndex": rollback_index,
    f"{_INDEX}ListIndexVersions": list_index_versions,
    f"{_OPERATIONS}GetOperation": get_operation,
    f"{_OPERATIONS}ListOperations": list_operations,
    f"{_OPERATIONS}CancelOperation": cancel_operation,
    f"{_OPERATIONS}DeleteOperation": delete_operation,
    f"{_OPERATIONS}WaitOperation": wait_operation,
}

SLOW_INDEX_METHODS = frozenset(
    path
    for path, method in INDEX_METHODS.items()
    if method not in {get_index, list_indexes, list_index_versions, delete_operation}
)
"""Those that load a model, read a version to verify it, or wait; no search may wait for them."""
