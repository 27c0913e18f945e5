"""The calls about whole indexes and the jobs over them, without I/O, as `codec` has those of searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf.field_mask_pb2 import FieldMask

from earshot.errors import InvalidArgument
from earshot.v1 import index_service_pb2

from .codec import INDEX_METHODS, Call, Flow, build_message, index_name, index_of, moment, strings
from .results import Index, Operation, RebuildReport
from .status import error_of

__all__ = [
    "cancel",
    "create_index",
    "delete_index",
    "operation",
    "operations",
    "rebuild",
    "rollback",
    "update_index",
    "wait",
]

_OPERATIONS = operations_pb2.DESCRIPTOR.services_by_name["Operations"].methods_by_name
_CONFIG_FIELDS = index_service_pb2.IndexConfig.DESCRIPTOR.fields_by_name


def create_index(name: str, config: Mapping[str, Any]) -> Flow[Index]:
    """A new index without a version."""
    request = index_service_pb2.CreateIndexRequest(
        index_id=index_name(name, field="name").removeprefix("indexes/"),
        index=index_service_pb2.Index(config=_config(config)),
    )
    reply: index_service_pb2.Index = yield Call(INDEX_METHODS["CreateIndex"], request)
    return index_of(reply)


def update_index(name: str, changes: Mapping[str, Any], etag: str | None) -> Flow[Index]:
    """What is asked of an index, field by field; None unsays one."""
    request = index_service_pb2.UpdateIndexRequest(
        index=index_service_pb2.Index(
            name=index_name(name, field="name"), config=_config(changes), etag=etag or ""
        ),
        update_mask=FieldMask(paths=[f"config.{field}" for field in changes]),
    )
    reply: index_service_pb2.Index = yield Call(INDEX_METHODS["UpdateIndex"], request)
    return index_of(reply)


def delete_index(name: str, etag: str | None, force: bool) -> Flow[None]:
    """An index with all its versions."""
    request = index_service_pb2.DeleteIndexRequest(
        name=index_name(name, field="name"), etag=etag or "", force=force
    )
    yield Call(INDEX_METHODS["DeleteIndex"], request)


def rollback(index: str, version: str | None) -> Flow[Index]:
    """To one version, or else to the one before."""
    request = build_message(index_service_pb2.RollbackIndexRequest, name=index_name(index), version=version)
    reply: index_service_pb2.Index = yield Call(INDEX_METHODS["RollbackIndex"], request)
    return index_of(reply)


def rebuild(
    index: str,
    sources: Iterable[str],
    *,
    transcripts: Iterable[str],
    fields: Iterable[str],
    **options: Any,
) -> Flow[Operation]:
    """A job, started; `options` are fields of `RebuildIndexRequest`."""
    request = build_message(
        index_service_pb2.RebuildIndexRequest,
        name=index_name(index),
        sources=strings("sources", sources),
        transcripts=strings("transcripts", transcripts),
        fields=strings("fields", fields),
        **options,
    )
    reply = yield Call(INDEX_METHODS["RebuildIndex"], request)
    return _operation(reply)


def operation(name: str) -> Flow[Operation]:
    """How far a job has come."""
    reply = yield Call(
        _OPERATIONS["GetOperation"],
        build_message(operations_pb2.GetOperationRequest, name=name),
        repeatable=True,
    )
    return _operation(reply)


def operations(index: str) -> Flow[list[Operation]]:
    """All jobs of an index, newest first, from as many pages as there are."""
    found: list[Operation] = []
    request = operations_pb2.ListOperationsRequest(name=index_name(index))
    while True:
        reply = yield Call(_OPERATIONS["ListOperations"], request, repeatable=True)
        found += map(_operation, reply.operations)
        if not reply.next_page_token:
            return found
        request.page_token = reply.next_page_token


def wait(name: str, seconds: float) -> Flow[Operation]:
    """A job when it has ended, or as it is some time later."""
    request = build_message(operations_pb2.WaitOperationRequest, name=name)
    request.timeout.FromNanoseconds(int(seconds * 1e9))
    reply = yield Call(_OPERATIONS["WaitOperation"], request, repeatable=True)
    return _operation(reply)


def cancel(name: str) -> Flow[None]:
    """Ends a job, if it still runs."""
    request = build_message(operations_pb2.CancelOperationRequest, name=name)
    yield Call(_OPERATIONS["CancelOperation"], request, repeatable=True)


def _config(fields: Mapping[str, Any]) -> index_service_pb2.IndexConfig:
    unknown = fields.keys() - _CONFIG_FIELDS.keys()
    if unknown:
        raise InvalidArgument(
            f"config has no field {min(map(str, unknown))!r}; it has {', '.join(_CONFIG_FIELDS)}",
            field="config",
        )
    return build_message(index_service_pb2.IndexConfig, **fields)


def _operation(reply: Any) -> Operation:
    metadata, response = index_service_pb2.RebuildIndexMetadata(), index_service_pb2.RebuildIndexResponse()
    reply.metadata.Unpack(metadata)
    report = None
    if reply.WhichOneof("result") == "response" and reply.response.Unpack(response):
        report = RebuildReport(
            index_version=response.index_version,
            published=response.published,
            documents=response.documents,
            datapoints=response.datapoints,
            embedded=response.embedded,
            measured_recall=response.measured_recall,
            measured_recall_low=response.measured_recall_low,
            measured_recall_high=response.measured_recall_high,
            bad_records=response.bad_records,
            first_bad_records=tuple(response.first_bad_records),
        )
    failed = error_of(reply.error) if reply.WhichOneof("result") == "error" else None
    return Operation(
        name=reply.name,
        index=metadata.index,
        done=reply.done,
        step=metadata.step,
        step_done=metadata.done,
        step_total=metadata.total,
        create_time=moment(metadata, "create_time"),
        end_time=moment(metadata, "end_time"),
        error_code=failed.code if failed else "",
        error_message=failed.message if failed else "",
        report=report,
    )
