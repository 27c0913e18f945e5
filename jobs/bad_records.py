"""How many records of a source may be bad before the job gives up, and the list of those that were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from earshot.errors import FailedPrecondition, InvalidArgument

from .sources import BadRecord

__all__ = ["BadLimit", "BadRecords"]

KEPT = 100


@dataclass(frozen=True, slots=True)
class BadLimit:
    """A share of all records (`1%`) or a number of them (`25`)."""

    text: str
    share: float | None
    count: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`1%`, `0.5%` or a whole number. Raises InvalidArgument for anything else."""
        try:
            if text.endswith("%"):
                share = float(text[:-1]) / 100
                if 0 <= share <= 1:
                    return cls(text, share, None)
            elif int(text) >= 0:
                return cls(text, None, int(text))
        except ValueError:
            pass
        raise InvalidArgument(
            f"max_bad is {text!r}; it must be a share such as 1% or a number of records such as 25",
            field="max_bad",
        )

    def holds(self, bad: int, total: int) -> bool:
        """Whether `bad` of `total` records is within the limit."""
        return bad <= (self.count if self.count is not None else (self.share or 0.0) * total)


class BadRecords:
    """Counts what was skipped and keeps the first hundred for the report."""

    def __init__(self) -> None:
        self.skipped = 0
        self.warnings = 0
        self.kept: list[BadRecord] = []

    def add(self, record: BadRecord) -> None:
        """Counts one; a mere warning (an episode without its transcript) is not held against the limit."""
        if record.drops_document:
            self.skipped += 1
        else:
            self.warnings += 1
        if len(self.kept) < KEPT:
            self.kept.append(record)

    def check(self, limit: BadLimit, documents: int) -> None:
        """Raises FailedPrecondition where more records were skipped than the limit allows."""
        total = documents + self.skipped
        if limit.holds(self.skipped, total):
            return
        first = next(record for record in self.kept if record.drops_document)
        raise FailedPrecondition(
            f"{self.skipped} of {total} records are bad, the limit is {limit.text} (--max-bad); "
            f"nothing was published. The first: {first}",
            field="max_bad",
        )
