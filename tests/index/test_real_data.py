"""The recall asked for, on real vectors and queries that tuning has not seen."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.index import Index

pytestmark = pytest.mark.realdata


def recall(index: Index, queries: np.ndarray, neighbors: np.ndarray, **options) -> float:
    rows = index.search(queries, 10, **options).rows
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, neighbors[:, :10], strict=True)]))


@pytest.mark.parametrize(
    ("name", "measure"),
    [("sift10k", "SQUARED_L2_DISTANCE"), ("glove_twitter25_12k", "DOT_PRODUCT_DISTANCE")],
)
def test_exact_search_finds_the_published_neighbors_and_a_tree_nearly_all(name, measure, shared_data) -> None:
    data = np.load(shared_data / "vectors" / f"{name}.npz")
    index = Index.build(data["base"], distance_measure=measure)
    assert index.manifest.engine.name == "scann"
    exact = index.search(data["queries"], 100, target_recall=1.0)
    np.testing.assert_allclose(np.abs(exact.distances), np.abs(data["distances"]), rtol=1e-4)
    for target in (0.9, 0.95, 0.99):
        # Glove's queries are not drawn from its base; 500 of them carry an error of their own.
        assert recall(index, data["queries"], exact.rows, target_recall=target) >= target - 0.015


@pytest.mark.slow
def test_points_tuned_on_base_vectors_are_not_to_be_believed_for_text_queries(shared_data) -> None:
    data = np.load(shared_data / "vectors" / "lsa128_podcast100k.npz")
    asked, held_out = data["queries"][:500], data["queries"][500:]
    tuned = Index.build(data["base"], tuning_queries=asked)
    assert tuned.manifest.tuning.tuned_on == "given queries (500)"
    for target in (0.9, 0.95):
        assert recall(tuned, held_out, data["neighbors"][500:], target_recall=target) >= target - 0.01
