"""Small data sets and indexes that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from earshot.index import Index, Store

DIMENSION = 16


def clustered(count: int, *, seed: int, dimension: int = DIMENSION) -> np.ndarray:
    """Unit vectors around 50 centres; the same centres whatever the seed."""
    centres = np.random.default_rng(99).standard_normal((50, dimension))
    generator = np.random.default_rng(seed)
    vectors = centres[generator.integers(0, 50, count)] + 0.5 * generator.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def base() -> np.ndarray:
    return clustered(3000, seed=1)


@pytest.fixture(scope="session")
def unseen() -> np.ndarray:
    return clustered(100, seed=2)


@pytest.fixture(scope="session")
def scann_index(base: np.ndarray) -> Index:
    return Index.build(
        base,
        [f"id-{row}" for row in range(len(base))],
        crowding_tags=[None if row % 10 == 0 else f"tag-{row % 37}" for row in range(len(base))],
        metadata=[{"row": row} for row in range(len(base))],
    )


@pytest.fixture(scope="session")
def small_index() -> Index:
    """So small that it is searched exactly, and quick to publish."""
    return Index.build(clustered(50, seed=3), [f"id-{row}" for row in range(50)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.create("podcasts", {"source": "feeds"})
    return store


@pytest.fixture(scope="session")
def oracle() -> Callable[..., np.ndarray]:
    """Distances of every query to every vector, computed the plainest way in float64."""

    def distances(queries: np.ndarray, vectors: np.ndarray, measure: str) -> np.ndarray:
        q, x = queries.astype(np.float64)[:, None], vectors.astype(np.float64)[None]
        if measure == "DOT_PRODUCT_DISTANCE":
            return (q * x).sum(-1)
        if measure == "SQUARED_L2_DISTANCE":
            return ((q - x) ** 2).sum(-1)
        if measure == "L1_DISTANCE":
            return np.abs(q - x).sum(-1)
        lengths = np.linalg.norm(q, axis=-1) * np.linalg.norm(x, axis=-1)
        return 1 - (q * x).sum(-1) / np.where(lengths > 0, lengths, 1)

    return distances
