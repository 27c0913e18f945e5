"""Recall stays what was promised while datapoints change; and where it does not, that is seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from earshot.index import Index, Recall
from earshot.index.distance import DistanceMeasure
from earshot.index.journal import Entry, Put, Remove
from earshot.index.live import LiveIndex, RecallWatch
from earshot.index.live import index as live_index
from earshot.index.live.segment import Segment

DIMENSION = 24
RNG = np.random.default_rng(3)
CENTRES = RNG.standard_normal((120, DIMENSION))
COUNT = 8000


def draw(count: int, centres: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(0, len(centres), count)] + 0.5 * rng.standard_normal((count, DIMENSION))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def base() -> Index:
    queries = draw(500, CENTRES[:60], 9)
    return Index.build(draw(COUNT, CENTRES[:60], 1), tuning_queries=queries, target_recall=0.95, threads=1)


@pytest.fixture(params=[1_000, 16_384])
def seal_at(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(live_index, "SEAL_AT", request.param)
    return int(request.param)


def feed(live: LiveIndex, entries: list[Entry]) -> None:
    for start in range(0, len(entries), 500):
        live.apply(live.sequence + 1, entries[start : start + 500])
        live.tidy()


def test_recall_holds_after_a_third_changed(base: Index, seal_at: int) -> None:
    live = LiveIndex(base)
    moved = draw(2000, CENTRES[:60], 2)
    changed = np.random.default_rng(4).permutation(COUNT)
    entries: list[Entry] = [
        Put(str(row), vector) for row, vector in zip(changed.tolist(), moved, strict=False)
    ]
    entries += [Remove(str(row)) for row in changed[2000:3000].tolist()]
    feed(live, entries)
    assert bool(live.shard.fresh.segments) == (seal_at == 1_000)  # type: ignore[attr-defined]
    assert live.measure_recall(draw(400, CENTRES[:60], 5)).high >= 0.95
    assert len(live) == COUNT - 1000


def test_recall_holds_for_topics_that_the_version_never_saw(base: Index, seal_at: int) -> None:
    live = LiveIndex(base)
    feed(live, [Put(f"new-{row}", vector) for row, vector in enumerate(draw(4000, CENTRES[60:], 6))])
    assert live.measure_recall(draw(400, CENTRES[60:], 7)).high >= 0.95
    assert live.measure_recall(draw(400, CENTRES[:60], 8)).high >= 0.95


@pytest.mark.parametrize("measure", ["DOT_PRODUCT_DISTANCE", "SQUARED_L2_DISTANCE"])
def test_a_segment_finds_what_it_was_measured_to_find(measure: str) -> None:
    vectors, queries = 3 + draw(6000, CENTRES, 11), 3 + draw(200, CENTRES, 12)
    segment = Segment.build(vectors, np.arange(0, 12_000, 2), DistanceMeasure(measure))
    assert segment.leaves_for(10, 0.9) < len(segment.centroids)
    # All queries have nearly the same neighbors here, so what one filter lets pass says little by itself.
    filters = np.random.default_rng(1).random((12, 6000)) < 0.2
    for some in ([None], filters):
        recalls = []
        for allowed in some:
            truth, _ = segment.search(queries, 10, None, allowed)
            together, scores = segment.search(queries, 10, 0.9, allowed)
            alone = [segment.search(query[np.newaxis], 10, 0.9, allowed)[0][0] for query in queries]
            for found in (together, np.array(alone)):
                hits = sum(len(set(mine) & set(true)) for mine, true in zip(found, truth, strict=True))
                recalls.append(hits / truth.size)
            assert (np.diff(scores, axis=1) <= 0).all()
        assert np.mean(recalls) >= 0.9
    everything, _ = segment.search(queries[:2], 9999, 0.9)
    assert [sorted(row) for row in everything] == [list(range(0, 12_000, 2))] * 2


def test_tidying_beside_searches_changes_no_answer(base: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_index, "SEAL_AT", 500)
    live = LiveIndex(base)
    queries = draw(20, CENTRES, 13)
    before = None
    for turn in range(12):
        points = draw(300, CENTRES, 100 + turn)
        removed: list[Entry] = [Remove(f"n-{turn - 1}-{n}") for n in range(0, 300, 3)] if turn else []
        live.apply(live.sequence + 1, [*removed, *(Put(f"n-{turn}-{n}", p) for n, p in enumerate(points))])
        before = live.search(queries, 15, target_recall=1.0)
        live.tidy()
        after = live.search(queries, 15, target_recall=1.0)
        assert before.ids == after.ids
        np.testing.assert_allclose(before.distances, after.distances, atol=1e-6)
    sizes = [len(segment) for segment in live.shard.fresh.segments]  # type: ignore[attr-defined]
    assert sizes
    assert all(larger >= 2 * smaller for larger, smaller in pairwise(sizes))


def test_the_watch_measures_what_was_asked(base: Index) -> None:
    watch = RecallWatch()
    assert not watch.measure(base)
    queries = draw(4000, CENTRES[:60], 14)
    for query in queries:
        watch.offer(query)
    assert measured(watch) is None
    for _ in range(64):
        assert watch.measure(base)
    recall, truth = measured(watch), base.measure_recall(queries)
    assert recall is not None
    assert recall.low - 0.02 <= truth.value <= recall.high + 0.02
    assert measured(watch.renewed()) is None
    assert watch.renewed().measure(base)


def measured(watch: RecallWatch) -> Recall | None:
    return watch.recall


@pytest.mark.parametrize(("hits", "is_short"), [(5, True), (10, False)])
def test_recall_that_falls_short_beyond_chance_is_seen(hits: int, is_short: bool) -> None:
    watch = RecallWatch()
    assert not watch.is_short_of(0.95)
    watch.offer(draw(4000, CENTRES, 15))
    watch._hits.extend([hits] * 200)
    assert watch.is_short_of(0.95) == is_short


def test_a_query_measured_twice_counts_once(base: Index) -> None:
    watch = RecallWatch()
    watch.offer(draw(17 * 90, CENTRES, 15))
    for _ in range(40):
        assert watch.measure(base)
    assert measured(watch) is None
    assert watch.sample() is None


def test_a_query_asked_again_and_again_speaks_for_itself_alone(base: Index) -> None:
    watch = RecallWatch()
    watch.offer(np.repeat(draw(3, CENTRES, 15), 17 * 100, axis=0))
    for _ in range(40):
        assert watch.measure(base)
    assert measured(watch) is None
    assert watch.sample() is None
    assert len(watch._queries) == 3


@pytest.mark.parametrize("size", [1, 16, 64, 1000])
def test_every_query_of_a_batch_has_the_same_chance(size: int) -> None:
    watch = RecallWatch()
    queries = np.arange(16_000, dtype=np.float32)[:, np.newaxis]
    for start in range(0, len(queries), size):
        watch.offer(queries[start] if size == 1 else queries[start : start + size])
    kept = watch.sample()
    assert kept is not None
    places = kept[:, 0].astype(int) % size
    assert len(kept) == 512
    assert len(set(places.tolist())) >= min(size, 400)
