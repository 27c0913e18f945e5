"""The seam between the live index and the log that it follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from .entry import Entry
from .group import Call, Written

__all__ = ["Journal", "JournalStatus"]


class JournalStatus(msgspec.Struct, frozen=True):
    """What a journal holds.

    Attributes:
        address: Where.
        entries: How many are kept.
        bytes: On disk.
        first: Sequence number of the oldest entry kept; 0 where there is none.
        last: Sequence number of the newest entry ever appended, kept or not; 0 where there was none.
        trimmed: Entries up to this number were dropped, because versions hold them.
        oldest: When the oldest entry kept was appended, RFC 3339; empty where there is none.
    """

    address: str
    entries: int
    bytes: int
    first: int
    last: int
    trimmed: int
    oldest: str


class Journal(Protocol):
    """A durable, ordered log. Sequence numbers start at 1 and have no gaps.

    Every method is safe to call from many threads, and may raise Unavailable where the database cannot be
    reached and DataLoss where it is damaged.
    """

    def append(
        self, entries: Sequence[Entry], *, request_id: str | None = None, timeout: float | None = None
    ) -> int:
        """Write some entries, one after another and all or none; they are on disk when this returns.

        Args:
            entries: At least one.
            request_id: A second call with it within a day appends nothing and returns the first's number.
            timeout: Seconds to wait.

        Returns:
            The sequence number of the last of them.

        Raises:
            InvalidArgument: An entry that cannot be written.
            DeadlineExceeded: The time was over. The message says whether the entries may yet be written;
                the same call with the same request_id finds out.
            ResourceExhausted, PermissionDenied: They cannot be written.
            FailedPrecondition: The journal was opened to read only, or is closed.
        """

    def submit(self, call: Call) -> None:
        """`append` for a caller that does not wait here: the call hears when it is over. Raises as that."""

    def when_written(self, tell: Written) -> None:
        """Have the thread that writes call `tell` for what went to disk, before any caller hears of it.

        Args:
            tell: Given the first new entry's number, the new entries in their order, and the largest number
                that a caller will hear. There are no new ones where all were repeated. What it raises, the
                callers get.
        """

    @property
    def waiting(self) -> int:
        """Calls that nobody has begun to write."""

    def read(self, after: int, limit: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Entries and their sequence numbers, in order, from `after` + 1 on: at most `limit`, or all.

        Raises:
            FailedPrecondition: Some of them were trimmed.
            DataLoss: One is missing or damaged; the message has its number.
        """

    def wait(self, after: int, timeout: float) -> int:
        """Sleep until there is an entry after `after`, or for `timeout` seconds; returns `last`."""

    def last(self) -> int:
        """The newest entry's number; 0 where nothing was ever appended."""

    def first(self) -> int:
        """The oldest kept entry's number; 0 where none is kept."""

    def trim(self, through: int) -> None:
        """Drop the entries up to this number; numbers go on counting.

        Raises:
            InvalidArgument: It is more than `last`.
        """

    def begin_at(self, sequence: int) -> None:
        """Have a journal that never held anything count on from this number.

        Raises:
            FailedPrecondition: It held something.
        """

    def status(self) -> JournalStatus:
        """What is kept."""

    def close(self) -> None:
        """Finish what was called, refuse what comes after. May be called twice."""
