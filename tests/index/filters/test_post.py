"""How far neighbors that pass a filter can be believed, told by engines that fail in known ways."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from earshot.index.engines import QueryParameters
from earshot.index.filters.clock import one_thread
from earshot.index.filters.post import (
    RANKS,
    PostPoint,
    Rung,
    chance_of_fewer,
    ladder,
    measure,
    next_rung,
    passing_neighbors,
)

COUNT = 4000


class Line:
    """Points 0 … n − 1 of a line, a query at 0: row j is the j-th neighbor. It loses rows as told."""

    leaves = 8
    on_device = False

    def __init__(self, lost):
        self.lost = lost

    def search(self, queries, k, parameters):
        del parameters
        found = np.flatnonzero(~self.lost)[:k]
        rows = np.full((len(queries), k), -1, np.int64)
        rows[:, : len(found)] = found
        return rows, rows.astype(np.float32)


def point(recall, cost=1.0, leaves=1):
    return PostPoint(leaves, 1000, recall + [0.0] * (len(RANKS) - len(recall)), cost, 2 * cost)


def test_an_answer_is_believed_to_the_rank_where_the_mean_falls_under_the_target():
    (rung,) = ladder([point([1.0, 1.0, 1.0])], 0.95)
    assert rung.width == RANKS[2]
    (rung,) = ladder([point([1.0, 1.0, 1.0, 0.8])], 0.8)
    assert rung.width >= RANKS[3]
    # n neighbors of which 1 in 1.25 is found come after 16: too many when (16 + 1.25 n)/(16 + n) > 1/0.95.
    (rung,) = ladder([point([1.0, 1.0, 1.0, 0.8])], 0.95)
    assert rung.width == 16 + 4
    assert ladder([point([0.9] * len(RANKS))], 0.95) == []


def test_each_rung_is_wider_than_the_cheaper_ones():
    points = [
        point([0.99], 1),
        point([0.99, 0.99, 0.99], 3),
        point([0.99, 0.99], 4),
        point([0.99] * 6, 9),
    ]
    rungs = ladder(points, 0.95)
    assert [rung.cost for rung in rungs] == [1, 3, 9]
    assert [rung.width for rung in rungs] == sorted({rung.width for rung in rungs})


@pytest.mark.parametrize(("k", "width", "share"), [(10, 20, 0.9), (10, 40, 0.3), (1, 16, 0.2), (10, 10, 1.0)])
def test_the_chance_of_fewer_is_about_binomial(k, width, share):
    exact = sum(comb(width, j) * share**j * (1 - share) ** (width - j) for j in range(k))
    assert chance_of_fewer(k, width, share) == pytest.approx(exact, abs=0.05)


def test_measured_recall_tells_by_rank_what_an_engine_loses():
    lost = np.zeros(COUNT, bool)
    lost[100:200:2] = True
    queries = np.zeros((300, 2), np.float32)
    truth = np.tile(np.arange(RANKS[-1]), (300, 1))
    points = measure(Line(lost), queries, truth, dearest=1.0)
    widest = max(points, key=lambda point: sum(point.recall))
    expected = [1 - band.mean() for band in np.split(lost[: RANKS[-1]], RANKS[:-1])]
    assert widest.recall == pytest.approx(expected, abs=0.02)
    assert all(point.cost > 0 and point.alone > 0 for point in points)


def test_what_passes_only_far_out_is_not_believed():
    lost = np.zeros(COUNT, bool)
    lost[40:64:2] = True
    doubts = np.where(np.arange(64) < 40, 1.0, 2.0)
    rung = Rung(QueryParameters(1, 64), 64, doubts, 0.8, 1.0, 1.0)
    queries = np.zeros((3, 2), np.float32)
    anywhere = np.arange(COUNT) % 5 == 0
    rows, _, passed = passing_neighbors(Line(lost), queries, 5, anywhere, rung)
    assert (passed >= 5).all()
    assert rows.tolist() == [[0, 5, 10, 15, 20]] * 3
    # Half of what passes is lost, though as many as wanted are found.
    far = (np.arange(COUNT) >= 40) & (np.arange(COUNT) < 60)
    _, _, passed = passing_neighbors(Line(lost), queries, 5, far, rung)
    assert (passed < 5).all()


def test_a_retry_goes_where_enough_should_pass_or_nowhere():
    rungs = [Rung(QueryParameters(1, 8), width, np.ones(width), 0.9, width, width) for width in (32, 64, 128)]
    unlucky, hopeless = np.array([8, 9]), np.array([0, 0])
    assert next_rung(rungs, 32, 10, 0.5, unlucky) is rungs[1]
    assert next_rung(rungs, 32, 10, 0.05, unlucky) is rungs[2]
    assert next_rung(rungs, 32, 10, 0.5, hopeless) is None
    assert next_rung(rungs, 128, 10, 0.5, unlucky) is None


def test_costs_are_measured_on_one_thread_of_blas():
    with one_thread():
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert pools
    assert all(pool["num_threads"] == 1 for pool in pools)


def test_queries_of_a_batch_are_answered_each_for_itself():
    class Shifted(Line):
        def search(self, queries, k, parameters):
            rows, _ = super().search(queries, k, parameters)
            rows = np.where(rows < 0, -1, rows + 10 * np.arange(len(queries))[:, np.newaxis])
            return rows, rows.astype(np.float32)

    rung = Rung(QueryParameters(1, 20), 20, np.ones(20), 0.9, 1.0, 1.0)
    mask = np.zeros(COUNT, bool)
    mask[[3, 5, 12, 14, 16, 45]] = True
    rows, distances, passed = passing_neighbors(
        Shifted(np.zeros(COUNT, bool)), np.zeros((4, 2), np.float32), 3, mask, rung
    )
    assert passed.tolist() == [5, 3, 0, 1]
    assert rows[:2].tolist() == [[3, 5, 12], [12, 14, 16]]
    np.testing.assert_array_equal(distances[:2], rows[:2])


def test_a_rung_is_asked_for_no_more_than_lets_enough_pass():
    rung = Rung(QueryParameters(1, 64), 64, np.linspace(1, 2, 64), 0.9, 1.0, 1.0)
    assert rung.narrowed(10, 1.0).width == 10
    half = rung.narrowed(10, 0.5)
    assert 30 < half.width < 50
    assert chance_of_fewer(10, half.width, 0.5) <= 0.002
    np.testing.assert_array_equal(half.doubts, rung.doubts[: half.width])
    assert rung.narrowed(10, 0.05).width == 64
