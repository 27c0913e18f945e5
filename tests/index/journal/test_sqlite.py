"""What can go wrong with a file: torn, full, read-only, shared, killed, from another time or program."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    EarshotError,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from earshot.index.journal import Put, Remove, open_journal
from earshot.index.journal.schema import MIGRATIONS, migrate

RUNNER = Path(__file__).with_name("kill_runner.py")


def put(name: str, dimension: int = 100) -> Put:
    return Put(name, np.full(dimension, 0.5, np.float32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def ids_in(path: Path) -> list[str]:
    with closing(open_journal(path, "podcasts")) as journal:
        return [entry.id for _, entry in journal.read(0)]


def crashed(folder: Path, path: Path, calls: int = 30) -> Path:
    """A copy of a journal's files as a crash after `calls` appends of 1 to 5 entries would leave them."""
    with closing(open_journal(path, "podcasts")) as journal:
        for call in range(calls):
            journal.append([put(f"{call}-{i}") for i in range(call % 5 + 1)])
        folder.mkdir()
        for file in path.parent.glob("journal.sqlite*"):
            shutil.copy(file, folder)
    return folder / path.name


def test_a_file_cut_anywhere_is_damage_or_whole(path, tmp_path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put(str(number)) for number in range(300)])
    whole = path.read_bytes()
    expected = [str(number) for number in range(300)]
    cuts = {*range(0, len(whole), 4096), *random.Random(0).sample(range(len(whole)), 60)}
    told = set()
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        try:
            assert ids_in(path) == expected, cut
        except DataLoss:
            told.add(cut)
    assert len(told) > len(cuts) * 0.9


def test_a_flipped_bit_is_damage_or_changes_nothing(path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put(str(number)) for number in range(100)])
    whole = path.read_bytes()
    expected = [(str(number), 50.0) for number in range(100)]
    generator = random.Random(1)
    told = 0
    for _ in range(150):
        harmed = bytearray(whole)
        harmed[generator.randrange(len(harmed))] ^= 1 << generator.randrange(8)
        path.write_bytes(harmed)
        try:
            with closing(open_journal(path, "podcasts")) as journal:
                assert [(entry.id, entry.vector.sum()) for _, entry in journal.read(0)] == expected
        except (DataLoss, FailedPrecondition):
            told += 1
    assert told > 75


def test_a_log_torn_anywhere_keeps_whole_commits_from_the_beginning(path, tmp_path):
    """Nothing after the tear was acknowledged: it is the end of what was forced to disk."""
    copy = crashed(tmp_path / "copy", path)
    calls = [[f"{call}-{i}" for i in range(call % 5 + 1)] for call in range(30)]
    prefixes = [list(chain(*calls[:count])) for count in range(31)]
    log = copy.with_name("journal.sqlite-wal")
    whole, base = log.read_bytes(), copy.read_bytes()
    assert ids_in(copy) == prefixes[-1]
    for cut in [0, 1, 31, 32, *random.Random(2).sample(range(len(whole)), 60)]:
        copy.write_bytes(base)
        log.write_bytes(whole[:cut])
        assert ids_in(copy) in prefixes, cut


def test_a_log_damaged_in_its_middle_is_told(path, tmp_path):
    copy = crashed(tmp_path / "copy", path)
    log = copy.with_name("journal.sqlite-wal")
    harmed = bytearray(log.read_bytes())
    harmed[len(harmed) // 2] ^= 1
    log.write_bytes(harmed)
    with pytest.raises(DataLoss, match=r"journal\.sqlite-wal is damaged at frame \d+: \d+ commits after it"):
        open_journal(copy, "podcasts")


def test_a_missing_entry_is_told(path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put("a"), put("b"), put("c")])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM entries WHERE sequence = 2")
    with (
        closing(open_journal(path, "podcasts")) as journal,
        pytest.raises(DataLoss, match=r"entry 2 .* is missing"),
    ):
        list(journal.read(0))


