"""Reading a journal in pieces, and noticing what is missing or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from earshot.errors import DataLoss, FailedPrecondition

from .codec import checksum, decode
from .entry import Entry

__all__ = ["Bounds", "Fetch", "read_entries"]

READ_AT_ONCE = 1000
"""Entries that a reader holds in memory at a time."""

Bounds = tuple[int, int, int]
"""(first, last, trimmed), as in `JournalStatus`."""

Fetch = Callable[[int, int], tuple[Sequence[tuple[int, int, bytes]], Bounds]]
"""From (after, limit) to rows of (sequence, crc, body) and the bounds, both as of one moment."""


def read_entries(fetch: Fetch, after: int, limit: int | None, where: str) -> Iterator[tuple[int, Entry]]:
    """As `Journal.read`; `where` is for messages."""
    while limit is None or limit > 0:
        size = READ_AT_ONCE if limit is None else min(READ_AT_ONCE, limit)
        rows, (_, last, trimmed) = fetch(after, size)
        if after < trimmed:
            raise FailedPrecondition(
                f"entry {after + 1} of {where} was trimmed: entries up to {trimmed} are in versions"
            )
        if after > last:
            raise DataLoss(f"{where} ends at entry {last}; entry {after} was there once")
        for expected, (sequence, crc, body) in enumerate(rows, after + 1):
            if sequence != expected:
                raise DataLoss(f"entry {expected} of {where} is missing")
            if crc != checksum(sequence, body):
                raise DataLoss(f"entry {sequence} of {where} is damaged: its checksum differs")
            yield sequence, decode(body)
        if len(rows) != min(last - after, size):
            raise DataLoss(f"entry {after + len(rows) + 1} of {where} is missing")
        if len(rows) < size:
            return
        after += len(rows)
        limit = None if limit is None else limit - len(rows)
