"""One scenario through every engine, against brute force over everything in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earshot.index import FaissParameters, Index

COUNT, DIMENSION = 1500, 12
ENGINES: dict[str, Any] = {
    "exact": "exact",
    "scann": "scann",
    "faiss_cpu": "faiss_cpu",
    "faiss_cpu hnsw": FaissParameters.hnsw(16),
}
TAGS = np.arange(COUNT) % 23
YEARS = np.arange(COUNT) % 50 + 1975
IS_GERMAN = np.arange(COUNT) % 3 == 0


@pytest.fixture(scope="module")
def vectors():
    generator = np.random.default_rng(7)
    centres = generator.standard_normal((30, DIMENSION))
    return centres[generator.integers(0, 30, COUNT)] + 0.5 * generator.standard_normal((COUNT, DIMENSION))


@pytest.fixture(
    scope="module", params=["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE"], ids=str.lower
)
def measure(request):
    return request.param


@pytest.fixture(scope="module", params=ENGINES.values(), ids=list(ENGINES))
def index(request, vectors, measure):
    return Index.build(
        vectors,
        crowding_tags=[f"show {tag}" for tag in TAGS],
        restricts={"language": ["de" if german else "en" for german in IS_GERMAN], "year": YEARS},
        distance_measure=measure,
        engine=request.param,
    )


def brute_force(distances: np.ndarray, passing: np.ndarray, k: int, crowding: int | None) -> list[int]:
    """The first k of all rows in order that pass, with at most `crowding` of a tag."""
    taken: dict[int, int] = {}
    rows: list[int] = []
    for row in np.argsort(distances, kind="stable").tolist():
        if passing[row] and (crowding is None or taken.get(TAGS[row], 0) < crowding):
            taken[TAGS[row]] = taken.get(TAGS[row], 0) + 1
            rows.append(row)
    return rows[:k]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 2, 10, 30]),
    crowding=st.none() | st.integers(1, 4),
    language=st.none() | st.sampled_from(["de", "en", "fr"]),
    since=st.none() | st.sampled_from([1980, 2010, 2024]),
    target=st.sampled_from([0.9, 0.99, 1.0]),
)
def test_every_engine_finds_what_brute_force_finds(
    index, vectors, measure, oracle, seed, k, crowding, language, since, target
) -> None:
    generator = np.random.default_rng(seed)
    queries = vectors[generator.integers(0, COUNT, 40)] + 0.3 * generator.standard_normal((40, DIMENSION))
    queries = queries.astype(np.float32)
    passing = np.ones(COUNT, bool)
    where: dict[str, Any] = {}
    if language is not None:
        where["language"] = language
        passing &= IS_GERMAN if language == "de" else ~IS_GERMAN if language == "en" else False
    if since is not None:
        where["year"] = {">=": since}
        passing &= since <= YEARS
    found = index.search(queries, k, target_recall=target, crowding=crowding, where=where or None)
    sign = -1 if measure == "DOT_PRODUCT_DISTANCE" else 1
    distances = sign * oracle(queries, vectors.astype(np.float32), measure)
    truth = [brute_force(of_query, passing, k, crowding) for of_query in distances]
    width = len(truth[0])
    assert found.rows.shape == (40, width)
    assert passing[found.rows].all()
    if width == 0:
        return
    exact = np.take_along_axis(distances, np.array(truth), 1)
    if target == 1.0 or index.manifest.engine.name == "exact":
        np.testing.assert_allclose(sign * found.distances, exact, rtol=1e-5, atol=1e-5)
        return
    near_enough = sign * found.distances <= exact[:, -1:] + 1e-5 * np.abs(exact[:, -1:]) + 1e-5
    # 40 queries: three standard errors of a sample so small.
    assert near_enough.mean() >= target - 0.08
    if crowding is not None:
        for rows in found.rows:
            assert np.bincount(TAGS[rows]).max() <= crowding
