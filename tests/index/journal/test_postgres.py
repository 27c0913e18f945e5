"""Several servers on one journal, and a database that goes away in the middle."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from earshot.errors import (
    DataLoss,
    DeadlineExceeded,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from earshot.index.journal import Remove, drop_journal, open_journal
from earshot.index.journal.postgres_schema import MIGRATIONS, format_of, migrate

RUNNER = Path(__file__).with_name("kill_runner.py")


def ids_in(journal) -> list[str]:
    found = list(journal.read(0))
    assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
    return [entry.id for _, entry in found]


def test_indexes_keep_apart(database):
    with closing(open_journal(database, "a")) as a, closing(open_journal(database, "b")) as b:
        a.append([Remove("x"), Remove("y")])
        assert b.append([Remove("z")]) == 1
        assert (ids_in(a), ids_in(b)) == (["x", "y"], ["z"])


def test_a_dropped_journal_is_gone_and_its_namesake_starts_empty(database):
    with closing(open_journal(database, "podcasts")) as journal:
        journal.append([Remove("a")], request_id="one")
        drop_journal(database, "podcasts")
        with pytest.raises(FailedPrecondition, match="was dropped: its index was deleted"):
            journal.append([Remove("b")])
    with pytest.raises(NotFound, match="index podcasts has no journal"):
        open_journal(database, "podcasts", read_only=True)
    with closing(open_journal(database, "podcasts")) as journal:
        assert journal.append([Remove("c")], request_id="one") == 1
        assert ids_in(journal) == ["c"]


def test_servers_that_start_together_make_the_tables_once(database):
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_journal(database, "podcasts"), range(8)))
    for journal in opened:
        journal.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_under_load_loses_nothing_and_repeats_nothing(how, postgres, database):
    """Calls wait within their deadline; each that was acknowledged is there once, at its number."""
    journal = open_journal(database, "podcasts")
    acknowledged: dict[str, int] = {}
    failed: list[EarshotError] = []
    stop = threading.Event()

    def write(writer: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"{writer}-{number}"
            number += 1
            try:
                acknowledged[name] = journal.append([Remove(name)], timeout=30)
            except EarshotError as error:
                failed.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    postgres.end(how)
    time.sleep(0.2)
    postgres.start()
    before = len(acknowledged)
    deadline = time.monotonic() + 30
    while len(acknowledged) < before + 50 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(acknowledged) >= before + 50
    assert not failed
    found = ids_in(journal)
    assert len(found) == len(set(found))
    assert {found[number - 1] for number in acknowledged.values()} == set(acknowledged)
    assert all(found[number - 1] == name for name, number in acknowledged.items())
    journal.close()


def test_a_call_fails_within_its_deadline_while_the_database_is_away(postgres, database):
    with closing(open_journal(database, "podcasts")) as journal:
        journal.append([Remove("a")])
        postgres.end(signal.SIGINT)
        try:
            began = time.monotonic()
            with pytest.raises((DeadlineExceeded, Unavailable)):
                journal.append([Remove("b")], timeout=0.5)
            assert time.monotonic() - began < 3
            with pytest.raises(Unavailable, match="cannot be used now"):
                journal.last()
        finally:
            postgres.start()
        assert journal.append([Remove("c")], timeout=30) in (2, 3)
        assert journal.wait(1, 10) >= 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_commit_whose_answer_was_lost_is_found_or_done_again_never_twice(moment, database, monkeypatch):
    journal = open_journal(database, "podcasts")
    journal.append([Remove("first")])
    broken = []
    execute = psycopg.Connection.execute

    def lose(self, query, *arguments, **options):
        """The connection is lost just before, or just after, the server hears of the commit."""
        loses = query == "COMMIT" and self is journal._writer and not broken
        if loses and moment == "before":
            self.close()
        if loses:
            broken.append(1)
        answer = execute(self, query, *arguments, **options)
        if loses:
            self.close()
            raise psycopg.OperationalError("the answer was lost")
        return answer

    monkeypatch.setattr(psycopg.Connection, "execute", lose)
    assert journal.append([Remove("a"), Remove("b")]) == 3
    assert broken
    assert journal.append([Remove("c")]) == 4
    assert ids_in(journal) == ["first", "a", "b", "c"]
    journal.close()


def test_a_killed_writer_loses_nothing_that_was_acknowledged(database):
    acknowledged: dict[str, int] = {}
    generator = random.Random(0)
    for round_ in range(2):
        with subprocess.Popen(
            [sys.executable, RUNNER, database, str(round_)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(generator.uniform(0.1, 0.3))
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.read().splitlines()
        acknowledged |= {line.split()[0]: int(line.split()[1]) for line in lines[:-1]}
    assert len(acknowledged) > 10
    with closing(open_journal(database, "podcasts", read_only=True)) as journal:
        found = ids_in(journal)
    assert len(found) == len(set(found))
    for call, last in acknowledged.items():
        assert found[last - 3 : last] == [f"{call}:{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("DELETE FROM earshot_entries WHERE sequence = 2", "entry 2 of .* is missing"),
        ("DELETE FROM earshot_entries WHERE sequence = 3", "entry 3 of .* is missing"),
        ("UPDATE earshot_entries SET body = body || 'x' WHERE sequence = 2", "entry 2 of .* is damaged"),
        ("UPDATE earshot_entries SET crc = crc + 1 WHERE sequence = 1", "entry 1 of .* is damaged"),
    ],
)
def test_missing_and_damaged_entries_are_told(harm, message, database):
    with closing(open_journal(database, "podcasts")) as journal:
        journal.append([Remove("a"), Remove("b"), Remove("c")])
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(harm)
        with pytest.raises(DataLoss, match=message):
            list(journal.read(0))


def test_a_user_without_rights_is_told(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    try:
        with pytest.raises(PermissionDenied, match="give the user the right to create and write tables"):
            open_journal(database.replace("earshot@", "guest@"), "podcasts")
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("DROP ROLE guest")


def test_an_older_format_becomes_this_one_and_a_newer_one_is_refused(database):
    with closing(open_journal(database, "podcasts")) as journal:
        journal.append([Remove("a")])
    with psycopg.connect(database, autocommit=True) as connection:
        newer = (*MIGRATIONS, "ALTER TABLE earshot_journals ADD COLUMN note TEXT DEFAULT 'moved'")
        with pytest.raises(psycopg.errors.SyntaxError):
            migrate(connection, "it", migrations=(*newer, "THIS IS NO SQL"))
        assert format_of(connection) == len(MIGRATIONS)
        migrate(connection, "it", migrations=newer)
        assert format_of(connection) == len(newer)
        assert connection.execute("SELECT last, note FROM earshot_journals").fetchone() == (1, "moved")
    for read_only in (False, True):
        with pytest.raises(FailedPrecondition, match=f"has format {len(newer)}; this program"):
            open_journal(database, "podcasts", read_only=read_only)


def test_a_password_is_in_no_message():
    with pytest.raises(Unavailable) as caught:
        open_journal("postgresql://user:hidden@127.0.0.1:1/database", "podcasts")
    assert "hidden" not in caught.value.message
    assert "postgresql://127.0.0.1:1/database" in caught.value.message


def test_what_is_no_address_is_told():
    with pytest.raises(InvalidArgument, match="journal is no address of PostgreSQL's"):
        open_journal("postgresql://host/x?nothing=known", "podcasts")
