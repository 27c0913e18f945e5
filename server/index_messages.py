"""The types of IndexService and Operations, as `messages` has those of searches."""

from __future__ import annotations

import re

from msgspec import UNSET, Struct, UnsetType, field

from earshot.errors import InvalidArgument

__all__ = [
    "CreateIndexRequest",
    "DeleteIndexRequest",
    "Empty",
    "Index",
    "IndexConfig",
    "IndexVersion",
    "ListIndexVersionsResponse",
    "ListIndexesResponse",
    "ListOperationsResponse",
    "Operation",
    "OperationError",
    "RebuildIndexMetadata",
    "RebuildIndexRequest",
    "RebuildIndexResponse",
    "RollbackIndexRequest",
    "UpdateIndexRequest",
    "WaitOperationRequest",
]

_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)s")

TYPE_PREFIX = "type.googleapis.com/earshot.v1."


class Empty(Struct, frozen=True):
    """Nothing to say."""


class IndexConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What was asked of an index; see `earshot.index.IndexConfig`."""

    dimensions: int | None = None
    model: str | None = None
    distance_measure: str | None = None
    feature_norm: str | None = None
    engine: str | None = None
    shards: int | None = None
    target_recall: float | None = None
    per_crowding_attribute_neighbor_count: int | None = None


class Index(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One index as it is served now; `problem` says why it is not, or why a newer version is not."""

    name: str = ""
    current_version: str = ""
    dimensions: int = 0
    distance_measure: str = "DISTANCE_MEASURE_UNSPECIFIED"
    datapoint_count: int = 0
    model: str = ""
    engine: str = ""
    target_recall: float = 0.0
    measured_recall: float = 0.0
    update_time: str | UnsetType = UNSET
    problem: str = ""
    config: IndexConfig = IndexConfig()
    etag: str = ""


class IndexVersion(Struct, frozen=True, rename="camel"):
    """One version of an index, on disk."""

    name: str
    current: bool
    datapoint_count: int
    measured_recall: float
    size_bytes: int
    create_time: str | UnsetType
    complete: bool


class ListIndexesResponse(Struct, frozen=True, rename="camel"):
    """A page of indexes, by name."""

    indexes: list[Index]
    next_page_token: str = ""


class ListIndexVersionsResponse(Struct, frozen=True, rename="camel"):
    """A page of versions, newest first."""

    versions: list[IndexVersion]
    next_page_token: str = ""


class CreateIndexRequest(Struct, frozen=True):
    """An index by its name, and what is asked of it."""

    index_id: str
    index: Index


class UpdateIndexRequest(Struct, frozen=True):
    """`update_mask` has paths such as `config.shards`; empty: what is set in `index.config`."""

    index: Index
    update_mask: list[str] = []


class DeleteIndexRequest(Struct, frozen=True):
    """Guarded by the etag, or forced."""

    name: str
    etag: str = ""
    force: bool = False


class RollbackIndexRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """To one version, or else to the one before."""

    name: str = ""
    version: str = ""


class RebuildIndexRequest(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What to build from; without sources, from those of the current version."""

    name: str = ""
    sources: list[str] = []
    transcripts: list[str] = []
    fields: list[str] = []
    max_bad: str = ""
    keep: int | None = None
    force: bool = False


class RebuildIndexMetadata(Struct, frozen=True, rename="camel", kw_only=True):
    """How far a rebuild has come; times as RFC 3339 has them, the end unset while it runs."""

    type: str = field(default=TYPE_PREFIX + "RebuildIndexMetadata", name="@type")
    index: str
    step: str
    done: int
    total: int
    create_time: str
    end_time: str | UnsetType = UNSET


class RebuildIndexResponse(Struct, frozen=True, rename="camel", kw_only=True):
    """What came of a rebuild."""

    type: str = field(default=TYPE_PREFIX + "RebuildIndexResponse", name="@type")
    index_version: str
    published: bool
    documents: int
    datapoints: int
    embedded: int
    measured_recall: float
    measured_recall_low: float
    measured_recall_high: float
    bad_records: int
    first_bad_records: list[str]


class OperationError(Struct, frozen=True):
    """A `google.rpc.Status`; `code` is that of gRPC."""

    code: int
    message: str


class Operation(Struct, frozen=True, omit_defaults=True):
    """A `google.longrunning.Operation`."""

    name: str
    metadata: RebuildIndexMetadata
    done: bool = False
    error: OperationError | None = None
    response: RebuildIndexResponse | None = None


class WaitOperationRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """For how long, such as `2.5s`."""

    name: str = ""
    timeout: str | None = None

    def seconds(self) -> float | None:
        """Raises InvalidArgument where it is no duration."""
        if self.timeout is None:
            return None
        match = _DURATION.fullmatch(self.timeout)
        if match is None:
            raise InvalidArgument(
                f"timeout is {self.timeout!r}; it must be seconds such as '2.5s'", field="timeout"
            )
        return float(match[1])


class ListOperationsResponse(Struct, frozen=True, rename="camel"):
    """A page of operations, newest first."""

    operations: list[Operation]
    next_page_token: str = ""
