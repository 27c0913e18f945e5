"""The one tree of errors, and the one table from an error to what a caller sees.

| class              | gRPC status            | HTTP |
|--------------------|------------------------|------|
| Cancelled          | CANCELLED (1)          | 499  |
| InvalidArgument    | INVALID_ARGUMENT (3)   | 400  |
| DeadlineExceeded   | DEADLINE_EXCEEDED (4)  | 504  |
| NotFound           | NOT_FOUND (5)          | 404  |
| AlreadyExists      | ALREADY_EXISTS (6)     | 409  |
| PermissionDenied   | PERMISSION_DENIED (7)  | 403  |
| ResourceExhausted  | RESOURCE_EXHAUSTED (8) | 429  |
| FailedPrecondition | FAILED_PRECONDITION (9)| 400  |
| Aborted            | ABORTED (10)           | 409  |
| Unimplemented      | UNIMPLEMENTED (12)     | 501  |
| Internal           | INTERNAL (13)          | 500  |
| Unavailable        | UNAVAILABLE (14)       | 503  |
| DataLoss           | DATA_LOSS (15)         | 500  |
| Unauthenticated    | UNAUTHENTICATED (16)   | 401  |

Source of the pairs: Google's API guide, `google.rpc.Code`. The table above is the docstring
of `TABLE` below; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "TABLE",
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "DataLoss",
    "DeadlineExceeded",
    "EarshotError",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ResourceExhausted",
    "Row",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "from_code",
    "row_of",
]


class EarshotError(Exception):
    """Root of the tree. `message` is one sentence for the caller; `field` names the bad input.

    `retry_after` is the time in seconds after which trying again may help, where that is known.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after


class Cancelled(EarshotError):
    """The caller, or another one, said that the answer is not wanted any more."""

    code = "CANCELLED"


class InvalidArgument(EarshotError):
    """The request is wrong whatever the state of the system."""

    code = "INVALID_ARGUMENT"


class DeadlineExceeded(EarshotError):
    """The caller's deadline passed before the answer was ready."""

    code = "DEADLINE_EXCEEDED"


class NotFound(EarshotError):
    """The named index, version, datapoint or file does not exist."""

    code = "NOT_FOUND"


class AlreadyExists(EarshotError):
    """What should be created is there already."""

    code = "ALREADY_EXISTS"


class PermissionDenied(EarshotError):
    """The caller is known and may not do this; or the operating system said so."""

    code = "PERMISSION_DENIED"


class ResourceExhausted(EarshotError):
    """A queue, a quota, a size limit or the disk is full."""

    code = "RESOURCE_EXHAUSTED"


class FailedPrecondition(EarshotError):
    """The request is fine, the state of the system does not allow it."""

    code = "FAILED_PRECONDITION"


class Aborted(EarshotError):
    """Another writer was first; trying again may help."""

    code = "ABORTED"


class Unimplemented(EarshotError):
    """The method is not offered."""

    code = "UNIMPLEMENTED"


class Internal(EarshotError):
    """A bug of ours. The cause is in the log, never in the message."""

    code = "INTERNAL"


class Unavailable(EarshotError):
    """The service cannot answer now; trying again may help."""

    code = "UNAVAILABLE"


class DataLoss(EarshotError):
    """A file is missing, cut short or changed."""

    code = "DATA_LOSS"


class Unauthenticated(EarshotError):
    """The caller did not say who they are."""

    code = "UNAUTHENTICATED"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the error's class, its gRPC status code and its HTTP status."""

    error: type[EarshotError]
    grpc: int
    http: int


TABLE: dict[str, Row] = {
    row.error.code: row
    for row in (
        Row(Cancelled, 1, 499),
        Row(InvalidArgument, 3, 400),
        Row(DeadlineExceeded, 4, 504),
        Row(NotFound, 5, 404),
        Row(AlreadyExists, 6, 409),
        Row(PermissionDenied, 7, 403),
        Row(ResourceExhausted, 8, 429),
        Row(FailedPrecondition, 9, 400),
        Row(Aborted, 10, 409),
        Row(Unimplemented, 12, 501),
        Row(Internal, 13, 500),
        Row(Unavailable, 14, 503),
        Row(DataLoss, 15, 500),
        Row(Unauthenticated, 16, 401),
    )
}


def row_of(error: EarshotError) -> Row:
    """The table's row for an error."""
    return TABLE[error.code]


def from_code(code: str, message: str, *, retry_after: float | None = None) -> EarshotError:
    """The error that a status name such as `NOT_FOUND` stands for; unknown names give `Internal`."""
    row = TABLE.get(code)
    return (row.error if row else Internal)(message, retry_after=retry_after)
