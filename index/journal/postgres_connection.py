"""Connections to PostgreSQL that notice a dead peer, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg import Connection, errors
from psycopg.conninfo import conninfo_to_dict

from earshot.errors import (
    DataLoss,
    EarshotError,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

__all__ = ["connect", "is_lost", "shown", "told", "transaction"]

# A server that froze in the middle of a commit shall not lock the others out for ever.
_SETTINGS = "-c synchronous_commit=on -c idle_in_transaction_session_timeout=15s -c client_min_messages=error"

_KINDS: tuple[tuple[tuple[type[psycopg.Error], ...], type[EarshotError], str], ...] = (
    ((errors.DiskFull, errors.TooManyConnections), ResourceExhausted, "make room and try again"),
    (
        (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.InvalidPassword),
        PermissionDenied,
        "give the user the right to create and write tables",
    ),
    ((errors.DataCorrupted, errors.IndexCorrupted), DataLoss, "restore it from a backup"),
)


def connect(address: str) -> Connection:
    """A connection in autocommit."""
    return psycopg.connect(
        address,
        autocommit=True,
        connect_timeout=5,
        application_name="earshot",
        options=_SETTINGS,
        prepare_threshold=2,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=15_000,
    )


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """All of the block or none of it. psycopg's own ends in silence where the connection is gone by then.

    Raises:
        psycopg.Error: It was not committed, or nobody knows: `is_lost` tells.
    """
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
    if connection.execute("COMMIT").statusmessage != "COMMIT":
        raise psycopg.OperationalError("the database rolled the transaction back")


def is_lost(connection: Connection, error: psycopg.Error) -> bool:
    """Whether another connection may succeed where this one failed."""
    return connection.closed or isinstance(error, errors.DeadlockDetected | errors.SerializationFailure)


def shown(address: str) -> str:
    """The address for people: host and database, no password.

    Raises:
        InvalidArgument: It is no address of PostgreSQL's.
    """
    try:
        parts = conninfo_to_dict(address)
    except psycopg.ProgrammingError as error:
        raise InvalidArgument(
            f"journal is no address of PostgreSQL's such as postgresql://user@host/database: {error}",
            field="journal",
        ) from None
    port = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{parts.get('host', '')}{port}/{parts.get('dbname', '')}"


@contextmanager
def told(where: str) -> Iterator[None]:
    """Turn every error of psycopg's into one of ours.

    Raises:
        ResourceExhausted, PermissionDenied, DataLoss, Unavailable: In this order of how clear it is.
    """
    try:
        yield
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        for kinds, kind, advice in _KINDS:
            if isinstance(error, kinds):
                raise kind(f"{where}: {reason}; {advice}") from error
        raise Unavailable(f"{where} cannot be used now: {reason}") from error