def test_a_journal_shorter_than_its_version_is_told(path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put("a")])
        with pytest.raises(DataLoss, match="ends at entry 1; entry 7 was there once"):
            list(journal.read(7))


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + bytes(5000)])
def test_another_file_in_its_place_is_told_and_kept(content, path):
    path.write_bytes(content)
    with pytest.raises(DataLoss, match=r"journal\.sqlite"):
        open_journal(path, "podcasts")
    assert path.read_bytes() == content


def test_another_programs_database_is_told_and_kept(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE entries (x)")
    with pytest.raises(DataLoss, match="is no journal of Earshot"):
        open_journal(path, "podcasts")


def test_a_full_disk_fails_the_call_whole_and_the_next_one_works_when_there_is_room(path):
    journal = open_journal(path, "podcasts")
    journal.append([put("before")])
    (pages,) = journal._writer.execute("PRAGMA page_count").fetchone()
    journal._writer.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(ResourceExhausted, match="the disk is full; free some space"):
        journal.append([put(str(number)) for number in range(1000)])
    assert journal.last() == 1
    journal._writer.execute("PRAGMA max_page_count = 1000000")
    assert journal.append([put("after")]) == 2
    journal.close()
    assert ids_in(path) == ["before", "after"]


def test_a_refused_write_in_the_middle_of_a_batch_loses_nothing_before_it(path):
    journal = open_journal(path, "podcasts")
    journal.append([put("before")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises((ResourceExhausted, Unavailable), match=r"journal\.sqlite"):
            journal.append([put(str(number)) for number in range(1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.append([put("after")]) == 2
    journal.close()
    assert ids_in(path) == ["before", "after"]


def as_nobody(operation) -> str:
    """What an operation raises where the file's permissions count, as they do not for root."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            operation()
        except EarshotError as error:
            answer = f"{type(error).__name__}: {error.message}"
        except BaseException as error:  # noqa: BLE001
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.fixture
def open_folder(tmp_path):
    """A folder to which others find their way."""
    for folder in [tmp_path, *tmp_path.parents]:
        if "pytest" in folder.as_posix() and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    folder = tmp_path / "index"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_told(open_folder):
    open_folder.chmod(0o555)
    answer = as_nobody(lambda: open_journal(open_folder / "journal.sqlite", "podcasts"))
    assert answer.startswith("PermissionDenied: cannot write")
    assert "make it writable" in answer


def test_a_file_that_cannot_be_written_is_told_and_can_be_read(open_folder):
    path = open_folder / "journal.sqlite"
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put("a")])
    path.with_suffix(".lock").unlink(missing_ok=True)
    path.chmod(0o444)
    open_folder.chmod(0o777)
    answer = as_nobody(lambda: open_journal(path, "podcasts"))
    assert answer.startswith("PermissionDenied")
    open_folder.chmod(0o555)

    def look() -> None:
        with closing(open_journal(path, "podcasts", read_only=True)) as journal:
            raise FailedPrecondition(f"read {[entry.id for _, entry in journal.read(0)]}")

    assert as_nobody(look) == "FailedPrecondition: read ['a']"


def test_there_is_nothing_to_read_where_nothing_was_written(path):
    with pytest.raises(NotFound, match="index podcasts has no journal"):
        open_journal(path, "podcasts", read_only=True)
    assert not path.exists()


def test_a_clock_set_back_changes_no_order_and_keeps_request_ids(path, monkeypatch):
    now = time.time_ns()
    journal = open_journal(path, "podcasts")
    journal.append([put("a")], request_id="one")
    monkeypatch.setattr("time.time_ns", lambda: now - 10**18)
    assert journal.append([put("b")], request_id="two") == 2
    assert journal.append([put("a")], request_id="one") == 1
    journal.close()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    with closing(open_journal(path, "podcasts")) as again:
        assert again.append([put("c")]) == 3
        assert again.append([put("b")], request_id="two") == 2
        assert [entry.id for _, entry in again.read(0)] == ["a", "b", "c"]
        assert again.status().oldest.startswith("20")


def test_a_request_id_is_forgotten_after_a_day(path, monkeypatch):
    now = time.time_ns()
    with closing(open_journal(path, "podcasts")) as journal:
        assert journal.append([put("a")], request_id="one") == 1
        monkeypatch.setattr("time.time_ns", lambda: now + 25 * 3600 * 10**9)
        journal.append([put("b")], request_id="two")
        assert journal.append([put("a")], request_id="one") == 3


def test_a_second_owner_is_refused_with_the_first_ones_process(path):
    with closing(open_journal(path, "podcasts")):
        with pytest.raises(Aborted, match=f"journal of index podcasts is in use by process {os.getpid()}"):
            open_journal(path, "podcasts")
        other = subprocess.run(
            [sys.executable, RUNNER, path, "1"], capture_output=True, text=True, check=False, timeout=60
        )
        assert "Aborted" in other.stderr
        assert f"in use by process {os.getpid()}" in other.stderr
    open_journal(path, "podcasts").close()


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_loses_nothing_that_was_acknowledged(seed, path):
    """The runner prints each number it got; whatever it printed must be there, in whole calls, once."""
    generator = random.Random(seed)
    acknowledged: set[str] = set()
    for round_ in range(3):
        with subprocess.Popen(
            [sys.executable, RUNNER, path, str(round_)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline()]
            time.sleep(generator.uniform(0, 0.15))
            writer.send_signal(signal.SIGKILL)
            lines += writer.stdout.read().splitlines()
        acknowledged |= {line.split()[0] for line in lines if len(line.split()) == 2}
        found = ids_in(path)
        assert len(found) == len(set(found))
        calls = [name.rpartition(":")[0] for name in found]
        assert acknowledged <= set(calls)
        assert all(calls.count(call) == 3 for call in set(calls))


def test_a_call_that_waited_too_long_is_not_written_if_it_had_not_begun(path):
    with closing(open_journal(path, "podcasts")) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # stands in for a slow disk
        try:
            with pytest.raises(
                DeadlineExceeded, match="may yet do so; the same call with the same request id"
            ):
                journal.append([put("begun")], request_id="one", timeout=0.2)
            with pytest.raises(DeadlineExceeded, match="nothing was written"):
                journal.append([put("never")], timeout=0.2)
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert journal.append([put("begun")], request_id="one") == 1
        assert journal.append([put("after")]) == 2
        assert [entry.id for _, entry in journal.read(0)] == ["begun", "after"]


def test_a_reader_does_not_hold_up_the_owner(path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([Remove(str(number)) for number in range(1500)])
        reading = journal.read(0)
        next(reading)
        assert journal.append([put("b")]) == 1501
        journal.trim(1500)
        with pytest.raises(FailedPrecondition, match="was trimmed"):  # told, not skipped
            list(reading)


def test_an_older_format_becomes_this_one_in_one_step(path):
    with closing(open_journal(path, "podcasts")) as journal:
        journal.append([put("a")])
    newer = (*MIGRATIONS, "ALTER TABLE state ADD COLUMN note TEXT;", "UPDATE state SET note = 'moved';")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(FailedPrecondition, match="has format 1: a server of this version must open it"):
            migrate(connection, "it", migrations=newer, write=False)
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, "it", migrations=(*newer, "THIS IS NO SQL;"))
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        migrate(connection, "it", migrations=newer)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT note FROM state").fetchone() == ("moved",)
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_a_newer_format_is_refused(path):
    open_journal(path, "podcasts").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 99")
    for read_only in (False, True):
        with pytest.raises(FailedPrecondition, match="has format 99; this program knows up to"):
            open_journal(path, "podcasts", read_only=read_only)
