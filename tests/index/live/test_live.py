"""A live index against a dictionary: whatever came, went and changed, searches find what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Index, NumericRestrict, Operator, TokenRestrict
from earshot.index.distance import DistanceMeasure, FeatureNorm
from earshot.index.journal import UNSET, Entry, Patch, Put, Remove
from earshot.index.live import LiveIndex, empty_index
from earshot.index.live.check import checked_restricts
from tests.index.live.conftest import Oracle

DIMENSION = 6
MEASURES = tuple(DistanceMeasure)
IDS = [f"id-{number}" for number in range(40)]
RNG = np.random.default_rng(5)
VECTORS = RNG.standard_normal((120, DIMENSION)).astype(np.float32)
TOKENS = st.sampled_from([(), ("a",), ("b",), ("a", "b")])


@st.composite
def restricts(draw: st.DrawFn) -> tuple:
    found: list = []
    if draw(st.booleans()):
        found.append(TokenRestrict("token", draw(TOKENS), draw(TOKENS)))
    if draw(st.booleans()):
        found.append(NumericRestrict("number", draw(st.sampled_from([1, 2, 2.5, -3, float("inf")]))))
    return checked_restricts(found)


VECTOR = st.integers(0, len(VECTORS) - 1).map(lambda row: VECTORS[row])
TAG = st.sampled_from([None, "x", "y", "z"])
METADATA = st.sampled_from([None, {"a": 1}, {"b": [1, "ü"]}])
PUTS = st.builds(Put, st.sampled_from(IDS), VECTOR, TAG, METADATA, restricts())
PATCHES = st.builds(
    Patch,
    st.sampled_from(IDS),
    VECTOR | st.just(UNSET),
    TAG | st.just(UNSET),
    METADATA | st.just(UNSET),
    restricts() | st.just(UNSET),
)
ENTRIES = st.lists(PUTS | PATCHES | st.builds(Remove, st.sampled_from(IDS)), max_size=30)
WHERE = st.sampled_from(
    [
        (),
        (TokenRestrict("token", ("a",)),),
        (TokenRestrict("token", (), ("b",)),),
        (TokenRestrict("token", ("a",), ("b",)),),
        (NumericRestrict("number", 2, Operator.GREATER_EQUAL),),
        (NumericRestrict("number", 2.5, Operator.NOT_EQUAL), TokenRestrict("token", ("a", "b"))),
    ]
)


def version(measure: str, count: int) -> tuple[Index, Oracle]:
    oracle = Oracle(measure)
    for row in range(count):
        oracle.apply(
            Put(
                IDS[row],
                VECTORS[row],
                ["x", None, "y"][row % 3],
                {"row": row},
                (TokenRestrict("token", ("a",)),) if row % 2 else (),
            )
        )
    if count == 0:
        return empty_index(DIMENSION, DistanceMeasure(measure), FeatureNorm.NONE), oracle
    held = list(oracle.held.values())
    built = Index.build(
        VECTORS[:count],
        [put.id for put in held],
        crowding_tags=[put.crowding_tag for put in held],
        metadata=[put.metadata for put in held],
        restricts=[list(put.restricts) for put in held],
        distance_measure=measure,
    )
    return built, oracle


def check(index: Index, oracle: Oracle, *, where: tuple = (), crowding: int | None = None) -> None:
    queries = VECTORS[100:103]
    for k in (1, 5, 60):
        found = index.search(queries, k, crowding=crowding, where=where or None, target_recall=1.0)
        for query, ids, distances in zip(queries, found.ids, found.distances, strict=True):
            expected = oracle.search(query, k, crowding=crowding, where=where)
            count = sum(name is not None for name in ids)
            assert count == len(expected)
            ours = dict(zip(ids[:count], distances[:count].tolist(), strict=True))
            true = oracle.distances(query)
            assert len(ours) == count, "an id came twice"
            for (_, distance), (name, own) in zip(expected, ours.items(), strict=True):
                assert own == pytest.approx(true[name], abs=2e-5)
                assert own == pytest.approx(distance, abs=2e-5)


def check_contents(index: Index, oracle: Oracle) -> None:
    assert len(index) == len(oracle.held)
    here = list(oracle.held)
    for stored in index.read(here):
        put = oracle.held[stored.id]
        np.testing.assert_allclose(stored.vector, put.vector, rtol=1e-6, atol=1e-6)
        assert stored.crowding_tag == put.crowding_tag
        assert (stored.metadata or None) == (put.metadata or None)
        assert set(stored.restricts) == {
            each for each in put.restricts if isinstance(each, NumericRestrict) or each.allow or each.deny
        }
    for name in set(IDS) - oracle.held.keys():
        with pytest.raises(NotFound):
            index.read([name])
    assert sorted(index.sample_ids(1000)) == sorted(here)


@given(
    st.sampled_from(MEASURES),
    st.sampled_from([0, 1, 30]),
    ENTRIES,
    WHERE,
    st.sampled_from([None, 1, 2]),
    st.integers(1, 7),
)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_updates_are_seen_as_a_dictionary_sees_them(
    measure: str, count: int, entries: list[Entry], where: tuple, crowding: int | None, batch: int
) -> None:
    base, oracle = version(measure, count)
    live = LiveIndex(base)
    for start in range(0, len(entries), batch):
        live.apply(start + 1, entries[start : start + batch])
        for entry in entries[start : start + batch]:
            oracle.apply(entry)
    assert live.sequence == len(entries)
    check_contents(live, oracle)
    if not where or live.can_be_filtered:
        check(live, oracle, where=where, crowding=crowding)


@pytest.mark.parametrize("shards", [1, 3])
def test_many_updates_over_an_approximate_version_are_found_at_once(shards: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, DIMENSION)).astype(np.float32)
    base = Index.build(
        vectors, shards=shards, restricts={"half": [str(row % 2) for row in range(3000)]}, threads=1
    )
    live, oracle = LiveIndex(base), Oracle(base.manifest.distance_measure)
    half = {side: (TokenRestrict("half", (side,)),) for side in "01"}
    for row in range(3000):
        oracle.apply(Put(str(row), vectors[row], restricts=half[str(row % 2)]))
    entries: list[Entry] = [Remove(str(row)) for row in range(600)]
    moved = rng.standard_normal((600, DIMENSION)).astype(np.float32)
    entries += [Put(str(row + 600), moved[row], restricts=half["1"]) for row in range(600)]
    live.apply(1, entries)
    for entry in entries:
        oracle.apply(entry)
    found = live.search(moved, 1)
    assert (found.distances[:, 0] >= (moved * moved).sum(axis=1) - 1e-4).all()
    for where in ((), half["0"], half["1"]):
        for target in (None, 1.0):
            hits = 0
            for query in vectors[:40]:
                answer = live.search(query, 10, where=where or None, target_recall=target)
                assert len(answer.ids[0]) == 10
                worst = oracle.search(query, 10, where=where)[-1][1]
                assert set(answer.ids[0]) <= oracle.held.keys()
                hits += int((answer.distances >= worst - 1e-4).sum())
            assert hits >= (400 if target else 375)


def test_a_search_sees_one_moment_whole_while_a_writer_moves_everything() -> None:
    import threading

    base = Index.build(VECTORS[:40], IDS)
    live = LiveIndex(base)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            answer = live.search(VECTORS[:2], 60, target_recall=1.0)
            for ids in answer.ids:
                if sorted(ids) != sorted(IDS):
                    wrong.append((answer.sequence, ids))
                    stop.set()

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    sequence = 0
    for turn in range(150):  # each batch replaces every id: a torn view lacks or doubles some
        live.apply(sequence + 1, [Put(name, VECTORS[(turn + place) % 100]) for place, name in enumerate(IDS)])
        sequence += len(IDS)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_what_does_not_fit_is_refused_by_name() -> None:
    live = LiveIndex(Index.build(VECTORS[:40], IDS))
    for entry, word in [
        (Put("a", VECTORS[0][:3]), "dimension 6"),
        (Put("a", np.full(DIMENSION, np.nan, np.float32)), "NaN"),
        (Put("a", VECTORS[:2]), "shape"),
        (Put("", VECTORS[0]), "1 to 1024"),
        (Put("a", VECTORS[0], metadata={"x": object()}), "JSON"),
        (Put("a", VECTORS[0], restricts=(NumericRestrict("n", 1), NumericRestrict("n", 2))), "two numbers"),
        (Put("a", VECTORS[0], restricts=(NumericRestrict("n", 1, Operator.LESS),)), "op"),
        (Put("a", VECTORS[0], crowding_tag=7), "crowding_tag"),  # type: ignore[arg-type]
    ]:
        with pytest.raises(InvalidArgument, match=word):
            live.check(entry)
    with pytest.raises(NotFound, match="nobody"):
        live.check(Patch("nobody", metadata={}))
    with pytest.raises(DataLoss, match="update 1 is missing"):
        live.apply(2, [Remove("id-1")])
    with pytest.raises(FailedPrecondition, match="dimension 6"):
        live.apply(1, [Put("a", VECTORS[0][:3])])
    assert live.sequence == 0


def test_updates_that_are_known_are_passed_over() -> None:
    live = LiveIndex(Index.build(VECTORS[:40], IDS))
    live.apply(1, [Remove("id-1"), Remove("id-2")])
    live.apply(1, [Put("id-1", VECTORS[1]), Put("id-2", VECTORS[2]), Remove("id-3")])
    assert live.sequence == 3
    assert len(live) == 37
    with pytest.raises(NotFound):
        live.read(["id-1"])


def test_an_index_at_one_moment_does_not_change() -> None:
    live = LiveIndex(Index.build(VECTORS[:40], IDS))
    live.apply(1, [Put("new", VECTORS[50])])
    then = live.now()
    live.apply(2, [Remove("new"), Remove("id-1"), Put("id-2", VECTORS[60])])
    assert then.read(["new", "id-1", "id-2"])[2].vector == pytest.approx(VECTORS[2])
    assert len(then) == 41
    assert sorted(then.search(VECTORS[0], 100).ids[0]) == sorted([*IDS, "new"])
    assert "id-1" not in live.search(VECTORS[0], 100).ids[0]


def test_explain_has_a_step_for_the_fresh_ones() -> None:
    live = LiveIndex(Index.build(VECTORS[:40], IDS))
    live.apply(1, [Put("new", VECTORS[50])])
    told = live.explain(VECTORS[50], 5)
    assert [step.name for step in told.steps] == ["exact", "fresh", "rest"]
    assert told.datapoints == 41
    assert told.found == told.true == 5


def test_a_restart_brings_back_what_was_there() -> None:
    base = Index.build(VECTORS[:40], IDS)
    entries: list[tuple[int, Entry]] = [
        (number, Put(f"new-{number % 70}", VECTORS[number % 100], metadata={"n": number}))
        for number in range(1, 10_001)
    ]
    live = LiveIndex(base, entries)
    assert live.sequence == 10_000
    assert len(live) == 110
    assert live.read(["new-0"])[0].metadata == {"n": 9940}
    with pytest.raises(DataLoss, match="update 2 is missing"):
        LiveIndex(base, [entries[0], entries[2]])
