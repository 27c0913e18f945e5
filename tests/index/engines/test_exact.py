from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, ExactParameters, exact

MEASURES = sorted(ExactEngine.measures)


def engine_over(vectors: np.ndarray, measure: DistanceMeasure) -> ExactEngine:
    return ExactEngine.build(vectors, measure, ExactParameters(), threads=1)


@st.composite
def scenes(draw):
    """Vectors with many ties, offsets and sizes at which float32 rounds; queries among and beside them."""
    dimension = draw(st.integers(1, 9))
    count = draw(st.integers(1, 60))
    values = st.one_of(
        st.integers(-3, 3).map(float), st.floats(-100, 100, width=32), st.sampled_from([1000.0, 1000.5])
    )
    vectors = draw(hnp.arrays(np.float32, (count, dimension), elements=values))
    queries = draw(hnp.arrays(np.float32, (draw(st.integers(1, 4)), dimension), elements=values))
    return vectors, queries, draw(st.integers(1, count))


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=150, deadline=None)
@given(scene=scenes())
def test_exact_search_equals_brute_force_in_float64(measure, scene, oracle) -> None:
    vectors, queries, k = scene
    rows, distances = engine_over(vectors, measure).search(queries, k)
    truth = oracle(queries, vectors, measure).astype(np.float32)
    order = np.argsort(-truth if measure.higher_is_closer else truth, axis=1, kind="stable")[:, :k]
    np.testing.assert_allclose(distances, np.take_along_axis(truth, order, 1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(distances, np.take_along_axis(truth, rows, 1), rtol=1e-6, atol=1e-6)
    assert all(len(set(found)) == k for found in rows.tolist())


@pytest.mark.parametrize("measure", MEASURES)
def test_copies_of_a_vector_come_in_row_order_whatever_the_blocks(measure, monkeypatch) -> None:
    monkeypatch.setattr(exact, "_SCORES_A_BLOCK", 3000)
    generator = np.random.default_rng(0)
    vectors = np.repeat(generator.standard_normal((3, 33)).astype(np.float32), 4000, axis=0)
    rows, distances = engine_over(vectors, measure).search(vectors[:1], 2500)
    start = int(rows[0, 0])
    assert start % 4000 == 0
    np.testing.assert_array_equal(rows[0], np.arange(start, start + 2500))
    assert len(np.unique(distances)) == 1


IN_BLOCKS = {"_SCORES_A_BLOCK": 1, "_QUERIES_A_BLOCK": 7, "_GATHER_BYTES": 1000, "_RANKED_AT_ONCE": 100}


@pytest.mark.parametrize(
    "limits", [IN_BLOCKS, {"_SOME": 1, "_PASSING_AT_ONCE": 1}, {"_MANY_A_QUERY": 1}], ids=str
)
@pytest.mark.parametrize("measure", MEASURES)
def test_blocks_change_nothing(measure, limits, monkeypatch, base, unseen) -> None:
    whole = engine_over(base, measure).search(unseen, 17)
    for name, limit in limits.items():
        monkeypatch.setattr(exact, name, limit)
    in_blocks = engine_over(base, measure).search(unseen, 17)
    np.testing.assert_array_equal(whole[0], in_blocks[0])
    np.testing.assert_array_equal(whole[1], in_blocks[1])


@pytest.mark.parametrize("measure", MEASURES)
def test_far_from_the_origin_nothing_cancels(measure, oracle) -> None:
    vectors = (1e4 + np.random.default_rng(0).standard_normal((2000, 8))).astype(np.float32)
    rows, distances = engine_over(vectors, measure).search(vectors[:5], 3)
    truth = oracle(vectors[:5], vectors, measure)
    best = np.sort(-truth if measure.higher_is_closer else truth, axis=1)[:, :3]
    np.testing.assert_allclose(distances, np.abs(best), rtol=1e-6)
    if not measure.higher_is_closer:
        np.testing.assert_array_equal(rows[:, 0], np.arange(5))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("size", [0, 1, 5, 700])
def test_a_subset_is_searched_as_if_it_were_all(measure, size, base, unseen) -> None:
    subset = np.sort(np.random.default_rng(size).choice(len(base), size, replace=False))
    rows, distances = engine_over(base, measure).search_rows(unseen, subset, 10)
    found = min(size, 10)
    assert (rows[:, found:] == -1).all()
    assert np.isnan(distances[:, found:]).all()
    if size:
        alone, expected = engine_over(base[subset], measure).search(unseen, found)
        np.testing.assert_array_equal(rows[:, :found], subset[alone])
        np.testing.assert_array_equal(distances[:, :found], expected)


def test_no_queries_bring_no_rows(base) -> None:
    rows, distances = engine_over(base, DistanceMeasure.DOT_PRODUCT_DISTANCE).search(base[:0], 3)
    assert rows.shape == distances.shape == (0, 3)
