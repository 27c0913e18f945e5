"""A version and the updates since become a version; nothing is lost, repeated or different."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import Aborted, DataLoss, FailedPrecondition, NotFound
from earshot.index import Index, NumericRestrict, Store, TokenRestrict
from earshot.index.journal import Entry, Patch, Put, Remove, open_journal
from earshot.index.live import LiveIndex
from earshot.jobs import CompactReport, CompactRequest, compact
from earshot.jobs.compact_process import result_of, start

DIMENSION, COUNT = 8, 300
GENERATOR = np.random.default_rng(7)


def vectors_of(count: int) -> np.ndarray:
    return GENERATOR.standard_normal((count, DIMENSION)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An index of 300 datapoints with tags, metadata and restricts."""
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", index_of(COUNT))
    return store


def index_of(count: int, **options: object) -> Index:
    return Index.build(
        vectors_of(count),
        [f"p{row}" for row in range(count)],
        crowding_tags=[f"t{row % 7}" for row in range(count)],
        metadata=[{"row": row} for row in range(count)],
        restricts={"year": list(range(count)), "odd": ["yes" if row % 2 else "no" for row in range(count)]},
        **options,  # type: ignore[arg-type]
    )


def update(store: Store, *entries: Entry) -> int:
    with closing(open_journal(store.journal_file("mine"), "mine")) as journal:  # type: ignore[arg-type]
        return journal.append(entries)


def run(store: Store, **options: object) -> CompactReport:
    request = CompactRequest(index="mine", **options)  # type: ignore[arg-type]
    return compact(request, store=store, progress=lambda stage, done, total: None)


def contents(index: Index) -> dict[str, tuple[object, ...]]:
    """Everything that an index holds, by id."""
    ids = index.shard.ids.of(index.shard.rows()).tolist()
    return {
        point.id: (point.vector.tolist(), point.crowding_tag, point.metadata, point.restricts)
        for point in index.read(ids)
    }


def served(store: Store) -> dict[str, tuple[object, ...]]:
    """What a server that starts now would hold."""
    version = store.open("mine")
    with closing(open_journal(store.journal_file("mine"), "mine", read_only=True)) as journal:  # type: ignore[arg-type]
        return contents(LiveIndex(version, journal.read(version.manifest.sequence_number)))


def some_updates(seed: int) -> list[Entry]:
    """Puts, patches and removes of old, new and unknown ids, several of some."""
    draw = random.Random(seed)
    entries: list[Entry] = []
    for _ in range(200):
        name = draw.choice([f"p{draw.randrange(COUNT)}", f"n{draw.randrange(60)}"])
        match draw.randrange(5):
            case 0 | 1:
                restricts = (TokenRestrict("odd", ("new",)), NumericRestrict("year", draw.randrange(99)))
                entries.append(Put(name, vectors_of(1)[0], "tag", {"new": draw.random()}, restricts))
            case 2:
                entries.append(Patch(name, metadata={"patched": draw.random()}))
            case 3:
                entries.append(Patch(name, vector=vectors_of(1)[0], crowding_tag=None))
            case _:
                entries.append(Remove(name))
    return entries


@pytest.mark.parametrize("seed", range(2))
def test_compacting_changes_nothing_that_a_reader_sees(seed, store):
    last = update(store, *some_updates(seed))
    before = served(store)
    report = run(store)
    assert (report.published, report.updates, report.sequence) == (True, 200, last)
    assert report.datapoints == len(before)
    manifest = store.manifest("mine")
    assert manifest.sequence_number == last == 200
    after = contents(store.open("mine"))
    assert after == before == served(store)
    update(store, *some_updates(seed + 10))
    assert run(store).sequence == 400
    assert contents(store.open("mine")) == served(store)


def test_a_compacted_version_is_searched_filtered_and_measured_as_any_build(store):
    new = Put("new", 10 * vectors_of(1)[0], "t1", {"a": 1}, (TokenRestrict("odd", ("maybe",)),))
    update(store, new, Remove("p3"))
    report = run(store)
    index = store.open("mine")
    assert index.search(new.vector, 1).ids == [["new"]]
    assert index.search(new.vector, 5, where={"odd": "maybe"}).ids == [["new"]]
    assert "p3" not in index.search(np.zeros(DIMENSION), 2 * COUNT).ids[0]
    assert report.recall is not None
    assert report.recall.high >= index.manifest.tuning.target_recall == 0.95
    with pytest.raises(NotFound):
        index.read(["p3"])


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "exact", "distance_measure": "SQUARED_L2_DISTANCE"},
        {"engine": "scann", "distance_measure": "COSINE_DISTANCE", "target_recall": 0.8},
        {"feature_norm": "UNIT_L2_NORM", "shards": 1},
    ],
)
def test_what_was_asked_of_the_version_is_asked_again(options, tmp_path):
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", index_of(1500, **options))
    before = store.manifest("mine")
    update(store, Put("new", vectors_of(1)[0]))
    run(store)
    after = store.manifest("mine")
    for name in ("distance_measure", "feature_norm", "shards"):
        assert getattr(after, name) == getattr(before, name)
    assert after.engine.name == before.engine.name
    assert after.tuning.target_recall == before.tuning.target_recall
    assert after.engine.reason == before.engine.reason


