"""Which journal an address means."""

from __future__ import annotations

import os
from pathlib import Path

from .base import Journal
from .sqlite import SqliteJournal

__all__ = ["JOURNAL_FILE", "open_journal"]

JOURNAL_FILE = "journal.sqlite"


def open_journal(address: str | os.PathLike[str], index: str, *, read_only: bool = False) -> Journal:
    """The journal of an index.

    Args:
        address: A file of SQLite's, in a folder that exists; it is made where there is none.
        index: The index's name.
        read_only: To look while a server owns it.

    Raises:
        NotFound: Read only, and there is none.
        Aborted: Another process writes to it.
        DataLoss: It is damaged.
        PermissionDenied, ResourceExhausted, Unavailable: It cannot be opened.
        FailedPrecondition: A newer program wrote it.
    """
    return SqliteJournal(Path(address), index, read_only=read_only)
