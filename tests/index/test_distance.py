from __future__ import annotations

import numpy as np
import pytest

from earshot.errors import InvalidArgument
from earshot.index import DistanceMeasure, FeatureNorm, Index
from earshot.index.distance import choice

MEASURES = list(DistanceMeasure)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("norm", list(FeatureNorm))
@pytest.mark.parametrize("count", [300, 3000])
def test_distances_are_the_measures_own_value(measure, norm, count, base, unseen, oracle) -> None:
    vectors = base[:count] * np.linspace(0.5, 2, count, dtype=np.float32)[:, None]
    index = Index.build(vectors, distance_measure=measure, feature_norm=norm)
    seen = base[:count] if norm is FeatureNorm.UNIT_L2_NORM else vectors
    found = index.search(unseen, 10)
    truth = np.take_along_axis(oracle(unseen, seen, measure), found.rows, axis=1)
    np.testing.assert_allclose(found.distances, truth, atol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 1e-5).all()


def test_a_zero_vector_has_cosine_zero_with_everything() -> None:
    index = Index.build(np.array([[0.0, 0], [3, 0], [-2, 0]]), distance_measure="COSINE_DISTANCE")
    found = index.search([5.0, 0], 3)
    assert found.rows.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(found.distances, [[0, 1, 2]], atol=1e-6)
    np.testing.assert_allclose(found.scores, [[1, 0, -1]], atol=1e-6)
    np.testing.assert_allclose(index.search([0.0, 0], 3).distances, 1)


def test_an_unknown_measure_is_told_the_known_ones() -> None:
    with pytest.raises(
        InvalidArgument, match="distance_measure is 'EUCLID'; it must be one of DOT_PRODUCT_DIST"
    ):
        choice(DistanceMeasure, "EUCLID", field="distance_measure")