def test_without_updates_there_is_nothing_to_do(store):
    assert not run(store).published
    update(store, Remove("p1"))
    assert run(store).published
    again = run(store)
    assert (again.published, again.version, again.sequence) == (False, "v000002", 1)


def test_an_index_that_was_created_empty_is_compacted(tmp_path):
    store = Store(tmp_path / "data")
    store.create("mine", {"dimensions": DIMENSION, "distance_measure": "SQUARED_L2_DISTANCE"})
    update(store, *(Put(f"n{row}", vector) for row, vector in enumerate(vectors_of(50))))
    assert run(store).version == "v000001"
    manifest = store.manifest("mine")
    assert (manifest.count, manifest.distance_measure) == (50, "SQUARED_L2_DISTANCE")


def test_an_index_of_which_nothing_is_left_stays_as_it_is(tmp_path):
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", index_of(3))
    update(store, *(Remove(f"p{row}") for row in range(3)))
    with pytest.raises(FailedPrecondition, match="every datapoint of mine was removed"):
        run(store)
    assert served(store) == {}


def test_the_journal_keeps_what_a_rollback_needs_and_no_more(store):
    """A rollback takes a build back, never an acknowledged update."""
    for number in range(3):
        update(store, Put(f"n{number}", vectors_of(1)[0]), Remove(f"p{number}"))
        report = run(store, keep=2)
    assert report.trimmed == store.oldest_sequence("mine") == 4
    before = served(store)
    store.rollback("mine")
    assert store.manifest("mine").sequence_number == 4
    assert served(store) == before


def test_the_journal_is_left_to_the_server_that_owns_it(store):
    with closing(open_journal(store.journal_file("mine"), "mine")) as owned:
        owned.append([Put("n", vectors_of(1)[0])])
        report = run(store, keep=1)
        assert (report.published, report.trimmed) == (True, 0)
        assert owned.append([Remove("n")]) == 2
        assert "n" in contents(store.open("mine"))
        assert "n" not in served(store)


def test_one_job_at_a_time(store):
    update(store, Remove("p1"))
    with store.writer_lock("mine"):
        process = start(CompactRequest(index="mine"), data_dir=store.location, cache_dir=Path("/nowhere"))
        with pytest.raises(Aborted, match="another rebuild of mine is running"):
            result_of(process)


def test_a_lost_journal_is_told(store):
    update(store, *(Remove(f"p{row}") for row in range(9)))
    run(store, keep=1)
    path = store.journal_file("mine")
    path.unlink()
    update(store, Remove("p20"))
    with closing(open_journal(path, "mine")) as journal, pytest.raises(DataLoss, match="ends at entry 1"):
        LiveIndex(store.open("mine"), journal.read(9))


def test_in_a_process_of_its_own_it_is_the_same(store):
    update(store, *some_updates(1))
    before = served(store)
    report = result_of(
        start(CompactRequest(index="mine"), data_dir=store.location, cache_dir=Path("/nowhere"))
    )
    assert (report.published, report.version, report.sequence) == (True, "v000002", 200)
    assert contents(store.open("mine")) == before


def test_killed_at_any_moment_it_loses_nothing_and_repeats_nothing(store):
    """Kills at random moments: one too late has the next come sooner. What a reader sees never changes."""
    update(store, *some_updates(2))
    before = served(store)
    draw = random.Random(3)
    began = time.monotonic()
    result_of(start(CompactRequest(index="mine"), data_dir=store.location, cache_dir=Path("/nowhere")))
    takes = time.monotonic() - began
    sequence, killed = 200, 0
    while killed < 3:
        sequence = update(store, Patch("p5", metadata={"sequence": sequence}))
        before["p5"] = (*before["p5"][:2], {"sequence": sequence - 1}, before["p5"][3])
        process = start(
            CompactRequest(index="mine", keep=1), data_dir=store.location, cache_dir=Path("/nowhere")
        )
        time.sleep(takes * draw.uniform(0.4, 1.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            killed += 1
        else:
            takes /= 2
        assert served(store) == before
    assert run(store, keep=1).sequence == sequence
    assert contents(store.open("mine")) == before == served(store)
    leftovers = [path.name for path in (Path(store.location) / "indexes/mine/versions").iterdir()]
    assert leftovers == [store.current("mine")]


class Died(BaseException):
    """Stands for a crash."""


def test_dying_at_each_change_of_the_disk_loses_nothing_and_repeats_nothing(store, monkeypatch):
    """Before each rename, link and removal in turn; each new run begins with what the dead one left."""
    update(store, *some_updates(4))
    before = served(store)
    names = ("rename", "replace", "unlink")
    steps = 0
    while True:
        steps += 1
        left = steps
        with monkeypatch.context() as patch:
            for name in names:
                original = getattr(os, name)

                def tick(*arguments: object, original=original, **options: object) -> object:
                    nonlocal left
                    if "mine" in str(arguments[0]) and "sqlite" not in str(arguments[0]):
                        left -= 1
                        if left == 0:
                            raise Died
                    return original(*arguments, **options)

                patch.setattr(os, name, tick)
            try:
                run(store, keep=1)
            except Died:
                assert served(store) == before
                continue
        break
    assert steps > 3
    assert contents(store.open("mine")) == before == served(store)
