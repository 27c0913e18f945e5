"""Updates outlive a rebuild, through compactions too; or they are dropped, where that is asked for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import DataLoss, FailedPrecondition
from earshot.index import Datapoint, Store, TokenRestrict
from earshot.index.journal import Patch, Put, Remove, open_journal
from earshot.index.live import LiveIndex
from earshot.index.provenance import Parts, Provenance
from earshot.jobs import BuildRequest, CompactRequest, RebuildRequest, build, compact, rebuild
from tests.servers import write_feed

DIMENSION = 4
ITEMS = [("a", "Bread", "Bread and butter."), ("b", "Sea", "The deep sea."), ("c", "Trees", "Tall trees.")]


def quiet(stage: str, done: int, total: int) -> None:
    del stage, done, total


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def build_of(store: Store, values: dict[str, float], **options: object) -> str:
    """Sources: each datapoint's vector is its value, four times."""
    folder = Path(store.location).parent
    np.save(folder / "v.npy", np.array([[value] * DIMENSION for value in values.values()], np.float32))
    (folder / "ids.txt").write_text("\n".join(values))
    request = BuildRequest(index="mine", vectors=folder / "v.npy", ids=folder / "ids.txt", **options)  # type: ignore[arg-type]
    return build(request, store=store, progress=quiet).version


def update(store: Store, *entries: Put | Patch | Remove) -> int:
    with closing(open_journal(store.journal_file("mine"), "mine")) as journal:  # type: ignore[arg-type]
        return journal.append(entries)


def put(name: str, value: float) -> Put:
    restricts = (TokenRestrict("live", ("yes",)),)
    return Put(name, np.full(DIMENSION, value, np.float32), "tag", {"live": value}, restricts)


def served(store: Store) -> dict[str, Datapoint]:
    version = store.open("mine")
    with closing(open_journal(store.journal_file("mine"), "mine", read_only=True)) as journal:  # type: ignore[arg-type]
        index = LiveIndex(version, journal.read(version.manifest.sequence_number))
    ids = index.shard.ids.of(index.shard.rows()).tolist()
    return dict(zip(ids, index.read(ids), strict=True))


def values(store: Store) -> dict[str, float]:
    return {name: float(point.vector[0]) for name, point in served(store).items()}


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_build_keeps_what_was_put_patched_and_removed(is_compacted, store):
    build_of(store, {"a": 1, "b": 2, "c": 3, "d": 4})
    update(store, put("a", 10), put("new", 20), Remove("b"), Patch("c", metadata={"patched": 1}))
    if is_compacted:
        compact(CompactRequest(index="mine", keep=1), store=store, progress=quiet)
    update(store, put("newer", 30))
    # d goes with its source, e comes; c's vector is the source's, its metadata the patch's; b stays removed.
    build_of(store, {"a": 5, "b": 6, "c": 7, "e": 8})
    assert values(store) == {"a": 10, "c": 7, "e": 8, "new": 20, "newer": 30}
    found = served(store)
    assert found["c"].metadata == {"patched": 1}
    assert (found["new"].crowding_tag, found["new"].metadata) == ("tag", {"live": 20})
    assert found["new"].restricts == (TokenRestrict("live", ("yes",)),)
    assert found["e"].metadata is None
    # And the next one too, whatever happens between.
    compact(CompactRequest(index="mine", keep=1), store=store, progress=quiet)
    build_of(store, {"a": 0, "b": 0})
    assert values(store) == {"a": 10, "new": 20, "newer": 30}


def test_updates_can_be_dropped(store):
    build_of(store, {"a": 1, "b": 2})
    update(store, put("a", 10), Remove("b"))
    compact(CompactRequest(index="mine"), store=store, progress=quiet)
    update(store, put("new", 20))
    build_of(store, {"a": 1, "b": 2}, drop_live_updates=True)
    assert values(store) == {"a": 1, "b": 2}
    assert store.manifest("mine").sequence_number == 3
    update(store, put("new", 21))
    assert values(store) == {"a": 1, "b": 2, "new": 21}


def test_updates_of_another_dimension_are_told_before_anything_is_built(store):
    build_of(store, {"a": 1})
    update(store, put("a", 10))
    np.save(Path(store.location).parent / "other.npy", np.ones((2, DIMENSION + 1), np.float32))
    request = BuildRequest(index="mine", vectors=Path(store.location).parent / "other.npy")
    with pytest.raises(
        FailedPrecondition, match="1 live updates of mine are vectors of another model or dim"
    ):
        build(request, store=store, progress=quiet)
    assert values(store) == {"a": 10}


def test_updates_that_no_version_holds_any_more_are_told(store):
    build_of(store, {"a": 1})
    update(store, put("a", 10))
    compact(CompactRequest(index="mine", keep=1), store=store, progress=quiet)
    (Path(store.location) / "indexes/mine/versions/v000002/manifest.json").write_text("{}")
    with pytest.raises(DataLoss, match="updates up to 1 of mine are in no version that can be read"):
        build_of(store, {"a": 1})
    build_of(store, {"a": 1}, drop_live_updates=True)
    assert values(store) == {"a": 1}


def test_a_rebuild_keeps_updates_and_an_unchanged_one_does_nothing(store, tmp_path, model_cache):
    write_feed(tmp_path / "feed.xml", ITEMS[:2])
    request = RebuildRequest(index="mine", sources=[tmp_path / "feed.xml"])
    rebuild(request, data_dir=store.location, cache_dir=model_cache, progress=quiet)
    before = set(served_ids(store))
    dimension = store.manifest("mine").dimension
    gone = min(before)
    update(store, Put("live", np.ones(dimension, np.float32), metadata={"title": "Live"}), Remove(gone))
    compact(CompactRequest(index="mine"), store=store, progress=quiet)
    again = rebuild(request, data_dir=store.location, cache_dir=model_cache, progress=quiet)
    assert not again.published
    write_feed(tmp_path / "feed.xml", ITEMS)
    assert rebuild(request, data_dir=store.location, cache_dir=model_cache, progress=quiet).published
    after = set(served_ids(store))
    assert "live" in after
    assert gone not in after
    assert len(after) > len(before)


def served_ids(store: Store) -> list[str]:
    index = store.open("mine")
    ids: list[str] = index.shard.ids.of(index.shard.rows()).tolist()
    return ids


def test_provenance_follows_each_update():
    provenance = Provenance()
    vector = np.ones(1, np.float32)
    for entry in (
        Patch("a", vector=vector),
        Patch("a", metadata=None),
        Put("b", vector),
        Remove("c"),
        Remove("b"),
    ):
        provenance.note(entry)
    assert provenance.parts == {"a": Parts.VECTOR | Parts.METADATA, "b": Parts.REMOVED, "c": Parts.REMOVED}
    provenance.note(Patch("c", metadata={}))  # of what is not there
    provenance.note(Put("b", vector))
    provenance.note(Patch("b", metadata={}))
    provenance.note(Patch("nowhere", metadata={}))
    provenance.settle(["a", "b"])
    assert provenance.parts == {
        "a": Parts.VECTOR | Parts.METADATA,
        "b": Parts.WHOLE,
        "c": Parts.REMOVED,
    }
