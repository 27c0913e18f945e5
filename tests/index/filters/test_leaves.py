"""Search by leaf, whatever the planner would choose: what it leaves out is what it says it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.index.distance import DistanceMeasure
from earshot.index.filters.inverted import as_bitmap
from earshot.index.filters.leaves import Work, search_leaves
from earshot.index.filters.partition import Lift, Partition
from earshot.index.filters.passing import Passing
from earshot.index.filters.scoring import best_of_each, in_order, scan

COUNT, K = 8000, 10


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(80, 24))
    return (centres[generator.integers(0, 80, COUNT)] + 0.5 * generator.normal(size=(COUNT, 24))).astype(
        np.float32
    )


@pytest.fixture(scope="module")
def queries(vectors):
    return vectors[::200] + np.float32(0.1)


@pytest.fixture(
    scope="module", params=[DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE]
)
def world(request, vectors, queries):
    lift = Lift.of(vectors, request.param)
    return lift, Partition.build(vectors, lift, queries, 0), lift.queries(queries)


def masks(vectors, anchor):
    generator = np.random.default_rng(1)
    order = np.argsort(vectors @ anchor)
    rows = np.arange(len(vectors))
    yield "random", generator.random(COUNT) < 0.3
    yield "far", np.isin(rows, order[: COUNT // 3])
    yield "near", np.isin(rows, order[-COUNT // 10 :])
    # One row in most leaves and hundreds in a few: the first look finds too few.
    yield "skewed", (rows % 97 == 0) | np.isin(rows, order[:300])


@pytest.mark.parametrize("missing", [1.0, 0.01])
def test_recall_follows_what_may_be_missing(world, vectors, queries, missing):
    lift, partition, asked = world
    for name, mask in masks(vectors, queries[0]):
        passing = Passing(
            as_bitmap(np.flatnonzero(mask[partition.row_of_slot]).astype(np.uint32)), partition, vectors, lift
        )
        work = Work()
        scores, places = in_order(*search_leaves(partition, passing, asked, K, missing, work))
        truth, _ = in_order(*scan(asked, passing.gathered, K))
        assert mask[passing.rows[places]].all()
        recall = (scores >= truth[:, -1:] - 1e-4).mean()
        assert recall >= (0.99 if missing < 0.1 else 0.7), name
        assert 0 < work.rows <= len(queries) * len(passing)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_equal_vectors_and_leaves_of_one_do_no_harm(scale):
    vectors = np.full((200, 4), scale, np.float32)
    vectors[:3] = [[9, 0, 0, 0], [0, -9, 0, 0], [0, 0, 99, 0]]
    for measure in (DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE):
        lift = Lift.of(vectors, measure)
        partition = Partition.build(vectors, lift, vectors[:9], 0)
        passing = Passing(as_bitmap(np.arange(200, dtype=np.uint32)), partition, vectors, lift)
        asked = lift.queries(np.concatenate((vectors[:3], np.zeros((1, 4), np.float32))))
        scores, _ = in_order(*search_leaves(partition, passing, asked, K, 0.01, Work()))
        truth, _ = in_order(*scan(asked, passing.gathered, K))
        np.testing.assert_allclose(scores, truth, rtol=1e-4, atol=1e-3)


def test_a_partition_holds_every_row_once(world):
    _, partition, _ = world
    assert sorted(partition.row_of_slot.tolist()) == list(range(COUNT))
    assert partition.bounds[0] == 0
    assert partition.bounds[-1] == COUNT
    assert (np.diff(partition.bounds) > 0).all()


def test_a_lifted_dot_product_orders_as_the_distance_does(vectors, queries):
    lift = Lift.of(vectors, DistanceMeasure.SQUARED_L2_DISTANCE)
    scores = lift.queries(queries[:1]) @ lift.vectors(vectors).T
    distances = ((vectors.astype(np.float64) - queries[0]) ** 2).sum(axis=1)
    assert (np.diff(distances[np.argsort(-scores[0])]) > -1e-3).all()


def test_scanning_in_blocks_finds_what_sorting_finds(vectors, queries):
    scores, places = in_order(*scan(queries, vectors, K))
    everything = queries @ vectors.T
    np.testing.assert_allclose(scores, -np.sort(-everything, axis=1)[:, :K], rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(everything, places, 1), scores, rtol=1e-5)


@pytest.mark.parametrize("count", [11, 500, 5000])
@pytest.mark.parametrize("k", [1, 10])
def test_a_query_alone_finds_what_it_finds_among_others(vectors, queries, count, k):
    alone = [in_order(*scan(queries[i : i + 1], vectors[:count], k)) for i in range(5)]
    scores, places = in_order(*scan(queries[:5], vectors[:count], k))
    np.testing.assert_allclose(np.concatenate([found[0] for found in alone]), scores, rtol=1e-5)
    assert (np.concatenate([found[1] for found in alone]) == places).all()


def test_queries_with_few_and_with_many_scores_get_their_best():
    generator = np.random.default_rng(3)
    each = np.array([0, 3, 500, 0, 70, 5000, 10])
    query = np.repeat(np.arange(len(each)), each)
    values = generator.normal(size=len(query)).astype(np.float32)
    scores, places = in_order(*best_of_each(query, values, np.arange(len(query)), len(each), K))
    for number, count in enumerate(each.tolist()):
        kept = min(count, K)
        expected = -np.sort(-values[query == number])[:K]
        np.testing.assert_array_equal(scores[number, :kept], expected)
        np.testing.assert_array_equal(values[places[number, :kept]], expected)
        assert (places[number, kept:] == -1).all()
