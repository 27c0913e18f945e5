"""A journal in a file that several processes own together, as the workers of a server do."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from earshot.errors import Aborted
from earshot.index.journal import Journal, Remove, open_journal, turns_of

RUNNER = Path(__file__).with_name("kill_runner.py")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def shared(path: Path) -> Journal:
    return open_journal(path, "podcasts", shared=True)


def ids_in(journal: Journal) -> list[str]:
    found = list(journal.read(0))
    assert [sequence for sequence, _ in found] == list(range(1, len(found) + 1))
    return [entry.id for _, entry in found]


def test_what_was_acknowledged_is_told_to_all_before_the_caller_hears(path: Path) -> None:
    with closing(shared(path)) as one, closing(shared(path)) as two, closing(turns_of(path)) as looking:
        for number in range(1, 50):
            assert (one, two)[number % 2].append([Remove("a")]) == number
            assert looking.reached == number


def test_who_hears_of_it_in_the_turn_hears_in_the_order_of_the_log(path: Path) -> None:
    told: list[int] = []
    with closing(shared(path)) as one, closing(shared(path)) as two:
        for journal in (one, two):
            journal.when_written(lambda first, entries, last: told.append(last))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda call: (one, two)[call % 2].append([Remove("a")]), range(200)))
    assert told == sorted(told)
    assert told[-1] == 200


def test_those_who_share_keep_out_who_wants_it_alone_and_are_kept_out(path: Path) -> None:
    with closing(shared(path)), closing(shared(path)) as two:
        with pytest.raises(Aborted, match="journal of index podcasts is in use by process"):
            open_journal(path, "podcasts")
        two.close()
        with pytest.raises(Aborted):
            open_journal(path, "podcasts")
    with closing(open_journal(path, "podcasts")), pytest.raises(Aborted, match="in use by process"):
        shared(path)
    shared(path).close()


def test_the_file_of_turns_that_was_deleted_is_gone(path: Path) -> None:
    with closing(turns_of(path)) as turns:
        assert not turns.is_gone
        path.with_suffix(".turns").unlink()
        assert turns.is_gone


def started(path: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, RUNNER, path, name, "shared"], stdout=subprocess.PIPE, text=True)


def acknowledged_by(writer: subprocess.Popen[str], lines: Sequence[str]) -> dict[str, int]:
    """What it printed, from its death on; the last line may be torn."""
    assert writer.stdout is not None
    rest = writer.stdout.read().splitlines()
    writer.stdout.close()
    writer.wait(30)
    words = [line.split() for line in (*lines, *rest[:-1])]
    return {name: int(number) for name, number in words}


@pytest.mark.parametrize("seed", range(2))
def test_one_is_killed_and_the_others_lose_nothing(seed: int, path: Path) -> None:
    """Two write; one of them is killed, and another starts. Whatever any printed is there, at its number."""
    dice = random.Random(seed)
    acknowledged: dict[str, int] = {}
    writers: list[tuple[subprocess.Popen[str], list[str]]] = []
    for life in range(6):
        process = started(path, str(life))
        assert process.stdout is not None
        writers.append((process, [process.stdout.readline()]))
        if len(writers) == 2:
            time.sleep(dice.uniform(0, 0.2))
            process, lines = writers.pop(dice.randrange(2))
            process.send_signal(signal.SIGKILL)
            acknowledged |= acknowledged_by(process, lines)
    for process, lines in writers:
        process.send_signal(signal.SIGKILL)
        acknowledged |= acknowledged_by(process, lines)
    with closing(shared(path)) as journal:
        found = ids_in(journal)
        assert journal.append([Remove("after")]) == len(found) + 1
    assert len(acknowledged) > 100
    assert len({name.split("-")[0] for name in acknowledged}) == 6
    assert len(found) == len(set(found))
    for call, last in acknowledged.items():
        assert found[last - 3 : last] == [f"{call}:{i}" for i in range(3)]


def test_who_leaves_takes_no_log_away_from_those_who_stay(path: Path) -> None:
    """Whoever closes SQLite's database last removes its log; whether others are there it asks their locks.

    A process has one set of them for a file, whatever it opened, and loses them when it closes any of it.
    """
    with closing(shared(path)) as journal:
        journal.append([Remove("before")])
    reader = open_journal(path, "podcasts", read_only=True)  # as a server has it until its first update
    with closing(reader), closing(shared(path)) as journal:
        journal.append([Remove("here")])
        come_and_gone = (
            "from earshot.index.journal import Remove, open_journal; "
            f"journal = open_journal({str(path)!r}, 'podcasts', shared=True); "
            "journal.append([Remove('there')]); journal.close()"
        )
        subprocess.run([sys.executable, "-c", come_and_gone], check=True, timeout=60)
        assert path.with_name("journal.sqlite-wal").exists()
        journal.append([Remove("again")])
        for each in (reader, journal):
            assert ids_in(each) == ["before", "here", "there", "again"]
        with closing(shared(path)) as third:
            assert ids_in(third) == ["before", "here", "there", "again"]
