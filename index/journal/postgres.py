"""The journal in PostgreSQL, for several servers that share one index.

Whoever writes locks the journal's row to its commit, so numbers have no gap and become visible in order,
which a sequence of PostgreSQL's would not give. A lost connection is opened again within the callers' time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar
from uuid import uuid4

import psycopg
from psycopg import Connection

from earshot.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable

from .base import JournalStatus
from .entry import Entry
from .group import REQUEST_SECONDS, Group, GroupCommit, Numbered, WritesInGroups, numbered
from .postgres_connection import connect, is_lost, shown, told, transaction
from .postgres_schema import MIGRATIONS, format_of, migrate
from .reading import Bounds, read_entries
from .times import as_time

__all__ = ["PostgresJournal", "drop"]

CHANNEL = "earshot_journal"
RETRY_SECONDS = 30.0
"""How long a call without a timeout waits for a database that cannot be reached."""

_PAUSE = 0.05
_POLL_SECONDS = 1.0  # in case a notice was lost with its connection

T = TypeVar("T")


class PostgresJournal(WritesInGroups):
    """See `Journal`.

    Args:
        address: Such as `postgresql://user@host/database`.
        index: Names the journal among those of the database.
        read_only: To look only.

    Raises:
        NotFound: Read only, and there is none.
        Unavailable: The database cannot be reached.
        PermissionDenied: It does not let us.
        FailedPrecondition: A newer program made the tables.
    """

    def __init__(self, address: str, index: str, *, read_only: bool = False) -> None:
        self._address, self._index = address, index
        self._where = f"{shown(address)}, journal {index}"
        self._reading = threading.Lock()
        self._arrived = threading.Condition()
        self._closed = threading.Event()
        self._group: GroupCommit | None = None
        self._name = str(uuid4())
        self._commits = 0
        with told(self._where):
            self._reader: Connection | None = connect(address)
            try:
                self._look(self._reader) if read_only else self._prepare(self._reader)
                self._seen = self._bounds(self._reader)[1]
            except BaseException:
                self._reader.close()
                raise
        self._writer: Connection | None = None
        self._listening = threading.Thread(target=self._listen, name="earshot-journal-listen", daemon=True)
        self._listening.start()
        if not read_only:
            self._group = GroupCommit(self._commit, name=f"earshot-journal-{index}")

    def read(self, after: int, limit: int | None = None) -> Iterator[tuple[int, Entry]]:
        """See `Journal`."""
        return read_entries(self._fetch, after, limit, self._where)

    def wait(self, after: int, timeout: float) -> int:
        """See `Journal`."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            while self._seen <= after and (left := deadline - time.monotonic()) > 0:
                self._arrived.wait(min(left, _POLL_SECONDS))
                if self._seen <= after:
                    with suppress(Unavailable):
                        self._seen = max(self._seen, self.last())
        return self._seen if self._seen > after else self.last()

    def last(self) -> int:
        """See `Journal`."""
        return self._query(self._bounds)[1]

    def first(self) -> int:
        """See `Journal`."""
        return self._query(self._bounds)[0]

    def trim(self, through: int) -> None:
        """See `Journal`."""
        if self._group is None:
            raise FailedPrecondition(f"{self._where} was opened to read only")

        def work(connection: Connection) -> None:
            last, trimmed, _ = self._locked(connection)
            if through > last:
                raise InvalidArgument(f"through is {through}; the newest entry is {last}", field="through")
            connection.execute(
                "WITH gone AS (DELETE FROM earshot_entries"
                " WHERE journal = %(journal)s AND sequence <= %(through)s"
                " RETURNING octet_length(body) AS size)"
                " UPDATE earshot_journals SET trimmed = %(trimmed)s,"
                " bytes = bytes - (SELECT coalesce(sum(size), 0) FROM gone) WHERE journal = %(journal)s",
                {"journal": self._index, "through": through, "trimmed": max(trimmed, through)},
            )

        self._query(work)

    def begin_at(self, sequence: int) -> None:
        """See `Journal`."""

        def work(connection: Connection) -> None:
            if self._group is None or self._locked(connection)[0]:
                raise FailedPrecondition(f"{self._where} holds updates, or was opened to read only")
            connection.execute(
                "UPDATE earshot_journals SET trimmed = %s, last = %s WHERE journal = %s",
                (sequence, sequence, self._index),
            )

        self._query(work)

    def status(self) -> JournalStatus:
        """See `Journal`."""

        def work(connection: Connection) -> JournalStatus:
            first, last, trimmed = self._bounds(connection)
            row = connection.execute(
                "SELECT bytes, (SELECT at FROM earshot_entries"
                " WHERE journal = %(journal)s AND sequence = %(first)s)"
                " FROM earshot_journals WHERE journal = %(journal)s",
                {"journal": self._index, "first": first},
            ).fetchone()
            size, at = row or (0, None)
            return JournalStatus(
                address=shown(self._address),
                entries=last - first + 1 if first else 0,
                bytes=int(size),
                first=first,
                last=last,
                trimmed=trimmed,
                oldest="" if at is None else as_time(at),
            )

        return self._query(work)

    def close(self) -> None:
        """See `Journal`."""
        if self._closed.is_set():
            return
        if self._group is not None:
            self._group.close()
        self._closed.set()
        with self._arrived:
            self._arrived.notify_all()
        self._listening.join()
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()

    def _commit(self, group: Group) -> Numbered:
        """Write a group; a connection lost meanwhile is opened again while some caller still waits."""
        deadline = max(
            time.monotonic() + RETRY_SECONDS if call.deadline is None else call.deadline for call in group
        )
        self._commits += 1
        attempt: Numbered | None = None
        while True:
            try:
                if self._writer is None:
                    self._writer = connect(self._address)
                with transaction(self._writer):
                    last, _, at = self._locked(self._writer)
                    # Decided under the lock: a commit whose answer was lost is through by now, or never.
                    if attempt is None or not self._has_committed(self._writer):
                        attempt = self._write(self._writer, group, last, at)
                self._see(attempt.last)
                return attempt
            except psycopg.Error as error:
                if self._writer is not None and not is_lost(self._writer, error):
                    with told(self._where):
                        raise
                self._drop_writer()
                if time.monotonic() + _PAUSE > deadline or self._closed.is_set():
                    with told(self._where):
                        raise
                time.sleep(_PAUSE)

    def _write(self, connection: Connection, group: Group, last: int, at: int) -> Numbered:
        now = max(at, time.time_ns() // 1000)
        names = [call.request_id for call in group if call.request_id is not None]
        answered: dict[str, int] = {}
        if names:
            answered = dict(
                connection.execute(
                    "SELECT id, last FROM earshot_requests WHERE journal = %s AND id = ANY(%s)",
                    (self._index, names),
                )
            )
        done = numbered(group, last, answered)
        with connection.cursor() as cursor:
            with cursor.copy("COPY earshot_entries FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(("text", "int8", "int8", "int8", "bytea"))
                for sequence, crc, body in done.rows:
                    copy.write_row((self._index, sequence, now, crc, body))
            if done.requests:
                cursor.execute(
                    "DELETE FROM earshot_requests WHERE journal = %s AND at < %s",
                    (self._index, now - REQUEST_SECONDS * 1_000_000),
                )
                cursor.executemany(
                    "INSERT INTO earshot_requests VALUES (%s, %s, %s, %s)",
                    [(self._index, name, number, now) for name, number in done.requests.items()],
                )
            cursor.execute(
                "INSERT INTO earshot_writers VALUES (%s, %s, %s, %s) ON CONFLICT (journal, writer)"
                " DO UPDATE SET commits = excluded.commits, at = excluded.at",
                (self._index, self._name, self._commits, now),
            )
            cursor.execute(
                "UPDATE earshot_journals SET last = %s, at = %s, bytes = bytes + %s WHERE journal = %s",
                (done.last, now, sum(len(row[2]) for row in done.rows), self._index),
            )
            cursor.execute("SELECT pg_notify(%s, %s)", (CHANNEL, f"{done.last} {self._index}"))
        return done

    def _locked(self, connection: Connection) -> tuple[int, int, int]:
        """(last, trimmed, at) of the journal, with its row locked to the end of the transaction."""
        row = connection.execute(
            "SELECT last, trimmed, at FROM earshot_journals WHERE journal = %s FOR UPDATE", (self._index,)
        ).fetchone()
        if row is None:
            raise FailedPrecondition(f"{self._where} was dropped: its index was deleted", field="index")
        return row[0], row[1], row[2]

    def _has_committed(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT commits FROM earshot_writers WHERE journal = %s AND writer = %s",
            (self._index, self._name),
        ).fetchone()
        return row is not None and row[0] == self._commits

    def _bounds(self, connection: Connection) -> Bounds:
        row = connection.execute(
            "SELECT last, trimmed FROM earshot_journals WHERE journal = %s", (self._index,)
        ).fetchone()
        last, trimmed = row or (0, 0)
        return trimmed + 1 if last > trimmed else 0, last, trimmed

    def _fetch(self, after: int, limit: int) -> tuple[list[tuple[int, int, bytes]], Bounds]:
        def work(connection: Connection) -> tuple[list[tuple[int, int, bytes]], Bounds]:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            bounds = self._bounds(connection)
            rows = connection.execute(
                "SELECT sequence, crc, body FROM earshot_entries WHERE journal = %s AND sequence > %s"
                " ORDER BY sequence LIMIT %s",
                (self._index, after, limit),
                binary=True,
            ).fetchall()
            return [(row[0], row[1], row[2]) for row in rows], bounds

        return self._query(work)

    def _query(self, work: Callable[[Connection], T]) -> T:
        """`work` in a transaction of the reading connection, once more where that was lost."""
        with self._reading:
            for is_second in (False, True):
                if self._closed.is_set():
                    raise FailedPrecondition("the journal is closed")
                try:
                    if self._reader is None:
                        self._reader = connect(self._address)
                    with transaction(self._reader):
                        return work(self._reader)
                except psycopg.Error as error:
                    if self._reader is not None and not is_lost(self._reader, error):
                        with told(self._where):
                            raise
                    if self._reader is not None:
                        self._reader.close()
                        self._reader = None
                    if is_second:
                        with told(self._where):
                            raise
        raise AssertionError("the second time returns or raises")

    def _drop_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _see(self, last: int) -> None:
        with self._arrived:
            self._seen = max(self._seen, last)
            self._arrived.notify_all()

    def _listen(self) -> None:
        """Hear of other servers' entries; without a connection, `wait` polls."""
        while not self._closed.is_set():
            try:
                with connect(self._address) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._closed.is_set():
                        for notice in connection.notifies(timeout=0.2):
                            last, _, index = notice.payload.partition(" ")
                            if index == self._index:
                                self._see(int(last))
            except psycopg.Error:
                self._closed.wait(0.5)

    def _prepare(self, connection: Connection) -> None:
        migrate(connection, shown(self._address))
        connection.execute(
            "INSERT INTO earshot_journals (journal) VALUES (%s) ON CONFLICT DO NOTHING", (self._index,)
        )
        connection.execute(
            "DELETE FROM earshot_writers WHERE journal = %s AND at < %s",
            (self._index, int((time.time() - REQUEST_SECONDS) * 1_000_000)),
        )

    def _look(self, connection: Connection) -> None:
        address = shown(self._address)
        version = format_of(connection)
        if version not in (0, len(MIGRATIONS)):
            raise FailedPrecondition(f"{address} has format {version}; this program reads {len(MIGRATIONS)}")
        if not version or not self._exists(connection):
            raise NotFound(f"index {self._index} has no journal in {address}", field="index")

    def _exists(self, connection: Connection) -> bool:
        found = connection.execute("SELECT 1 FROM earshot_journals WHERE journal = %s", (self._index,))
        return found.fetchone() is not None


def drop(address: str, index: str) -> None:
    """Remove the journal of an index that is deleted; nothing where there is none."""
    with told(shown(address)), connect(address) as connection:
        if format_of(connection):
            connection.execute("DELETE FROM earshot_journals WHERE journal = %s", (index,))
