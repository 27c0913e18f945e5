"""A backup holds what was acknowledged, taken beside a writer; restored, it is the index again."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from earshot.client import Client
from earshot.errors import (
    AlreadyExists,
    DataLoss,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from earshot.index import Index, Store
from earshot.index.journal import Put, Remove, open_journal
from earshot.index.live import LiveIndex
from earshot.jobs import Backup, CompactRequest, backup, compact, restore
from tests.servers import serving

DIMENSION = 4


def quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total


def put(name: str) -> Put:
    return Put(name, np.full(DIMENSION, 0.5, np.float32), metadata={"name": name})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`mine`: a version, a compacted one, and updates after that; `new`: none of a version."""
    store = Store(tmp_path / "data")
    store.create("mine", {"target_recall": 0.9})
    vectors = np.random.default_rng(0).standard_normal((20, DIMENSION)).astype(np.float32)
    store.publish("mine", Index.build(vectors, metadata=[{"row": row} for row in range(20)]))
    with closing(journal_of(store)) as journal:
        journal.append([put("a"), Remove("3")])
    compact(CompactRequest(index="mine"), store=store, progress=quiet)
    with closing(journal_of(store)) as journal:
        journal.append([put("b"), Remove("a")], request_id="once")
    store.create("new", {"dimensions": DIMENSION})
    return store


def journal_of(store: Store, name: str = "mine"):
    return open_journal(Path(store.location) / "indexes" / name / "journal.sqlite", name)


def served(store: Store, journal: str | None = None) -> dict[str, object]:
    version = store.open("mine")
    address = journal or Path(store.location) / "indexes/mine/journal.sqlite"
    with closing(open_journal(address, "mine", read_only=True)) as log:
        index = LiveIndex(version, log.read(version.manifest.sequence_number))
    ids = index.shard.ids.of(index.shard.rows()).tolist()
    return {point.id: (point.vector.tolist(), point.metadata) for point in index.read(ids)}


def back_up(store: Store, url: object, **options: object) -> Backup:
    return backup(str(url), store=store, progress=quiet, **options)  # type: ignore[arg-type]


def restored(url: object, folder: Path, **options: object) -> Store:
    store = Store(folder)
    restore(str(url), store=store, progress=quiet, **options)  # type: ignore[arg-type]
    return store


def test_a_backup_restored_into_a_fresh_folder_is_the_index(store, tmp_path):
    made = back_up(store, tmp_path / "backup")
    assert {name: (each.version, each.last) for name, each in made.indexes.items()} == {
        "mine": ("v000002", 4),
        "new": ("", 0),
    }
    again = restored(tmp_path / "backup", tmp_path / "again")
    assert served(again) == served(store)
    assert "b" in served(again)
    assert again.config("mine") == {"target_recall": 0.9}
    assert again.config("new") == {"dimensions": DIMENSION}
    assert again.verify("mine").version == "v000002"
    with closing(journal_of(again)) as journal:
        assert journal.append([put("c")], request_id="once") == 4  # done already, before the backup
        assert journal.append([put("c")]) == 5
    assert compact(CompactRequest(index="mine"), store=again, progress=quiet).sequence == 5


def test_what_was_restored_is_served(store, tmp_path):
    back_up(store, tmp_path / "backup", indexes=["mine"])
    restored(tmp_path / "backup", tmp_path / "again")
    with serving(tmp_path / "again") as server, Client(server.grpc) as client:
        (found,) = client.search("mine", vector=[1.0, 0, 0, 0], k=1)
        assert found.id in served(store)


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_a_backup_lies_at_any_address(kind, store, tmp_path, request):
    url = f"memory://backups-{tmp_path.name}"
    if kind == "s3":
        request.getfixturevalue("s3_environment")
        url = "s3://earshot-tests/backups/monday"
    back_up(store, url)
    assert served(restored(url, tmp_path / "again")) == served(store)
    with pytest.raises(AlreadyExists, match="name an empty place"):
        back_up(store, url)


