"""The journal as one SQLite file beside the index's versions, for one server and its workers.

Write-ahead log with synchronous=FULL: what a commit wrote is on disk when it returns. One connection at a
time writes and checkpoints, so readers of other processes never wait for it, nor it for them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied

from ..files import explained, sync
from .base import JournalStatus
from .entry import Entry
from .group import REQUEST_SECONDS, Group, GroupCommit, Numbered, WritesInGroups, numbered
from .ownership import OwnerLock, owner_lock
from .reading import Bounds, read_entries
from .schema import migrate
from .sqlite_errors import told
from .times import as_time
from .wal import check_wal

if TYPE_CHECKING:
    from .turns import Turns

__all__ = ["SqliteJournal", "turns_of"]

TRIM_AT_ONCE = 2000
_ROWS_A_STATEMENT = 256
_FORGET_EVERY_SECONDS = 60
# 16 MiB: a checkpoint forces two files to disk, and pages that are written again and again go once.
_CHECKPOINT_PAGES = 4096
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"wal_autocheckpoint={_CHECKPOINT_PAGES}")


class SqliteJournal(WritesInGroups):
    """See `Journal`.

    Args:
        path: The file; made where there is none, unless only read.
        index: For messages.
        read_only: To look while a server owns it.
        patience: Seconds to wait for another owner.
        shared: Other processes of this machine that say so own it as well.

    Raises:
        NotFound: Read only, and there is none.
        Aborted: Another process owns it.
        DataLoss: It is damaged.
        PermissionDenied, ResourceExhausted: It cannot be made or written.
        FailedPrecondition: A newer program wrote it.
    """

    def __init__(
        self,
        path: Path,
        index: str,
        *,
        read_only: bool = False,
        patience: float = 0,
        shared: bool = False,
    ) -> None:
        self._path, self._where = path, str(path)
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._arrived = threading.Condition()
        self._group: GroupCommit | None = None
        self._turns: Turns | None = None
        self._forget_at = 0
        with ExitStack() as opened:  # is closed again where something fails
            if read_only:
                if not path.exists():
                    raise NotFound(f"index {index} has no journal: {path} is not there", field="index")
                self._lock: OwnerLock | None = None
                with told(path):
                    self._reader = opened.enter_context(closing(_connect(path, read_only=True)))
                    migrate(self._reader, str(path), write=False)
                opened.pop_all()
                return
            self._lock = owner_lock(path.with_suffix(".lock"), index, patience, shared=shared)
            opened.callback(self._let_go)
            if shared:
                self._turns = turns_of(path)
            with nullcontext() if self._turns is None else self._turns.turn():
                if not path.exists():
                    _create(path)
                with told(path):
                    self._writer = opened.enter_context(closing(_connect_to_write(path)))
                    _prepare_to_write(self._writer, path)
                    self._reader = opened.enter_context(closing(_connect(path, read_only=True)))
                    self._last, self._at = _newest(self._writer)
            opened.pop_all()
        self._group = GroupCommit(self._commit, name=f"earshot-journal-{index}", turn=self._turn)

    def read(self, after: int, limit: int | None = None) -> Iterator[tuple[int, Entry]]:
        """See `Journal`."""
        return read_entries(self._fetch, after, limit, str(self._path))

    def wait(self, after: int, timeout: float) -> int:
        """See `Journal`."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            while (last := self.last()) <= after and (left := deadline - time.monotonic()) > 0:
                # Another process's entries make no noise here.
                self._arrived.wait(left if self._is_alone else min(left, 0.1))
        return last

    def last(self) -> int:
        """See `Journal`."""
        if self._is_alone:
            return self._last
        with self._query() as reader:
            return _bounds(reader)[1]

    def first(self) -> int:
        """See `Journal`."""
        with self._query() as reader:
            return _bounds(reader)[0]

    def trim(self, through: int) -> None:
        """See `Journal`."""
        if self._group is None:
            raise FailedPrecondition(f"{self._path} was opened to read only")
        first, newest, trimmed = self._bounds()
        if through > newest:
            raise InvalidArgument(f"through is {through}; the newest entry is {newest}", field="through")
        for end in range(min(first or through, through), through + TRIM_AT_ONCE, TRIM_AT_ONCE):
            with self._turn(), told(self._path), self._transaction() as writer:  # short: others want to write
                last = max(trimmed, min(end, through))
                writer.execute("UPDATE state SET trimmed = ?", (last,))
                writer.execute("DELETE FROM entries WHERE sequence <= ?", (last,))

    def _bounds(self) -> Bounds:
        with self._query() as reader:
            return _bounds(reader)

    def begin_at(self, sequence: int) -> None:
        """See `Journal`."""
        if self._group is None or self._last:
            raise FailedPrecondition(f"{self._path} holds updates, or was opened to read only")
        with self._turn(), told(self._path):
            with self._transaction() as writer:
                writer.execute("UPDATE state SET trimmed = ?", (sequence,))
            self._last = sequence

    def status(self) -> JournalStatus:
        """See `Journal`."""
        with self._query() as reader:
            first, last, trimmed = _bounds(reader)
            oldest = reader.execute("SELECT at FROM entries WHERE sequence = ?", (first,)).fetchone()
        return JournalStatus(
            address=str(self._path),
            entries=last - first + 1 if first else 0,
            bytes=sum(path.stat().st_size for path in files_of(self._path) if path.exists()),
            first=first,
            last=last,
            trimmed=trimmed,
            oldest=as_time(oldest[0]) if oldest else "",
        )

    def close(self) -> None:
        """See `Journal`."""
        if self._group is not None:
            self._group.close()
        with self._reading:
            self._reader.close()
        if self._lock is not None and self._lock.is_locked:
            with told(self._path):
                self._writer.close()
            self._let_go()

    @property
    def _is_alone(self) -> bool:
        """Whether nobody else writes."""
        return self._group is not None and self._turns is None

    def _let_go(self) -> None:
        if self._turns is not None:
            self._turns.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Of writing. Who shares the file looks first how far the others came, and tells them at the end."""
        with self._writing:
            if self._turns is None:
                yield
                return
            with self._turns.turn():
                with told(self._path):
                    self._last, self._at = _newest(self._writer)
                try:
                    yield
                finally:
                    self._turns.reached = self._last

    def _commit(self, group: Group) -> Numbered:
        self._at = now = max(self._at, time.time_ns() // 1000)
        names = [call.request_id for call in group if call.request_id is not None]
        with told(self._path):
            if names:
                with self._transaction() as writer:
                    done = numbered(group, self._last, _answered(writer, names))
                    _insert(writer, "entries", _entries(done, now), 4)
                    requests = [each for name, last in done.requests.items() for each in (name, last, now)]
                    _insert(writer, "requests", requests, 3)
                    self._forget_requests(now)
            else:
                done = numbered(group, self._last, {})
                # One statement is a transaction by itself.
                with (
                    self._transaction()
                    if len(done.rows) > _ROWS_A_STATEMENT
                    else nullcontext(self._writer) as writer
                ):
                    _insert(writer, "entries", _entries(done, now), 4)
        with self._arrived:
            self._last = done.last
            self._arrived.notify_all()
        return done

    def _forget_requests(self, now: int) -> None:
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY_SECONDS * 1_000_000
            self._writer.execute("DELETE FROM requests WHERE at < ?", (now - REQUEST_SECONDS * 1_000_000,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Of the writing connection, for who holds `_writing`."""
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:  # SQLite itself rolls back after some errors
                writer.execute("ROLLBACK")
            raise

    @contextmanager
    def _query(self) -> Iterator[sqlite3.Connection]:
        """The reading connection, in one snapshot."""
        with told(self._path), self._reading:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    def _fetch(self, after: int, limit: int) -> tuple[list[tuple[int, int, bytes]], Bounds]:
        with self._query() as reader:
            rows = reader.execute(
                "SELECT sequence, crc, body FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, limit),
            ).fetchall()
            return rows, _bounds(reader)


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """What SQLite keeps a database in."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def turns_of(path: Path) -> Turns:
    """Of the processes that share a journal. Raises as `Turns`."""
    from .turns import Turns  # needs what is not everywhere, as sharing a port does

    return Turns(path.with_suffix(".turns"))


def _newest(connection: sqlite3.Connection) -> tuple[int, int]:
    """Number and time of the last entry."""
    last, at, trimmed = connection.execute(
        "SELECT max(sequence), (SELECT at FROM entries ORDER BY sequence DESC LIMIT 1),"
        " (SELECT trimmed FROM state) FROM entries"
    ).fetchone()
    return max(last or 0, trimmed), at or 0


def _bounds(connection: sqlite3.Connection) -> Bounds:
    first, last = connection.execute(
        "SELECT (SELECT min(sequence) FROM entries), (SELECT max(sequence) FROM entries)"
    ).fetchone()
    (trimmed,) = connection.execute("SELECT trimmed FROM state").fetchone()
    return first or 0, max(last or 0, trimmed), trimmed


def _answered(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, int]:
    """The numbers of the request ids that are known."""
    found: dict[str, int] = {}
    for start in range(0, len(names), _ROWS_A_STATEMENT):
        part = names[start : start + _ROWS_A_STATEMENT]
        places = ", ".join("?" * len(part))
        question = f"SELECT id, last FROM requests WHERE id IN ({places})"  # noqa: S608  # only question marks
        found.update(connection.execute(question, part))
    return found


def _entries(done: Numbered, now: int) -> list[Any]:
    """Values for the columns of `entries`, row after row."""
    values: list[Any] = []
    for sequence, crc, body in done.rows:
        values += (sequence, now, crc, body)
    return values


def _insert(connection: sqlite3.Connection, table: str, values: Sequence[Any], columns: int) -> None:
    """Many rows a statement: sqlite3 lets go of the interpreter for each, and a busy loop does not give it
    back at once."""
    step = _ROWS_A_STATEMENT * columns
    for start in range(0, len(values), step):
        part = values[start : start + step]
        connection.execute(_statement(table, columns, len(part) // columns), part)


@lru_cache(64)
def _statement(table: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT INTO {table} VALUES {', '.join([row] * rows)}"  # noqa: S608  # only question marks


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rw"
    if read_only and not os.access(path.parent, os.W_OK) and not files_of(path)[1].exists():
        mode = "ro&immutable=1"  # without a place for its shared memory SQLite would refuse to read
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=5,
    )


def _connect_to_write(path: Path) -> sqlite3.Connection:
    # Not opened to look: when a process closes a file, every lock that SQLite has on it there is gone.
    if not path.stat().st_size:
        raise DataLoss(f"{path} is empty, and was not when it was made")
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionDenied(f"{path} cannot be read and written; make it so for this user")
    return _connect(path, read_only=False)


def _prepare_to_write(writer: sqlite3.Connection, path: Path) -> None:
    for pragma in _PRAGMAS:
        writer.execute(f"PRAGMA {pragma}")
    check_wal(path, writer)
    migrate(writer, str(path))


def _create(path: Path) -> None:
    """Whole under another name first: a file that is there under its own was once a journal."""
    temporary = path.with_name(f".{path.name}.tmp")
    with explained(path), told(path):
        temporary.unlink(missing_ok=True)
        temporary.touch()
        connection = _connect(temporary, read_only=False)
        try:
            migrate(connection, str(path))
        finally:
            connection.close()
        sync(temporary)
        temporary.rename(path)
        sync(path.parent)
