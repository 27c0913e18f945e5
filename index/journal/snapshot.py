"""A journal as of one moment, in a file of its own; and a journal again from such a file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from earshot.errors import AlreadyExists

from ..files import explained
from .base import Journal, JournalStatus
from .entry import Entry
from .open import is_shared, open_journal
from .sqlite import SqliteJournal
from .sqlite_errors import told

__all__ = ["restore", "snapshot"]

AT_ONCE = 1000


def snapshot(address: str | os.PathLike[str], index: str, path: Path) -> JournalStatus:
    """Copy a journal while a server may write to it, and read the copy back.

    Args:
        address: As in `open_journal`.
        index: The index's name.
        path: A file that is not there yet, in a folder that is.

    Raises:
        NotFound: There is no journal.
        DataLoss: It is damaged.
        ResourceExhausted, PermissionDenied: The copy cannot be written.
    """
    with closing(open_journal(address, index, read_only=True)) as source:
        if is_shared(address):
            _copy(source, SqliteJournal(path, index))
        else:
            _back_up(Path(address), path)
    with closing(SqliteJournal(path, index)) as copy:
        status = copy.status()
        for _ in copy.read(status.trimmed):
            pass
    path.with_suffix(".lock").unlink(missing_ok=True)
    return status


def restore(path: Path, address: str | os.PathLike[str], index: str) -> None:
    """Fill a journal that holds nothing with the entries of a snapshot, under their numbers.

    In PostgreSQL the request ids are not kept: a request repeated across a restore is done again.

    Raises:
        AlreadyExists: The journal holds something.
        DataLoss: The snapshot is damaged.
        ResourceExhausted, PermissionDenied, Unavailable: It cannot be written.
    """
    if is_shared(address):
        with closing(SqliteJournal(path, index, read_only=True)) as source:
            _copy(source, open_journal(address, index))
        return
    if Path(address).exists():
        raise AlreadyExists(f"there is a journal {address} already")
    with closing(SqliteJournal(path, index)):
        pass  # whole, and of this format
    with explained(Path(address)):
        _back_up(path, Path(address))


def _back_up(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.tmp")
    with explained(temporary), told(source):
        temporary.unlink(missing_ok=True)
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader,
            closing(sqlite3.connect(temporary)) as writer,
        ):
            reader.backup(writer)  # all pages in one step: one moment
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.rename(target)


def _copy(source: Journal, target: Journal) -> None:
    with closing(target):
        if target.last():
            raise AlreadyExists(f"journal {target.status().address} holds {target.last()} entries already")
        status = source.status()
        target.begin_at(status.trimmed)
        entries = source.read(status.trimmed, status.last - status.trimmed)
        while piece := _next(entries):
            target.append(piece)


def _next(entries: Iterator[tuple[int, Entry]]) -> list[Entry]:
    return [entry for _, entry in islice(entries, AT_ONCE)]
