"""Which journal an address means."""

from __future__ import annotations

import os
from pathlib import Path

from earshot.errors import FailedPrecondition

from .base import Journal
from .sqlite import SqliteJournal, files_of

__all__ = ["JOURNAL_FILE", "drop_journal", "is_shared", "open_journal"]

JOURNAL_FILE = "journal.sqlite"
_POSTGRES = ("postgresql://", "postgres://")


def open_journal(
    address: str | os.PathLike[str],
    index: str,
    *,
    read_only: bool = False,
    patience: float = 0,
    shared: bool = False,
) -> Journal:
    """The journal of an index.

    Args:
        address: A file of SQLite's, in a folder that exists; it is made where there is none. Or an address
            such as `postgresql://user@host/database`, where journals lie by the names of their indexes.
        index: The index's name.
        read_only: To look while a server owns it.
        patience: Seconds to wait for another process that owns the file.
        shared: Own the file together with other processes of this machine that say so. What lies in
            PostgreSQL always is.

    Raises:
        NotFound: Read only, and there is none.
        Aborted: Another process writes to the file, and shares it not.
        DataLoss: It is damaged.
        PermissionDenied, ResourceExhausted, Unavailable: It cannot be opened.
        FailedPrecondition: A newer program wrote it, or a package for PostgreSQL is not installed.
        InvalidArgument: It is no address.
    """
    if is_shared(address):
        _need_psycopg()
        from .postgres import PostgresJournal

        return PostgresJournal(str(address), index, read_only=read_only)
    return SqliteJournal(Path(address), index, read_only=read_only, patience=patience, shared=shared)


def drop_journal(address: str | os.PathLike[str], index: str) -> None:
    """Remove the journal of an index that is deleted, so that a namesake starts empty.

    Raises:
        PermissionDenied, Unavailable: It cannot be removed.
    """
    if is_shared(address):
        _need_psycopg()
        from .postgres import drop

        drop(str(address), index)
        return
    for path in files_of(Path(address)):
        path.unlink(missing_ok=True)


def is_shared(address: str | os.PathLike[str]) -> bool:
    """Whether several servers may write to the journal at this address."""
    return str(address).startswith(_POSTGRES)


def _need_psycopg() -> None:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise FailedPrecondition(
            "a journal in PostgreSQL needs psycopg: pip install 'earshot[postgres]'", field="journal"
        ) from None
