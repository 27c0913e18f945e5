from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.index import Index, OperatingPoint, Recall, trial
from earshot.index.trial import Trial
from earshot.index.tuning import choose, recall_of


@given(st.lists(st.integers(0, 10), min_size=1, max_size=300))
def test_the_interval_holds_the_mean_and_stays_between_zero_and_one(hits) -> None:
    recall = recall_of(np.array(hits), 10)
    assert recall.value == pytest.approx(np.mean(hits) / 10, abs=1e-5)
    assert 0 <= recall.low <= recall.value <= recall.high <= 1


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        ease = generator.beta(19, 1, 300)  # queries differ, so the hits of one depend on each other
        recall = recall_of(generator.binomial(10, ease), 10)
        covered += recall.low <= 0.95 <= recall.high
    assert 920 <= covered <= 985


def test_all_hits_leave_room_for_doubt_in_proportion_to_the_sample() -> None:
    assert recall_of(np.full(10, 10), 10).low < 0.97
    assert recall_of(np.full(1000, 10), 10).low > 0.999


def points() -> list[OperatingPoint]:
    def point(k: int, leaves: int, low: float, cost: float) -> OperatingPoint:
        return OperatingPoint(k, leaves, 2 * k, Recall(low, low, low), cost)

    return [
        *(point(10, leaves, low, leaves / 100) for leaves, low in ((1, 0.8), (3, 0.95), (9, 0.99))),
        *(point(100, leaves, low, leaves / 100) for leaves, low in ((2, 0.8), (6, 0.95), (18, 0.99))),
        OperatingPoint(10, 0, 0, Recall(1, 1, 1), 1.0),
        OperatingPoint(100, 0, 0, Recall(1, 1, 1), 1.0),
    ]


@pytest.mark.parametrize(
    ("k", "target", "leaves", "candidates"),
    [
        (10, 0.8, 1, 20),
        (10, 0.801, 3, 20),
        (1, 0.95, 3, 20),
        (11, 0.95, 6, 200),
        (100, 0.99, 18, 200),
        (250, 0.99, 45, 500),
        (10, 0.9999, 0, 0),
        (5000, 1.0, 0, 0),
    ],
)
def test_the_cheapest_point_that_holds_the_target_is_chosen(k, target, leaves, candidates) -> None:
    point = choose(points(), k, target)
    assert (point.leaves, point.candidates) == (leaves, candidates)


def test_the_table_is_a_pareto_front_that_ends_in_certainty(scann_index) -> None:
    table = scann_index.manifest.tuning.points
    for k in (10, 100):
        front = [point for point in table if point.k == k]
        assert len(front) > 1
        assert [point.cost for point in front] == sorted(point.cost for point in front)
        lows = [point.recall.low for point in front]
        assert lows == sorted(set(lows))
        assert lows[-1] == 1.0


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("k", [1, 10, 50, 100, 300])
def test_unseen_queries_get_the_recall_they_ask_for(target, k, scann_index, unseen) -> None:
    found = scann_index.search(unseen, k, target_recall=target)
    exact = scann_index.search(unseen, k, target_recall=1.0)
    recall = np.mean([len(set(a) & set(b)) / k for a, b in zip(found.rows, exact.rows, strict=True)])
    assert recall >= target - 0.02  # 100 queries: two standard errors


def test_the_screening_keeps_points_at_every_recall_that_can_be_asked_for() -> None:
    steps = 1 - np.geomspace(0.7, 5e-4, 300)
    screened = [OperatingPoint(10, n + 1, 20, Recall(v, v, v), float(v)) for n, v in enumerate(steps)]
    kept = [point.recall.value for point in trial._survivors(screened)]
    for target in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995):
        assert any(target <= value <= 1 - 0.7 * (1 - target) for value in kept)


def test_a_target_is_not_given_up_where_the_few_that_screened_found_all(monkeypatch) -> None:
    monkeypatch.setattr(trial, "_SCREENED_BY_AT_LEAST", 1)
    monkeypatch.setattr(trial, "_SCREENING", 10_000)
    monkeypatch.setattr(trial, "_DEAREST", 1.0)  # one query's time, on a busy machine, says little of a cost
    generator = np.random.default_rng(4)
    vectors = generator.standard_normal((600, 32))[generator.integers(0, 600, 24_000)]
    vectors += 0.7 * generator.standard_normal(vectors.shape)
    point = choose(Index.build(vectors).manifest.tuning.points, 10, 0.99)
    assert point.leaves > 0


def test_a_sample_of_base_vectors_does_not_count_itself_as_found(base) -> None:
    index = Index.build(base, seed=1)
    assert index.manifest.tuning.tuned_on == "sample of base vectors (2000)"
    given = Index.build(base, tuning_queries=base[:1000])
    assert given.manifest.tuning.tuned_on == "given queries (1000)"
    trials = {
        own is None: Trial(given._shard.engine, given._shard.exact, base[:1000], own, 10, True)
        for own in (None, np.arange(1000))
    }
    itself_included, held_out = (trials[flag]._measure(1, 40, 1000).recall.value for flag in (True, False))
    assert held_out < itself_included


def test_queries_from_elsewhere_are_tuned_for_when_given(base) -> None:
    """Queries between the clusters have their neighbors in many leaves."""
    generator = np.random.default_rng(5)
    elsewhere = generator.standard_normal((500, base.shape[1]))
    blind, tuned = Index.build(base), Index.build(base, tuning_queries=elsewhere[:250])
    asked = elsewhere[250:]
    truth = blind.search(asked, 10, target_recall=1.0).rows

    def recall(index: Index) -> float:
        rows = index.search(asked, 10).rows
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth, strict=True)]))

    assert recall(tuned) >= 0.94
    assert tuned.manifest.tuning.chosen.leaves > blind.manifest.tuning.chosen.leaves


def test_copies_of_one_vector_do_not_count_as_misses() -> None:
    vectors = np.repeat(np.random.default_rng(0).standard_normal((40, 8)), 50, axis=0)
    tuned = Index.build(vectors).manifest.tuning
    assert tuned.chosen.recall.value > 0.95
    assert tuned.chosen.leaves > 0
