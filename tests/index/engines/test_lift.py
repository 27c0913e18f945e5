from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earshot.index import Index, ScannParameters
from earshot.index.engines.lift import Lift
from earshot.index.scratch import is_mapped, to_scratch

L2 = "SQUARED_L2_DISTANCE"


@given(
    hnp.arrays(np.float32, (30, 5), elements=st.floats(-8, 8, width=16), unique=True),
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-8, 8, width=16)),
)
def test_the_dot_product_of_lifted_vectors_tells_the_distance(vectors, queries) -> None:
    lift = Lift.over(vectors)
    if lift is None:
        return
    products = lift.queries(queries) @ lift.vectors(vectors).T
    rows = np.argsort(-products, axis=1)
    found, some_are_small = lift.distances(queries, np.take_along_axis(products, rows, 1))
    truth = ((queries[:, None].astype(np.float64) - vectors[None]) ** 2).sum(-1)
    np.testing.assert_allclose(found, np.take_along_axis(truth, rows, 1), rtol=1e-5, atol=1e-3)
    if some_are_small:
        rows, found = lift.mend(queries, vectors, rows, found)
        assert (np.diff(found, axis=1) >= 0).all()
        np.testing.assert_allclose(found, np.take_along_axis(truth, rows, 1), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((50, 3), np.float32),
        np.ones((1, 3), np.float32),
        np.float32(100) * np.eye(8, dtype=np.float32)[np.arange(400) % 8]
        + np.random.default_rng(0).normal(0, 1e-3, (400, 8)).astype(np.float32),
        np.float32(1000) + np.random.default_rng(0).standard_normal((400, 8), np.float32),
    ],
    ids=["all equal", "one", "clusters far apart", "far from the origin"],
)
def test_where_rounding_would_drown_the_differences_nothing_is_lifted(vectors) -> None:
    assert Lift.over(vectors) is None


def test_what_was_mapped_is_lifted_on_disk(base) -> None:
    lift = Lift.over(base)
    assert lift is not None
    mapped = lift.vectors(to_scratch([base]))
    assert is_mapped(mapped)
    np.testing.assert_array_equal(mapped, lift.vectors(base))


def test_narrow_clusters_far_apart_are_found_all_the_same(tmp_path) -> None:
    generator = np.random.default_rng(0)
    vectors = 1000 * generator.standard_normal((20, 8))[generator.integers(0, 20, 2000)]
    vectors = (vectors + 0.01 * generator.standard_normal((2000, 8))).astype(np.float32)
    index = Index.build(vectors, distance_measure=L2)
    index.save(tmp_path / "index")
    assert not list((tmp_path / "index").rglob("lift.npy"))
    assert index.measure_recall(vectors[:300]).value >= 0.94


@pytest.mark.parametrize("reordering", ["FLOAT32", "BFLOAT16", "INT8"])
def test_only_float32_is_lifted_and_opens_again(reordering, base, unseen, tmp_path) -> None:
    parameters = ScannParameters(leaves=40, reordering=reordering)
    index = Index.build(base, distance_measure=L2, engine=parameters)
    index.save(tmp_path / "index")
    assert bool(list((tmp_path / "index").rglob("lift.npy"))) == (reordering == "FLOAT32")
    again = Index.open(tmp_path / "index")
    for queries in (unseen, unseen[:1]):
        before, after = index.search(queries), again.search(queries)
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.distances, after.distances)
    np.testing.assert_array_equal(again.vectors(["7", "2999"]), base[[7, 2999]])
    np.testing.assert_array_equal(
        again.search(unseen, target_recall=1.0).rows, index.search(unseen, target_recall=1.0).rows
    )


def test_lifted_vectors_lie_on_disk_once(base, tmp_path) -> None:
    Index.build(base, distance_measure=L2).save(tmp_path / "index")
    large = [path for path in (tmp_path / "index").rglob("*") if path.stat().st_size >= base.nbytes]
    assert [path.name for path in large] == ["vectors.npy"]


def test_a_stored_vector_is_at_distance_zero_from_itself(base) -> None:
    index = Index.build(base, distance_measure=L2, engine=ScannParameters(leaves=40))
    for queries in (base[:50], base[3:4]):
        found = index.search(queries, fraction_leaf_nodes_to_search=1.0, approximate_neighbor_count=200)
        assert (found.distances[:, 0] == 0).all()
        exact = index.search(queries, target_recall=1.0)
        np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-4)


def test_shards_are_lifted_each_for_itself(base, unseen, tmp_path) -> None:
    index = Index.build(base, distance_measure=L2, shards=2, engine=ScannParameters(leaves=20))
    index.save(tmp_path / "index")
    assert len(list((tmp_path / "index").rglob("lift.npy"))) == 2
    opened = Index.open(tmp_path / "index")
    assert opened.measure_recall(unseen).value >= 0.94
    np.testing.assert_array_equal(opened.search(unseen).distances, index.search(unseen).distances)
