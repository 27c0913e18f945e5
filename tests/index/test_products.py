"""Products are the same whichever way round they are made."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.index.vectors import dot_products


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 100])
def test_dot_products_of_few_and_many_queries(count: int) -> None:
    dice = np.random.default_rng(count)
    queries, vectors = (
        dice.standard_normal((count, 24), np.float32),
        dice.standard_normal((300, 24), np.float32),
    )
    found = dot_products(queries, vectors)
    assert found.shape == (count, 300)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, queries.astype(float) @ vectors.astype(float).T, atol=1e-4)
