"""One writer at a time at an address: who may write, for how long, and what a late one is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import fsspec
import msgspec
import pytest

from earshot.errors import Aborted
from earshot.index import Store
from earshot.index.homes import lease
from earshot.index.homes.conditional import Changed, conditional, write_own
from earshot.index.homes.lease import Lease, Record


@pytest.fixture
def objects(location: str):
    filesystem, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
    return conditional(filesystem), f"{root.rstrip('/')}/lock"


def test_an_object_is_created_once_and_replaced_only_if_it_is_what_was_read(objects) -> None:
    store, path = objects
    assert store.read(path) is None
    with pytest.raises(Changed):
        store.write(path, b"new", "a tag of nothing" if "S3" in type(store).__name__ else b"nothing")
    tag = store.write(path, b"1", None)
    assert store.read(path) == (b"1", tag)
    with pytest.raises(Changed):
        store.write(path, b"2", None)
    newer = store.write(path, b"2", tag)
    with pytest.raises(Changed):
        store.write(path, b"3", tag)
    assert store.read(path) == (b"2", newer)


def test_a_request_sent_twice_finds_its_own_work(objects) -> None:
    store, path = objects
    tag = write_own(store, path, b"mine", None)
    assert write_own(store, path, b"mine", None) == tag
    with pytest.raises(Changed):
        write_own(store, path, b"yours", None)


def test_of_many_threads_one_is_first(objects) -> None:
    store, path = objects
    won: list[int] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait()
        try:
            store.write(path, str(number).encode(), None)
        except Changed:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read(path)[0] == str(won[0]).encode()


def test_a_second_writer_is_told_who_writes(open_store, small_index) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    with here.writer_lock("podcasts"):
        with pytest.raises(Aborted, match=r"another rebuild of podcasts is running \(process \d+ on "):
            there.publish("podcasts", small_index)
        here.publish("podcasts", small_index)  # the same thread may enter again
        told: list[str] = []

        def other_thread() -> None:
            try:
                here.publish("podcasts", small_index)
            except Aborted as error:
                told.append(error.message)

        thread = threading.Thread(target=other_thread)
        thread.start()
        thread.join()
        assert len(told) == 1
    assert there.publish("podcasts", small_index) == "v000002"


def test_a_second_writer_waits_as_long_as_it_was_told(open_store, small_index) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    began = threading.Event()

    def work() -> None:
        with here.writer_lock("podcasts"):
            began.set()
            time.sleep(0.5)

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    with there.writer_lock("podcasts", timeout=30):
        there.publish("podcasts", small_index)
    thread.join()


def test_a_lease_is_kept_while_its_writer_lives(open_store, short_lease) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    with here.writer_lock("podcasts"):
        time.sleep(3 * short_lease)
        with pytest.raises(Aborted), there.writer_lock("podcasts"):
            pass


def held_by(objects, **fields: Any) -> Lease:
    """A lease of ours beside a lock object written by someone else."""
    store, path = objects
    record = Record(host="far", machine="other", pid=1, token="x", renewed=time.time())
    store.write(path, msgspec.json.encode(msgspec.structs.replace(record, **fields)), None)
    return Lease(store, path, "podcasts")


def test_a_fresh_lease_of_another_machine_is_respected(objects) -> None:
    with pytest.raises(Aborted, match="process 1 on far"):
        held_by(objects).acquire(0)


@pytest.mark.parametrize(
    "fields",
    [
        {"renewed": 0.0},
        {"released": True},
        {"machine": lease._machine(), "pid": 2**22 + 1},
    ],
    ids=["not renewed", "released", "its process on this machine is dead"],
)
def test_a_lease_that_nobody_holds_is_taken(fields, objects) -> None:
    store, path = objects
    mine = held_by(objects, **fields)
    mine.acquire(0)
    mine.check()
    with pytest.raises(Aborted):
        Lease(store, path, "podcasts").acquire(0)
    mine.release()
    again = Lease(store, path, "podcasts")
    again.acquire(0)
    again.release()


def test_a_lock_object_that_is_no_record_is_replaced(objects) -> None:
    store, path = objects
    store.write(path, b"nonsense", None)
    mine = Lease(store, path, "podcasts")
    mine.acquire(0)
    mine.release()


def test_the_lock_of_a_killed_process_is_free(open_store, location, s3_environment, tmp_path) -> None:
    if location.startswith("memory"):
        pytest.skip("memory has no other process")
    open_store().create("podcasts")
    program = (
        "import os, signal\nfrom earshot.index import Store\n"
        f"with Store({location!r}, cache_dir={str(tmp_path)!r}).writer_lock('podcasts'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with open_store().writer_lock("podcasts"):
        pass


def put_to_sleep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a suspended process looks like from outside: its lease is not renewed."""
    monkeypatch.setattr(Lease, "_keep_fresh", lambda self: self._done.wait())


@pytest.mark.parametrize("moment", ["before anything", "before _SUCCESS", "before CURRENT"])
def test_a_writer_that_slept_through_its_lease_makes_nothing_visible(
    moment, open_store, small_index, monkeypatch, short_lease
) -> None:
    """Another machine takes the lease over and publishes, while the first one is about to go on."""
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    here.publish("podcasts", small_index)
    put_to_sleep(here, monkeypatch)

    def sleep_while_another_publishes() -> None:
        time.sleep(1.5 * short_lease)
        there.publish("podcasts", small_index)

    home = here._home
    step = {"before anything": "add", "before _SUCCESS": "sizes", "before CURRENT": "set_current"}[moment]
    original = getattr(home, step)

    def late(*arguments: object) -> object:
        sleep_while_another_publishes()
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(home, step, late)
        with pytest.raises(Aborted):
            here.publish("podcasts", small_index)
    expected = "v000002" if moment == "before anything" else "v000003"
    assert there.current("podcasts") == expected
    there.verify("podcasts")
    here.publish("podcasts", small_index)
    here.prune("podcasts", keep=1)
    assert [info.problem for info in here.versions("podcasts")] == [None]


def test_a_writer_whose_renewals_never_worked_still_cannot_replace_a_newer_current(
    open_store, small_index, monkeypatch
) -> None:
    """Even where the lease is no help at all, CURRENT is compared with what the writer knew."""
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    here.publish("podcasts", small_index)
    monkeypatch.setattr(lease, "_is_free", lambda holder: True)
    monkeypatch.setattr(Lease, "check", lambda self: None)
    with here.writer_lock("podcasts"):
        there.publish("podcasts", small_index)
        with pytest.raises(Aborted, match="CURRENT was changed by another writer"):
            here.publish("podcasts", small_index)
    assert there.current("podcasts") == "v000002"


def test_two_writers_never_write_into_one_version(open_store, small_index, monkeypatch) -> None:
    here, there = open_store("here"), open_store("there")
    here.create("podcasts")
    monkeypatch.setattr(lease, "_is_free", lambda holder: True)
    monkeypatch.setattr(Lease, "check", lambda self: None)
    original = here._home._send

    def late(*arguments: object) -> None:
        there.publish("podcasts", small_index, manifest_extra={"source": {"by": "there"}})
        original(*arguments)

    monkeypatch.setattr(here._home, "_send", late)
    with pytest.raises(Aborted, match="v000001 was begun by another writer"):
        here.publish("podcasts", small_index)
    assert there.verify("podcasts").version == "v000001"
    assert there.manifest("podcasts").source == {"by": "there"}
