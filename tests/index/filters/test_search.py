"""Filtered search against an oracle that ranks every row that passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, ExactParameters, ScannEngine
from earshot.index.filters import Filters, as_where, collect
from earshot.index.filters.plan import Path as Way

DOT, L2 = DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE
COUNT, DIMENSION, TARGET = 20_000, 32, 0.9
SHARES = {"all": 1.0, "most": 0.7, "half": 0.5, "tenth": 0.1, "hundredth": 0.01, "few": 0.0003}


def clustered(count, generator, centres):
    points = centres[generator.integers(0, len(centres), count)] + 0.6 * generator.normal(
        size=(count, DIMENSION)
    )
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def distances_of(vectors, queries, measure):
    """Of every vector to every query."""
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    if measure is DOT:
        return queries @ vectors.T
    return np.stack([((vectors - query) ** 2).sum(axis=1) for query in queries])


def nearest(distances, mask, k, measure):
    """The k nearest rows that pass, best first."""
    sign = -1 if measure is DOT else 1
    return sign * np.sort(sign * distances[:, mask], axis=1)[:, :k]


def oracle(vectors, queries, mask, k, measure):
    """Distances of the k nearest rows that pass, best first."""
    return nearest(distances_of(vectors, queries, measure), mask, k, measure)


class World:
    """An index with filters of every share, independent and against the queries."""

    def __init__(self, measure):
        generator = np.random.default_rng(7)
        centres = generator.normal(size=(200, DIMENSION))
        self.measure = measure
        self.vectors = clustered(COUNT, generator, centres)
        if measure is L2:
            self.vectors = self.vectors * generator.uniform(0.5, 2, (COUNT, 1)).astype(np.float32) + 30
        self.queries = clustered(64, generator, centres) + (30 if measure is L2 else 0)
        self.queries = self.queries.astype(np.float32)
        # So many that a recall is not a matter of which they are.
        more = clustered(1000, np.random.default_rng(8), centres) + (30 if measure is L2 else 0)
        self.more = more.astype(np.float32)
        self.distances = distances_of(self.vectors, self.more, measure)
        self.masks = {name: generator.random(COUNT) < share for name, share in SHARES.items()}
        anchor = self.queries[0]
        nearness = self.vectors @ anchor if measure is DOT else -((self.vectors - anchor) ** 2).sum(axis=1)
        order = np.argsort(nearness)
        for name, rows in (("far", order[: COUNT // 3]), ("near", order[-COUNT // 20 :])):
            self.masks[name] = np.isin(np.arange(COUNT), rows)
        self.masks["none"] = np.zeros(COUNT, bool)
        self.masks["three"] = np.isin(np.arange(COUNT), [5, 17, 4711])
        self.engine = ScannEngine.build(
            self.vectors, measure, ScannEngine.choose(COUNT, DIMENSION, measure), threads=2
        )
        self.exact = ExactEngine(self.vectors, measure)
        self.columns = {name: np.where(mask, "yes", "no").tolist() for name, mask in self.masks.items()}
        self.filters = Filters.build(
            collect(self.columns, COUNT),
            self.vectors,
            self.engine,
            self.exact,
            measure,
            queries=None,
            seed=0,
            progress=lambda *_: None,
        )


@pytest.fixture(scope="module", params=[DOT, L2], ids=["dot", "l2"])
def world(request):
    return World(request.param)


NAMES = [*SHARES, "far", "near", "three", "none"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 10, 100, pytest.param(40, marks=pytest.mark.slow)])
def test_recall_holds_at_every_share_and_against_the_queries(world, name, k):
    mask = world.masks[name]
    rows, distances, plan = world.filters.search(world.more, k, as_where({name: "yes"}), TARGET)
    truth = nearest(world.distances, mask, k, world.measure)
    assert rows.shape == distances.shape == truth.shape == (len(world.more), min(k, mask.sum()))
    assert mask[rows].all()
    assert all(len(set(found)) == rows.shape[1] for found in rows.tolist())
    if truth.shape[1]:
        edge = truth[:, -1:]
        hits = distances >= edge - 1e-4 if world.measure is DOT else distances <= edge + 1e-2
        assert hits.mean() >= TARGET
        ordered = np.sort(distances, axis=1)
        assert (distances == (ordered[:, ::-1] if world.measure is DOT else ordered)).all()
    assert plan.passing == mask.sum()
    assert plan.total == COUNT


@pytest.mark.parametrize("name", NAMES)
def test_exact_search_equals_the_oracle(world, name):
    rows, distances, plan = world.filters.search(world.queries, 10, as_where({name: "yes"}), None)
    truth = oracle(world.vectors, world.queries, world.masks[name], 10, world.measure)
    assert plan.path is Way.EXACT
    assert world.masks[name][rows].all()
    np.testing.assert_allclose(distances, truth, rtol=1e-5, atol=1e-5)


def test_one_query_finds_what_it_finds_in_a_batch(world):
    where = as_where({"hundredth": "yes"})
    together, _, _ = world.filters.search(world.queries, 10, where, TARGET)
    alone = [world.filters.search(world.queries[i : i + 1], 10, where, TARGET)[0] for i in range(8)]
    assert (np.concatenate(alone) == together[:8]).mean() > 0.95  # floats may be summed in another order


def test_what_was_saved_finds_the_same(world, tmp_path: Path):
    world.filters.save(tmp_path)
    opened = Filters.open(
        tmp_path, world.filters.tuning, world.vectors, world.engine, world.exact, world.measure
    )
    for name in ("tenth", "far", "three"):
        where = as_where({name: "yes"})
        found, _, _ = opened.search(world.queries, 10, where, None)
        before, _, _ = world.filters.search(world.queries, 10, where, None)
        assert (found == before).all()
    assert opened.tuning == world.filters.tuning
    assert opened.of(17) == world.filters.of(17)


def test_an_exact_index_needs_no_partition():
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    exact = ExactEngine.build(vectors, L2, ExactParameters(), threads=1)
    filters = Filters.build(
        collect({"even": ["yes" if row % 2 == 0 else "no" for row in range(300)]}, 300),
        vectors, exact, exact, L2, queries=None, seed=0, progress=lambda *_: None,
    )  # fmt: skip
    rows, distances, _ = filters.search(vectors[:5], 3, as_where({"even": "yes"}), TARGET)
    truth = oracle(vectors, vectors[:5], np.arange(300) % 2 == 0, 3, L2)
    assert (rows % 2 == 0).all()
    np.testing.assert_allclose(distances, truth, rtol=1e-5, atol=1e-5)
    assert filters.partition is None
