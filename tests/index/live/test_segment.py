"""A sealed segment finds for many queries together what it finds for each alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.index.distance import DistanceMeasure
from earshot.index.live import segment as segment_module
from earshot.index.live.segment import Segment

DOT, L2 = DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE
DIMENSIONS = 16


CENTRES = 2 * np.random.default_rng(0).standard_normal((40, DIMENSIONS), dtype=np.float32)


def clustered(count: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return CENTRES[draw.integers(0, 40, count)] + draw.standard_normal((count, DIMENSIONS), dtype=np.float32)


VECTORS = clustered(6000, 1)
SLOTS = np.arange(len(VECTORS)) * 3 + 7
SEGMENTS = {measure: Segment.build(VECTORS, SLOTS, measure) for measure in (DOT, L2)}


def distances_of(query: np.ndarray, measure: DistanceMeasure) -> np.ndarray:
    wide = VECTORS.astype(np.float64)
    return wide @ query if measure is DOT else np.square(wide - query).sum(axis=1)


@pytest.mark.parametrize("measure", [DOT, L2])
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 40),
    seed=st.integers(0, 1000),
    rank=st.integers(0, 300),
    target=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    k=st.sampled_from([1, 10, 100]),
)
def test_many_queries_find_what_each_finds_alone(
    measure: DistanceMeasure, count: int, seed: int, rank: int, target: float, k: int
) -> None:
    segment, queries = SEGMENTS[measure], clustered(count, seed)
    order = -1 if measure is DOT else 1
    floors = np.array(
        [order * np.sort(order * distances_of(query, measure))[rank] for query in queries], np.float32
    )
    query, slots, scores = segment.closer(queries, k, target, floors)
    assert len(query) == len(slots) == len(scores)
    alone = [segment.closer(queries[i : i + 1], k, target, floors[i : i + 1]) for i in range(count)]
    # Where scores differ in their last bits, what lies at the very edge may be with one and not the other.
    for number, (mine, its_slots, its_scores) in enumerate(alone):
        assert not mine.any()
        here = dict(zip(slots[query == number].tolist(), scores[query == number].tolist(), strict=True))
        there = dict(zip(its_slots.tolist(), its_scores.tolist(), strict=True))
        for slot in here.keys() & there.keys():
            assert here[slot] == pytest.approx(there[slot], rel=1e-4, abs=1e-4)
        edge = min([*here.values(), *there.values()], default=0.0)
        for slot in here.keys() ^ there.keys():
            assert here.get(slot, there.get(slot)) == pytest.approx(edge, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("measure", [DOT, L2])
@pytest.mark.parametrize("together", [1, 8])
def test_most_of_what_is_closer_is_found(measure: DistanceMeasure, together: int) -> None:
    segment, queries = SEGMENTS[measure], clustered(200, 3)
    order = -1 if measure is DOT else 1
    hits = wanted = 0
    for start in range(0, len(queries), together):
        asked = queries[start : start + together]
        near = [np.argsort(order * distances_of(query, measure))[:10] for query in asked]
        floors = np.array(
            [distances_of(query, measure)[rows[-1]] for query, rows in zip(asked, near, strict=True)],
            np.float32,
        )
        query, slots, _ = segment.closer(asked, 10, 0.95, floors)
        for number, rows in enumerate(near):
            hits += len(set(slots[query == number].tolist()) & set(SLOTS[rows].tolist()))
            wanted += len(rows)
    assert hits / wanted >= 0.95


def test_nothing_is_closer_than_the_closest() -> None:
    queries = clustered(4, 9)
    floors = np.full(4, 1e9, np.float32)
    query, slots, scores = SEGMENTS[DOT].closer(queries, 10, 0.95, floors)
    assert (len(query), len(slots), len(scores)) == (0, 0, 0)


@pytest.mark.parametrize("scores", [1, 3 * len(VECTORS), 1 << 22])
def test_queries_that_must_see_all_places_do_so_a_few_at_a_time(
    scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_module, "_SCORES", scores)
    segment = SEGMENTS[DOT]
    lifted = segment.lift.queries(clustered(10, 4))
    expected = lifted.astype(np.float64) @ segment.vectors.T.astype(np.float64)
    least = np.quantile(expected, 0.9, axis=1).astype(np.float32)
    query, slots, values = segment._closer_of_all(lifted, least)
    assert len(query) == pytest.approx(0.1 * expected.size, rel=0.01)
    place = {slot: place for place, slot in enumerate(segment.slots.tolist())}
    found = expected[query, [place[slot] for slot in slots.tolist()]]
    np.testing.assert_allclose(values, found, rtol=1e-4, atol=1e-4)
    assert (values >= least[query]).all()
