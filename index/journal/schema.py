"""The tables of a journal in SQLite, and how a file of an older format becomes one of this.

Every change of the tables is one more entry of `MIGRATIONS`; none is ever edited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from earshot.errors import DataLoss, FailedPrecondition

__all__ = ["MIGRATIONS", "application_id", "migrate"]

application_id = 0x65617273  # "ears"
"""Tells a journal from other SQLite files."""

MIGRATIONS: tuple[str, ...] = (
    # 1: `at` is microseconds since 1970, never less than the entry's before; `crc` as in `codec.checksum`.
    # `trimmed` outlives the entries, so that numbers go on counting.
    """
    CREATE TABLE entries (
        sequence INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE requests (
        id TEXT PRIMARY KEY,
        last INTEGER NOT NULL,
        at INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX requests_by_age ON requests (at);
    CREATE TABLE state (trimmed INTEGER NOT NULL);
    INSERT INTO state VALUES (0);
    PRAGMA application_id = 1700885107;
    """,
)


def migrate(
    connection: sqlite3.Connection, where: str, *, migrations: Sequence[str] = MIGRATIONS, write: bool = True
) -> None:
    """Bring a journal to this program's format, in one step or not at all.

    Args:
        connection: To the file, in autocommit.
        where: For messages.
        migrations: All there are, oldest first.
        write: Whether it may be changed; an older one is then refused.

    Raises:
        DataLoss: It is another program's file.
        FailedPrecondition: A newer program wrote it, or an older one and `write` is false.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (program,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and program != application_id:
        raise DataLoss(f"{where} is no journal of Earshot")
    if version > len(migrations):
        raise FailedPrecondition(
            f"{where} has format {version}; this program knows up to {len(migrations)}: use a newer one"
        )
    if version == len(migrations):
        return
    if not write:
        raise FailedPrecondition(f"{where} has format {version}: a server of this version must open it first")
    steps = "\n".join(migrations[version:])
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{steps}\nPRAGMA user_version = {len(migrations)};\nCOMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
