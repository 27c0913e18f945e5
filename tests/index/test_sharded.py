"""Shards answer as one index does: recall, filters, crowding, ids; and losing a file of one is noticed."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from earshot.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted
from earshot.index import Index, ScannParameters, Store, building
from earshot.index.engines import QueryParameters
from earshot.index.ids import hash_of
from earshot.index.sharded import in_one_thread, shard_of

from .conftest import clustered

COUNT, SHARDS = 3600, 3
MEASURES = ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE", "L1_DISTANCE"]


def build(shards: int, **options) -> Index:
    vectors = 3 * clustered(COUNT, seed=1)
    return Index.build(
        vectors,
        [f"id-{row}" for row in range(COUNT)],
        crowding_tags=[None if row % 10 == 0 else f"tag-{row % 37}" for row in range(COUNT)],
        metadata=[{"row": row} for row in range(COUNT)],
        restricts={
            "language": ["de" if row % 7 == 0 else "en" for row in range(COUNT)],
            "rare": ["yes" if row in {5, 77, 1234} else None for row in range(COUNT)],
            "year": [2000 + row % 30 for row in range(COUNT)],
        },
        shards=shards,
        **options,
    )


@pytest.fixture(scope="module")
def one() -> Index:
    return build(1, engine="exact")


@pytest.fixture(scope="module")
def exact() -> Index:
    return build(SHARDS, engine="exact")


@pytest.fixture(scope="module")
def sharded() -> Index:
    """On ScaNN; in two, for each measures its filters."""
    return build(2)


SEARCHES = [
    {},
    {"k": 1},
    {"k": 2000},  # more than a shard holds
    {"k": COUNT + 5},
    {"crowding": 1},
    {"k": 60, "crowding": 2},
    {"where": {"language": "de"}},
    {"where": {"language": "de", "year": {">=": 2020}}, "k": 30},
    {"where": {"rare": "yes"}},
    {"where": {"nothing": "known"}},
    {"where": {"language": "de"}, "crowding": 1, "k": 40},
]


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_exact_search_finds_what_one_shard_finds(options, one, exact, sharded, unseen) -> None:
    expected = one.search(unseen, target_recall=1.0, **options)
    for index in (exact, sharded):
        found = index.search(unseen, target_recall=1.0, **options)
        np.testing.assert_array_equal(found.distances, expected.distances)
        assert [set(ids) for ids in found.ids] == [set(ids) for ids in expected.ids]
    np.testing.assert_array_equal(exact.search(unseen, **options).distances, expected.distances)


@pytest.mark.parametrize("options", SEARCHES, ids=str)
@pytest.mark.parametrize("target", [0.9, 1.0])
def test_shards_asked_side_by_side_say_what_they_say_one_by_one(
    options, target, sharded, unseen, monkeypatch
) -> None:
    pool = sharded._shard.engine.whole._pool
    in_threads = Mock(side_effect=pool.map)
    monkeypatch.setattr(pool, "map", in_threads)
    found = []
    for worth in (1 << 60, 1):
        monkeypatch.setattr("earshot.index.sharded._WORTH_THREADS", worth)
        monkeypatch.setattr("earshot.index.sharded._WORTH_PRODUCTS", worth)
        found.append(sharded.search(unseen, target_recall=target, **options))
        assert in_threads.called == (worth == 1 and found[-1].rows.size > 0)
    np.testing.assert_array_equal(found[0].rows, found[1].rows)
    np.testing.assert_array_equal(found[0].distances, found[1].distances)


def test_tuning_has_all_work_done_in_its_own_thread_whose_time_it_takes(sharded, unseen, monkeypatch) -> None:
    alone: Any = in_one_thread(sharded._shard)
    monkeypatch.setattr("earshot.index.sharded._WORTH_THREADS", 1)
    monkeypatch.setattr("earshot.index.sharded._WORTH_PRODUCTS", 1)
    in_threads = Mock(side_effect=map)
    monkeypatch.setattr(alone.engine.whole._pool, "map", in_threads)
    for shard, count in ((alone, 0), (sharded._shard, 2)):
        shard.exact.search(unseen, 10)
        shard.engine.search(unseen, 10, QueryParameters(5, 50))
        assert in_threads.call_count == count


@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_is_merged_the_right_way_round(measure, unseen) -> None:
    one, many = (build(n, engine="exact", distance_measure=measure) for n in (1, SHARDS))
    assert many.search(unseen).ids == one.search(unseen).ids
    np.testing.assert_array_equal(many.search(unseen).distances, one.search(unseen).distances)


def test_a_single_query_is_answered_as_a_batch_is(sharded, unseen) -> None:
    batch = sharded.search(unseen).ids
    assert [sharded.search(query).ids[0] for query in unseen[:20]] == batch[:20]


@pytest.mark.parametrize("target", [0.9, 0.99])
def test_recall_is_what_was_asked_for_after_merging(target, sharded, unseen) -> None:
    assert sharded.manifest.engine.name == "scann"
    assert sharded.measure_recall(unseen, target_recall=target).high >= target
    assert sharded.measure_recall(unseen, k=100, target_recall=target).high >= target


@pytest.mark.parametrize(
    "where", [{"language": "de"}, {"year": {">": 2014}}, {"language": ["de", "en"]}], ids=str
)
def test_filtered_recall_is_what_was_asked_for(where, sharded, unseen) -> None:
    found = sharded.search(unseen, where=where, target_recall=0.95)
    truth = sharded.search(unseen, where=where, target_recall=1.0)
    hits = [len(set(a) & set(b)) for a, b in zip(found.ids, truth.ids, strict=True)]
    assert sum(hits) / truth.rows.size >= 0.94
    assert found.plan is not None
    passing = sum((row % 7 == 0) for row in range(COUNT))
    if where == {"language": "de"}:
        assert (found.plan.passing, found.plan.total) == (passing, COUNT)


def test_ids_lead_to_their_own_datapoints(sharded) -> None:
    vectors = 3 * clustered(COUNT, seed=1)
    numbers = [0, 5, 1234, COUNT - 1, 77]
    for number, point in zip(numbers, sharded.read([f"id-{n}" for n in numbers]), strict=True):
        assert (point.id, point.metadata) == (f"id-{number}", {"row": number})
        assert point.crowding_tag == (None if number % 10 == 0 else f"tag-{number % 37}")
        np.testing.assert_allclose(point.vector, vectors[number], rtol=1e-6)
        restricts = {restrict.namespace: restrict for restrict in point.restricts}
        assert ("rare" in restricts) == (number in {5, 77, 1234})
        assert restricts["year"].value == 2000 + number % 30
    named = sharded.vectors([f"id-{n}" for n in numbers])
    np.testing.assert_allclose(named, vectors[numbers], rtol=1e-6)
    found = sharded.search_ids(["id-8"], 5, target_recall=1.0)
    assert found.ids[0][0] == "id-8" or found.distances[0, 0] > found.distances[0, 1]
    for row in found.rows[0].tolist():
        assert isinstance(row, int)
    assert [entry["row"] for entry in found.metadata[0]] == [int(name[3:]) for name in found.ids[0]]
    with pytest.raises(NotFound, match="nobody"):
        sharded.read(["id-1", "nobody"])
    assert sorted(sharded.sample_ids(COUNT)) == sorted(f"id-{row}" for row in range(COUNT))
    assert len(set(sharded.id_hashes().tolist())) == COUNT


def test_an_id_is_always_in_the_same_shard() -> None:
    """Of all versions ever written: a change of these numbers breaks what lies on disks."""
    names = ["a", "episode-1", "ü", "0" * 1000]
    hashes = np.array([hash_of(name) for name in names], np.uint64)
    assert shard_of(hashes, 4).tolist() == [3, 0, 2, 1]
    assert shard_of(hashes, 1).tolist() == [0, 0, 0, 0]


def test_shards_come_back_from_disk(sharded, unseen, tmp_path) -> None:
    manifest = sharded.save(tmp_path / "saved")
    assert manifest.shards == 2
    folders = sorted(path.name for path in (tmp_path / "saved").iterdir() if path.is_dir())
    assert folders == ["shard-00000", "shard-00001"]
    opened = Index.open(tmp_path / "saved")
    assert len(opened) == COUNT
    for options in ({}, {"where": {"language": "de"}}, {"crowding": 1}):
        np.testing.assert_array_equal(
            opened.search(unseen, **options).ids, sharded.search(unseen, **options).ids
        )
    again = opened.tuned(unseen, target_recall=0.8)
    again.save(tmp_path / "again")
    assert Index.open(tmp_path / "again").manifest.tuning.target_recall == 0.8
    assert (
        Index.open(tmp_path / "again").search(unseen, where={"language": "de"}).counts.tolist() == [10] * 100
    )


def test_losing_any_file_of_any_shard_fails_the_version_at_open(sharded, tmp_path) -> None:
    store = Store(tmp_path)
    store.create("podcasts")
    store.publish("podcasts", sharded)
    store.verify("podcasts")
    folder = tmp_path / "indexes/podcasts/versions/v000001"
    files = [path for path in folder.glob("shard-*/**/*") if path.is_file()]
    assert {path.relative_to(folder).parts[0] for path in files} == {"shard-00000", "shard-00001"}
    for path in files:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DataLoss, match=path.name):
            store.open("podcasts")
        path.write_bytes(content)
    store.open("podcasts")


def test_a_search_is_explained_as_that_of_one_shard(sharded, unseen) -> None:
    explained = sharded.explain(unseen[0])
    assert [step.name for step in explained.steps] == ["scann", "rest"]
    assert explained.datapoints == COUNT
    filtered = sharded.explain(unseen[0], where={"language": "de"})
    assert filtered.filter is not None
    assert filtered.true == 10


@pytest.mark.parametrize("engine", ["faiss_cpu", ScannParameters(leaves=20, reordering="INT8")], ids=str)
def test_any_engine_can_be_sharded(engine, unseen, tmp_path) -> None:
    index = Index.build(clustered(2400, seed=1), shards=2, engine=engine)
    assert index.measure_recall(unseen).high >= 0.95
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    np.testing.assert_array_equal(opened.search(unseen).rows, index.search(unseen).rows)


def test_too_few_datapoints_are_not_split() -> None:
    index = Index.build(clustered(1500, seed=1), shards=4)
    assert index.manifest.shards == 1
    assert index.manifest.engine.reason.endswith("; 1500 datapoints are too few for 4 shards")


@pytest.mark.parametrize("shards", [0, -1, 1.5, 1025, None, True])
def test_a_number_of_shards_that_cannot_be_is_refused(shards) -> None:
    with pytest.raises(InvalidArgument, match="shards is"):
        Index.build(clustered(10, seed=1), shards=shards)


def test_what_an_engine_refuses_in_its_process_is_told_here() -> None:
    with pytest.raises(InvalidArgument, match="leaves is 100000; it must be between 1 and"):
        Index.build(clustered(2100, seed=1), shards=2, engine=ScannParameters(leaves=100_000))


def test_a_process_that_the_system_kills_is_explained(monkeypatch, tmp_path) -> None:
    def killed(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], -9, b"", b"")

    monkeypatch.setattr(building, "scratch_folder", lambda: tmp_path)
    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(ResourceExhausted, match=r"exit status -9 .*free some memory"):
        Index.build(clustered(2100, seed=1), shards=2)
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_scratch_goes_with_the_index(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(building, "scratch_folder", lambda: tmp_path)
    index = Index.build(clustered(2100, seed=1), shards=2, engine="exact")
    (folder,) = tmp_path.iterdir()
    derived = index.tuned()
    del index
    gc.collect()
    derived.save(tmp_path / "saved")
    assert folder.exists()
    del derived
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert len(Index.open(tmp_path / "saved")) == 2100


def test_a_full_scratch_folder_is_explained(monkeypatch, tmp_path) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(building, "scratch_folder", lambda: tmp_path)
    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(ResourceExhausted, match="free some disk space"):
        Index.build(clustered(2100, seed=1), shards=2)
