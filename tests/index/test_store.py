from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import Aborted, AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Index, IndexConfig, Store


def publish(store: Store, index: Index, times: int = 1) -> list[str]:
    return [store.publish("podcasts", index) for _ in range(times)]


@pytest.mark.parametrize("name", ["a", "podcasts-2", "a" * 63])
def test_a_good_name_makes_an_index(name, store) -> None:
    store.create(name)
    assert name in store.indexes()
    assert store.config(name) == {}
    assert store.versions(name) == []


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a_b", "a.b", "a/b", "..", "a\n", "a" * 64, "ä", None, 7, "a b"]
)
def test_a_bad_name_is_refused_everywhere(name, store) -> None:
    with pytest.raises(InvalidArgument, match="a name is a lower-case letter"):
        store.create(name)
    with pytest.raises(NotFound):
        store.open(name)
    assert store.indexes() == ["podcasts"]


def test_an_index_is_made_once(store) -> None:
    with pytest.raises(AlreadyExists, match="an index podcasts already"):
        store.create("podcasts")
    assert store.config("podcasts") == {"source": "feeds"}


def test_an_unknown_index_is_told_the_nearest(store, tmp_path) -> None:
    store.create("news")
    with pytest.raises(NotFound, match="no index 'podcast'; there is podcasts"):
        store.open("podcast")
    with pytest.raises(NotFound, match="no index 'zzz'; there is news, podcasts"):
        store.versions("zzz")
    with pytest.raises(NotFound, match="there is none in"):
        Store(tmp_path / "nowhere").current("podcasts")


def test_before_the_first_version_there_is_nothing_to_open(store) -> None:
    with pytest.raises(FailedPrecondition, match="podcasts has no version yet; rebuild it first"):
        store.open("podcasts")


def test_published_versions_are_listed_and_the_last_is_current(store, small_index) -> None:
    extra = {"model": {"id": "minilm"}, "source": {"documents": 50}, "sequence_number": 7}
    assert store.publish("podcasts", small_index, manifest_extra=extra) == "v000001"
    assert publish(store, small_index) == ["v000002"]
    first, second = store.versions("podcasts")
    assert (first.version, first.is_current, second.version, second.is_current) == (
        "v000001",
        False,
        "v000002",
        True,
    )
    assert first.count == 50
    assert first.problem is None
    assert first.recall is not None
    assert first.recall.value == 1
    on_disk = [
        path
        for path in Path(store.location).rglob("v000001/**/*")
        if path.is_file() and path.name != "_SUCCESS"
    ]
    assert first.bytes == sum(path.stat().st_size for path in on_disk)
    manifest = store.manifest("podcasts", "v000001")
    assert (manifest.index, manifest.version, manifest.model) == ("podcasts", "v000001", {"id": "minilm"})
    assert (manifest.config, manifest.sequence_number) == ({"source": "feeds"}, 7)
    assert store.open("podcasts").search(np.ones(16)).ids == small_index.search(np.ones(16)).ids


def test_fields_that_the_store_fills_in_cannot_be_given(store, small_index) -> None:
    with pytest.raises(InvalidArgument, match=r"unknown fields \['files'\]"):
        store.publish("podcasts", small_index, manifest_extra={"files": {}})


def test_rollback_goes_back_one_or_to_a_named_version(store, small_index) -> None:
    publish(store, small_index, 3)
    assert store.rollback("podcasts") == "v000002"
    assert store.rollback("podcasts") == "v000001"
    with pytest.raises(FailedPrecondition, match="no whole version before v000001"):
        store.rollback("podcasts")
    assert store.rollback("podcasts", "v000003") == "v000003"
    assert store.current("podcasts") == "v000003"
    with pytest.raises(NotFound, match="has no version 'v000009'; it has v000001, v000002, v000003"):
        store.rollback("podcasts", "v000009")


def test_after_a_rollback_the_next_version_gets_a_new_number(store, small_index) -> None:
    publish(store, small_index, 2)
    store.rollback("podcasts")
    assert publish(store, small_index) == ["v000003"]


def test_rollback_passes_over_a_broken_version_and_refuses_to_go_to_one(store, small_index) -> None:
    publish(store, small_index, 3)
    vectors = version_folder(store, "v000002") / "shard-00000" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(DataLoss, match=r"vectors\.npy"):
        store.rollback("podcasts", "v000002")
    assert store.current("podcasts") == "v000003"
    assert store.rollback("podcasts") == "v000001"


def test_prune_keeps_the_newest_and_the_current(store, small_index) -> None:
    publish(store, small_index, 5)
    store.rollback("podcasts", "v000001")
    assert store.prune("podcasts", keep=2) == ["v000002", "v000003"]
    assert [info.version for info in store.versions("podcasts")] == ["v000001", "v000004", "v000005"]
    assert store.verify("podcasts").version == "v000001"
    with pytest.raises(InvalidArgument, match="keep is 0"):
        store.prune("podcasts", keep=0)


def test_prune_removes_broken_versions_and_what_dead_writers_left(store, small_index) -> None:
    publish(store, small_index, 3)
    (version_folder(store, "v000002") / "_SUCCESS").unlink()
    leftover = version_folder(store, ".tmp-v000004")
    (leftover / "shard-00000").mkdir(parents=True)
    assert store.prune("podcasts") == ["v000002"]
    assert not leftover.exists()


