"""What every journal does, whatever keeps it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earshot.errors import FailedPrecondition, InvalidArgument
from earshot.index.journal import Put, Remove


def put(name: str) -> Put:
    return Put(name, np.full(4, 0.5, np.float32), metadata={"name": name})


def names_in(journal, after: int = 0) -> list[str]:
    found = list(journal.read(after))
    assert [sequence for sequence, _ in found] == list(range(after + 1, after + 1 + len(found)))
    return [entry.id for _, entry in found]


def test_a_new_journal_is_empty(journal):
    status = journal.status()
    assert (journal.first(), journal.last(), status.entries, status.oldest) == (0, 0, 0, "")
    assert list(journal.read(0)) == []


def test_entries_are_read_in_order_once_each(journal):
    assert journal.append([put("a"), put("b")]) == 2
    assert journal.append([Remove("a")]) == 3
    assert names_in(journal) == ["a", "b", "a"]
    assert names_in(journal, 2) == ["a"]
    assert [sequence for sequence, _ in journal.read(0, 2)] == [1, 2]
    assert list(journal.read(3)) == []


def test_a_long_journal_is_read_in_pieces(journal):
    journal.append([Remove(str(number)) for number in range(2500)])
    assert names_in(journal) == [str(number) for number in range(2500)]
    assert len(list(journal.read(100, 1500))) == 1500
    assert len(list(journal.read(0, 2000))) == 2000


def test_what_was_appended_is_there_after_it_was_opened_again(opened):
    first = opened()
    first.append([put("a"), put("b")])
    first.close()
    again = opened()
    assert names_in(again) == ["a", "b"]
    assert again.append([put("c")]) == 3


def test_concurrent_callers_each_get_their_own_consecutive_numbers(journal):
    def write(caller: int) -> list[tuple[int, int]]:
        return [
            (journal.append([Remove(f"{caller}-{call}-{i}") for i in range(3)]), call) for call in range(20)
        ]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(write, range(16)))
    found = names_in(journal)
    assert len(found) == 16 * 20 * 3
    for caller, calls in enumerate(answers):
        for last, call in calls:
            assert found[last - 3 : last] == [f"{caller}-{call}-{i}" for i in range(3)]
        assert [last for last, _ in calls] == sorted(last for last, _ in calls)


def test_a_repeated_request_id_appends_nothing_and_returns_the_first_number(opened):
    journal = opened()
    assert journal.append([put("a"), put("b")], request_id="one") == 2
    assert journal.append([put("c")], request_id="two") == 3
    assert journal.append([put("a"), put("b")], request_id="one") == 2
    journal.close()
    again = opened()
    assert again.append([put("a"), put("b")], request_id="one") == 2
    assert names_in(again) == ["a", "b", "c"]


def test_a_request_id_repeated_at_the_same_time_appends_once(journal):
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: journal.append([put("a")], request_id="one"), range(200)))
    assert set(answers) == {1}
    assert names_in(journal) == ["a"]


def test_a_request_id_outlives_its_trimmed_entries(journal):
    journal.append([put("a")], request_id="one")
    journal.trim(1)
    assert journal.append([put("a")], request_id="one") == 1
    assert journal.last() == 1


def test_numbers_go_on_after_everything_was_trimmed(opened):
    journal = opened()
    journal.append([put("a"), put("b"), put("c")])
    journal.trim(2)
    assert (journal.first(), journal.last(), journal.status().trimmed) == (3, 3, 2)
    journal.trim(1)  # less than before changes nothing
    assert (journal.first(), journal.status().trimmed) == (3, 2)
    journal.trim(3)
    assert (journal.first(), journal.last(), journal.status().entries) == (0, 3, 0)
    journal.close()
    again = opened()
    assert again.last() == 3
    assert again.append([put("d")]) == 4
    assert names_in(again, 3) == ["d"]


def test_reading_what_was_trimmed_is_refused_not_skipped(journal):
    journal.append([put("a"), put("b"), put("c")])
    journal.trim(2)
    with pytest.raises(FailedPrecondition, match=r"entry 2 .* was trimmed: entries up to 2 are in versions"):
        list(journal.read(1))


def test_trimming_what_is_not_there_yet_is_refused(journal):
    with pytest.raises(InvalidArgument, match="through is 5; the newest entry is 0"):
        journal.trim(5)


def test_an_empty_append_is_refused(journal):
    with pytest.raises(InvalidArgument, match="at least one"):
        journal.append([])


def test_what_cannot_be_written_appends_nothing(journal):
    with pytest.raises(InvalidArgument, match="'b'"):
        journal.append([put("a"), Put("b", np.ones(4, np.float32), metadata={"x": object()})])
    assert journal.last() == 0


def test_waiting_ends_with_the_next_entry(journal):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(journal.wait, 0, 30.0)
        time.sleep(0.05)
        began = time.perf_counter()
        journal.append([put("a")])
        assert waiting.result() == 1
        assert time.perf_counter() - began < 5


def test_waiting_in_vain_ends_in_time(journal):
    assert journal.wait(0, 0.05) == 0


def test_a_reader_sees_what_the_owner_appends(opened):
    owner, reader = opened(), opened(read_only=True)
    owner.append([put("a")])
    assert reader.wait(0, 10) == 1
    assert names_in(reader) == ["a"]
    assert reader.status().entries == 1
    with pytest.raises(FailedPrecondition, match="read only"):
        reader.append([put("b")])
    with pytest.raises(FailedPrecondition, match="read only"):
        reader.trim(1)


def test_a_closed_journal_refuses_and_may_be_closed_again(journal):
    journal.close()
    with pytest.raises(FailedPrecondition, match="closed"):
        journal.append([put("a")])
    journal.close()


def test_closing_finishes_what_was_called(opened):
    journal = opened()
    answers: list[int] = []

    def write() -> None:
        try:
            while True:
                answers.append(journal.append([put("a")]))
        except FailedPrecondition:
            pass

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answers) < 50:
        time.sleep(0.001)
    journal.close()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(1, len(answers) + 1))
    assert opened().last() == len(answers)


def test_the_status_counts_entries_bytes_and_time(journal):
    journal.append([put("a"), put("b")])
    status = journal.status()
    assert (status.entries, status.first, status.last) == (2, 1, 2)
    assert status.bytes > 50
    assert status.oldest.startswith("20")
    assert status.oldest.endswith("Z")


def test_what_was_written_is_told_in_order_before_its_caller_hears(journal):
    told: list[str] = []
    unheard: list[int] = []

    def tell(first, entries, last):
        assert first == len(told) + 1
        told.extend(entry.id for entry in entries)
        assert last == len(told)

    def write(caller: int) -> None:
        numbers = (journal.append([Remove(f"{caller}-{call}-{i}") for i in range(3)]) for call in range(10))
        unheard.extend(number for number in numbers if number > len(told))

    journal.when_written(tell)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert not unheard
    assert told == names_in(journal)


def test_of_a_repeated_request_only_its_number_is_told(journal):
    journal.append([put("a"), put("b")], request_id="one")
    told = []
    journal.when_written(lambda first, entries, last: told.append((list(entries), last)))
    assert journal.append([put("a"), put("b")], request_id="one") == 2
    assert told == [([], 2)]


def test_what_the_one_who_is_told_raises_is_the_callers(journal):
    def tell(first, entries, last):
        raise FailedPrecondition("it does not fit")

    journal.when_written(tell)
    with pytest.raises(FailedPrecondition, match="it does not fit"):
        journal.append([put("a")])
    journal.when_written(lambda first, entries, last: None)
    assert journal.append([put("b")]) == 2
    assert names_in(journal) == ["a", "b"]


SEVERAL = pytest.mark.parametrize("kind", ["shared", "postgres"])


@SEVERAL
def test_several_write_and_follow_one_log(opened):
    """Each follows by number while all write: each entry once, in one order, nothing ever appears behind."""
    writers = [opened() for _ in range(3)]
    followed: list[list[str]] = [[] for _ in writers]

    def write(writer: int) -> list[int]:
        return [
            writers[writer].append([Remove(f"{writer}-{call}-{i}") for i in range(2)]) for call in range(40)
        ]

    def follow(writer: int) -> None:
        while len(followed[writer]) < 3 * 40 * 2:
            after = len(followed[writer])
            assert writers[writer].wait(after, 30) > after
            followed[writer] += [entry.id for _, entry in writers[writer].read(after)]

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, i) for i in range(3)]
        following = [pool.submit(follow, i) for i in range(3)]
        numbers = [done.result(60) for done in writing]
        for done in following:
            done.result(60)
    assert followed[0] == followed[1] == followed[2]
    assert len(set(followed[0])) == 240
    for writer, its in enumerate(numbers):
        assert [followed[0][number - 1] for number in its] == [f"{writer}-{call}-1" for call in range(40)]


@SEVERAL
def test_a_request_id_is_known_to_every_writer_and_trimming_to_all(opened):
    one, two = opened(), opened()
    assert one.append([Remove("a"), Remove("b")], request_id="one") == 2
    assert two.append([Remove("a"), Remove("b")], request_id="one") == 2
    assert two.append([Remove("c")]) == 3
    one.trim(3)
    assert (two.status().trimmed, two.first(), two.last()) == (3, 0, 3)
    assert two.append([Remove("d")]) == 4
    assert one.append([Remove("e")]) == 5
