"""SQLite's errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from earshot.errors import DataLoss, EarshotError, PermissionDenied, ResourceExhausted, Unavailable

__all__ = ["told"]

# By primary result code; what is not here may pass when it is tried again.
_KINDS: dict[int, tuple[type[EarshotError], str]] = {
    sqlite3.SQLITE_FULL: (ResourceExhausted, "the disk is full; free some space and try again"),
    sqlite3.SQLITE_READONLY: (PermissionDenied, "it cannot be written; make file and folder writable"),
    sqlite3.SQLITE_CANTOPEN: (
        PermissionDenied,
        "it cannot be opened; make file and folder readable and writable",
    ),
    sqlite3.SQLITE_PERM: (
        PermissionDenied,
        "it cannot be opened; make file and folder readable and writable",
    ),
    sqlite3.SQLITE_CORRUPT: (DataLoss, "it is damaged; restore it from a backup"),
    sqlite3.SQLITE_NOTADB: (DataLoss, "it is damaged; restore it from a backup"),
}


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn every error of SQLite's into one of ours.

    Raises:
        ResourceExhausted, PermissionDenied, DataLoss, Unavailable: In this order of how clear it is.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None and isinstance(error, sqlite3.ProgrammingError):
            raise Unavailable(f"journal {path}: it is closed") from error
        kind, advice = _KINDS.get((code or 0) & 0xFF, (Unavailable, "try again"))
        raise kind(f"journal {path}: {error}; {advice}") from error