def test_an_open_index_outlives_the_pruning_of_its_version(store, small_index) -> None:
    publish(store, small_index)
    index = store.open("podcasts")
    publish(store, small_index, 2)
    assert store.prune("podcasts", keep=1) == ["v000001", "v000002"]
    assert index.search(np.ones(16)).ids == small_index.search(np.ones(16)).ids


def test_delete_removes_all_of_it_and_the_name_is_free_again(store, small_index) -> None:
    publish(store, small_index, 2)
    store.delete("podcasts")
    assert store.indexes() == []
    assert not (Path(store.location) / "indexes" / "podcasts").exists()
    store.create("podcasts")
    assert publish(store, small_index) == ["v000001"]


def test_verify_counts_and_measures(store, scann_index) -> None:
    publish(store, scann_index)
    report = store.verify("podcasts")
    assert (report.version, report.count) == ("v000001", 3000)
    assert report.recall.value > 0.9
    assert report.bytes == store.manifest("podcasts").bytes


def test_a_second_writer_is_told_who_is_first(store, small_index) -> None:
    ready, release = threading.Event(), threading.Event()

    def hold() -> None:
        with store.writer_lock("podcasts"):
            ready.set()
            release.wait(60)

    first = threading.Thread(target=hold)
    first.start()
    ready.wait(60)
    try:
        for write in (
            lambda: publish(store, small_index),
            lambda: store.prune("podcasts"),
            lambda: store.rollback("podcasts"),
            lambda: store.delete("podcasts"),
        ):
            with pytest.raises(Aborted, match=r"another rebuild of podcasts is running \(process \d+\)"):
                write()
    finally:
        release.set()
        first.join()
    assert publish(store, small_index) == ["v000001"]


def test_a_writer_that_waits_gets_its_turn(store, small_index) -> None:
    ready = threading.Event()

    def hold() -> None:
        with store.writer_lock("podcasts"):
            ready.set()
            publish(store, small_index)

    first = threading.Thread(target=hold)
    first.start()
    ready.wait(60)
    with store.writer_lock("podcasts", timeout=60):
        assert store.current("podcasts") == "v000001"
    first.join()


def test_the_lock_of_a_killed_process_is_free(store, small_index) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from earshot.index.homes.lock import writer_lock\n"
        "with writer_lock(Path(sys.argv[1]), timeout=0):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    lock = Path(store.location) / "indexes" / "podcasts" / "writer.lock"
    with subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Aborted, match=f"process {holder.pid}"):
            publish(store, small_index)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert publish(store, small_index) == ["v000001"]


def version_folder(store: Store, version: str) -> Path:
    return Path(store.location) / "indexes" / "podcasts" / "versions" / version


def test_a_config_is_changed_field_by_field_and_other_keys_stay(store) -> None:
    store.create("news", {"source": "feeds", "dimensions": 8})
    before = store.etag("news")
    assert store.asked("news") == IndexConfig(dimensions=8)
    assert store.reconfigure("news", {"shards": 2, "target_recall": 0.9}, etag=before) == IndexConfig(
        dimensions=8, shards=2, target_recall=0.9
    )
    store.reconfigure("news", {"shards": None, "dimensions": 8})
    assert store.config("news") == {"source": "feeds", "dimensions": 8, "target_recall": 0.9}
    assert store.etag("news") != before


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"dimensions": 9}, FailedPrecondition),
        ({"dimensions": None}, FailedPrecondition),
        ({"colour": "red"}, InvalidArgument),
        ({"target_recall": 0.0}, InvalidArgument),
        ({"shards": 0}, InvalidArgument),
        ({"engine": "steam"}, InvalidArgument),
        ({"distance_measure": "MILES"}, InvalidArgument),
    ],
)
def test_a_change_that_cannot_be_is_refused_and_nothing_changes(store, changes, error) -> None:
    store.create("news", IndexConfig(dimensions=8))
    with pytest.raises(error, match=next(iter(changes))):
        store.reconfigure("news", changes)
    assert store.asked("news") == IndexConfig(dimensions=8)


def test_an_index_that_was_changed_since_it_was_looked_at_is_neither_changed_nor_deleted(
    store, small_index
) -> None:
    store.create("news")
    seen = store.etag("news")
    store.publish("news", small_index)
    with pytest.raises(Aborted, match="news was changed"):
        store.reconfigure("news", {"shards": 2}, etag=seen)
    with pytest.raises(Aborted, match="news was changed"):
        store.delete("news", etag=seen)
    store.delete("news", etag=store.etag("news"))
    assert "news" not in store.indexes()


def test_of_many_that_create_one_index_one_does(store) -> None:
    def create(number: int) -> int:
        try:
            store.create("news", {"shards": number})
        except AlreadyExists:
            return 0
        return number

    with ThreadPoolExecutor(8) as pool:
        made = [number for number in pool.map(create, range(1, 17)) if number]
    assert made == [store.asked("news").shards]


def test_an_index_does_not_inherit_from_a_namesake_whose_deletion_was_cut_short(
    store, small_index, monkeypatch
) -> None:
    store.create("news")
    store.publish("news", small_index)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *arguments, **options: None)
        store.delete("news")
    store.create("news")
    assert store.versions("news") == []
    store.delete("news")
    assert [path.name for path in Path(store.location, "indexes").iterdir()] == ["podcasts"]
