"""The tables of journals in PostgreSQL, and how those of an older format become this one's.

Every change of the tables is one more entry of `MIGRATIONS`; none is ever edited.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import Connection
from psycopg.sql import SQL

from earshot.errors import FailedPrecondition

from .postgres_connection import transaction

__all__ = ["MIGRATIONS", "format_of", "migrate"]

_LOCK = 0x65617273  # any number that others are unlikely to take

MIGRATIONS: tuple[str, ...] = (
    # 1: `at` is microseconds since 1970, `crc` as in `codec.checksum`, `bytes` those of the bodies kept.
    # Whoever writes holds the row of `earshot_journals`, so numbers become visible in order, without a gap.
    # `earshot_writers` remembers how often each server committed: one that lost its connection in a commit
    # finds out there whether it happened. Vectors do not compress, so the database shall not try.
    """
    CREATE TABLE earshot_journals (
        journal TEXT PRIMARY KEY,
        last BIGINT NOT NULL DEFAULT 0,
        trimmed BIGINT NOT NULL DEFAULT 0,
        at BIGINT NOT NULL DEFAULT 0,
        bytes BIGINT NOT NULL DEFAULT 0
    );
    CREATE TABLE earshot_entries (
        journal TEXT NOT NULL REFERENCES earshot_journals ON DELETE CASCADE,
        sequence BIGINT NOT NULL,
        at BIGINT NOT NULL,
        crc BIGINT NOT NULL,
        body BYTEA NOT NULL,
        PRIMARY KEY (journal, sequence)
    );
    ALTER TABLE earshot_entries ALTER COLUMN body SET STORAGE EXTERNAL;
    CREATE TABLE earshot_requests (
        journal TEXT NOT NULL REFERENCES earshot_journals ON DELETE CASCADE,
        id TEXT NOT NULL,
        last BIGINT NOT NULL,
        at BIGINT NOT NULL,
        PRIMARY KEY (journal, id)
    );
    CREATE INDEX earshot_requests_by_age ON earshot_requests (journal, at);
    CREATE TABLE earshot_writers (
        journal TEXT NOT NULL REFERENCES earshot_journals ON DELETE CASCADE,
        writer TEXT NOT NULL,
        commits BIGINT NOT NULL,
        at BIGINT NOT NULL,
        PRIMARY KEY (journal, writer)
    );
    """,
)


def format_of(connection: Connection) -> int:
    """The number of the tables' format; 0 where there are none."""
    found = connection.execute("SELECT to_regclass('earshot_format') IS NOT NULL").fetchone()
    if not found or not found[0]:
        return 0
    row = connection.execute("SELECT version FROM earshot_format").fetchone()
    return row[0] if row else 0


def migrate(connection: Connection, where: str, *, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the tables to this program's format, in one step or not at all; servers that start together wait.

    Raises:
        FailedPrecondition: A newer program made them.
    """
    with transaction(connection):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        version = format_of(connection)
        if version > len(migrations):
            raise FailedPrecondition(
                f"{where} has format {version}; this program knows up to {len(migrations)}: use a newer one"
            )
        if version == 0:
            connection.execute("CREATE TABLE earshot_format (version INT NOT NULL)")
            connection.execute("INSERT INTO earshot_format VALUES (0)")
        for step in migrations[version:]:
            connection.execute(SQL(step))
        connection.execute("UPDATE earshot_format SET version = %s", (len(migrations),))
