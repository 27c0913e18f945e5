"""What an update asks and what it is answered: the service's own types, named as in `proto/earshot/v1`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from .messages import NumericRestrict, TokenRestrict

__all__ = [
    "DatapointError",
    "NewDatapoint",
    "RemoveDatapointsRequest",
    "RemoveDatapointsResponse",
    "Status",
    "UpsertDatapointsRequest",
    "UpsertDatapointsResponse",
]


class NewDatapoint(Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    """A datapoint to put, or parts of one; the vector in one of three forms."""

    datapoint_id: str = ""
    feature_vector: list[float] = []
    feature_vector_float32: bytes = b""
    text: str = ""
    crowding_tag: str | None = None
    embedding_metadata: dict[str, Any] | None = None
    restricts: list[TokenRestrict] = []
    numeric_restricts: list[NumericRestrict] = []


class UpsertDatapointsRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Datapoints to put; with `update_mask`, comma-separated, only those parts of ones that exist."""

    index: str = ""
    datapoints: list[NewDatapoint] = []
    update_mask: str = ""
    request_id: str = ""


class PackedUpsert(Struct, frozen=True):
    """An `UpsertDatapointsRequest` whose datapoints are an id and a packed vector each, as most are."""

    index: str
    names: list[str]
    vectors: list[bytes]
    request_id: str

    def unpacked(self) -> UpsertDatapointsRequest:
        """The same as the others."""
        points = [
            NewDatapoint(name, feature_vector_float32=vector)
            for name, vector in zip(self.names, self.vectors, strict=True)
        ]
        return UpsertDatapointsRequest(self.index, points, "", self.request_id)


class Status(Struct, frozen=True):
    """google.rpc.Status: `code` is a gRPC status."""

    code: int
    message: str


class DatapointError(Struct, frozen=True, rename="camel"):
    """Why one datapoint of a request was not written."""

    position: int
    datapoint_id: str
    status: Status


class UpsertDatapointsResponse(Struct, frozen=True, rename="camel"):
    """How many were written, and which not; `sequence` is that of the last, 0 where none was."""

    sequence: int
    upserted_count: int
    errors: list[DatapointError] = field(default_factory=list)


class RemoveDatapointsRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Ids that no datapoint shall have any more."""

    index: str = ""
    datapoint_ids: list[str] = []
    request_id: str = ""


class RemoveDatapointsResponse(Struct, frozen=True, rename="camel"):
    """How many there were to remove."""

    sequence: int
    removed_count: int