def test_beside_a_writer_and_compactions_it_is_one_moment(store, tmp_path):
    """Entries are appended in order, so what a backup has of them is a beginning of the list."""
    stop = threading.Event()
    acknowledged: list[str] = []

    def write() -> None:
        with closing(journal_of(store)) as journal:
            while not stop.is_set():
                name = f"w{len(acknowledged)}"
                journal.append([put(name)])
                acknowledged.append(name)

    def compact_again() -> None:
        while not stop.is_set():
            compact(CompactRequest(index="mine", keep=1), store=store, progress=quiet)

    threads = [threading.Thread(target=write), threading.Thread(target=compact_again)]
    for thread in threads:
        thread.start()
    try:
        for number in range(3):
            before = list(acknowledged)
            back_up(store, tmp_path / f"backup{number}", indexes=["mine"])
            found = [name for name in served(restored(tmp_path / f"backup{number}", tmp_path / f"{number}"))
                     if name.startswith("w")]  # fmt: skip
            assert set(before) <= set(found)
            assert sorted(found) == sorted(f"w{i}" for i in range(len(found)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_shared_journal_is_backed_up_and_restored(store, tmp_path, database):
    with closing(open_journal(database, "mine")) as journal:
        journal.begin_at(2)
        journal.append([put("b"), Remove("a")])
    back_up(store, tmp_path / "backup", indexes=["mine"], journal=database)
    before = served(store, database)
    with pytest.raises(AlreadyExists, match="holds 4 entries already"):
        restored(tmp_path / "backup", tmp_path / "x", journal=database)
    again = restored(tmp_path / "backup", tmp_path / "again")  # into a file
    assert served(again) == before
    back_up(again, tmp_path / "second", indexes=["mine"])
    other = database + "2"
    import psycopg

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {other.rpartition('/')[2]}")
    try:
        third = restored(tmp_path / "second", tmp_path / "third", journal=other)  # and back
        assert served(third, other) == before
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {other.rpartition('/')[2]} WITH (FORCE)")


def test_every_damaged_file_is_named_and_nothing_is_left(store, tmp_path):
    made = back_up(store, tmp_path / "backup", indexes=["mine"])
    assert len(made.files) > 8
    for number, key in enumerate(made.files):
        path = tmp_path / "backup" / key
        whole = path.read_bytes()
        for harmed in (whole[:-1], bytes([whole[0] ^ 1]) + whole[1:], None):
            path.unlink()
            if harmed is not None:
                path.write_bytes(harmed)
            with pytest.raises(DataLoss, match=Path(key).name):
                restored(tmp_path / "backup", tmp_path / f"again{number}")
            assert Store(tmp_path / f"again{number}").indexes() == []
            path.write_bytes(whole)


def test_a_backup_that_was_not_finished_is_none(store, tmp_path):
    back_up(store, tmp_path / "backup")
    content = json.loads((tmp_path / "backup/backup.json").read_text())
    (tmp_path / "backup/backup.json").unlink()
    with pytest.raises(NotFound, match="there is no backup at"):
        restored(tmp_path / "backup", tmp_path / "again")
    (tmp_path / "backup/backup.json").write_text("{")
    with pytest.raises(DataLoss, match=r"backup\.json is damaged"):
        restored(tmp_path / "backup", tmp_path / "again")
    (tmp_path / "backup/backup.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(FailedPrecondition, match="has format 99; this program reads up to 1"):
        restored(tmp_path / "backup", tmp_path / "again")


def test_indexes_that_are_there_are_never_touched(store, tmp_path):
    back_up(store, tmp_path / "backup")
    before = served(store)
    with pytest.raises(AlreadyExists, match="there is an index mine in"):
        restored(tmp_path / "backup", tmp_path / "data")
    assert served(store) == before
    with pytest.raises(NotFound, match="has no index 'other'; it has mine, new"):
        restored(tmp_path / "backup", tmp_path / "again", indexes=["other"])


def test_an_address_of_an_unknown_kind_is_told(store):
    with pytest.raises(InvalidArgument, match="url is 'nothing://x', which cannot be reached"):
        back_up(store, "nothing://x")


def test_a_place_that_cannot_be_written_is_told(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EarshotError, match="file"):
        back_up(store, tmp_path / "file" / "backup")
