"""Vectors that break assumptions, through every engine, distance, filter and crowding, beside brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from earshot.index import FaissGpuParameters, FaissParameters, Index

COUNT = 1050  # enough for a tree, a partition of its own for filters, and every engine
ENGINES: dict[str, Any] = {
    "exact": "exact",
    "scann": "scann",
    "faiss_cpu": "faiss_cpu",
    "hnsw": FaissParameters.hnsw(16),
    "faiss_gpu": FaissGpuParameters("IVF16,Flat"),
}
MEASURES = ("DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE")
Make = Callable[[np.random.Generator], np.ndarray]


def plain(generator: np.random.Generator, count: int = COUNT, dimension: int = 8) -> np.ndarray:
    return generator.standard_normal((count, dimension))


def some_zero(generator: np.random.Generator) -> np.ndarray:
    vectors = plain(generator)
    vectors[::4] = 0
    return vectors


DEGENERATE: dict[str, Make] = {
    "all equal": lambda generator: np.tile(plain(generator, 1), (COUNT, 1)),
    "all zero": lambda _: np.zeros((COUNT, 8)),
    "some zero": some_zero,
    "duplicates": lambda generator: np.repeat(plain(generator, COUNT // 50), 50, axis=0),
    "two values": lambda generator: plain(generator, 2)[generator.integers(0, 2, COUNT)],
    "one dimension": lambda generator: plain(generator, COUNT, 1),
    "far away": lambda generator: plain(generator) + 500,
}
FORMS: dict[str, Make] = {
    "float16": lambda generator: plain(generator).astype(np.float16),
    "int8": lambda generator: generator.integers(-100, 100, (COUNT, 8), np.int8),
    "uint16": lambda generator: generator.integers(0, 60_000, (COUNT, 8), np.uint16),
    "big-endian float64": lambda generator: plain(generator).astype(">f8"),
    "big-endian int32": lambda generator: generator.integers(-9, 9, (COUNT, 8)).astype(">i4"),
    "Fortran order": lambda generator: np.asfortranarray(plain(generator)),
    "every other column": lambda generator: plain(generator, COUNT, 16)[:, ::2],
    "backwards": lambda generator: plain(generator)[::-1],
}


def check(vectors: np.ndarray, measure: str, engine: Any, oracle: Callable[..., np.ndarray]) -> None:
    """Exact searches equal brute force, approximate ones come near it, filtered and crowded or not."""
    count = len(vectors)
    is_red, tags = np.arange(count) % 7 == 0, np.arange(count) % 5
    index = Index.build(
        vectors,
        engine=engine,
        distance_measure=measure,
        restricts={"colour": ["red" if red else "blue" for red in is_red], "row": np.arange(count)},
        crowding_tags=[f"tag-{tag}" for tag in tags],
    )
    generator = np.random.default_rng(1)
    # So many that the few vectors which some data consists of all ask: a graph may not reach one of them.
    queries = vectors[generator.integers(0, count, 100)].astype(np.float32)
    queries[50:] += generator.standard_normal((50, vectors.shape[1])).astype(np.float32) / 4
    queries[99] = 0
    sign = -1 if measure == "DOT_PRODUCT_DISTANCE" else 1
    scale = float(np.abs(vectors.astype(np.float64)).max()) ** 2 * vectors.shape[1] + 1
    floats = vectors.astype(np.float32)
    near = sign * np.concatenate([oracle(query[np.newaxis], floats, measure) for query in queries])
    for where, passing in (
        (None, np.ones(count, bool)),
        ({"colour": "red"}, is_red),
        ({"row": {"<": 40}, "colour": "blue"}, ~is_red & (np.arange(count) < 40)),
    ):
        for crowding in (None, 1):
            for target in (1.0, 0.9):
                found = index.search(queries, 6, where=where, crowding=crowding, target_recall=target)
                allowed = np.where(passing, near, np.inf)
                if crowding:
                    best = np.stack(
                        [allowed[:, tags == tag].min(axis=1, initial=np.inf) for tag in range(5)], 1
                    )
                    best = np.sort(best, 1)
                else:
                    best = np.sort(allowed, 1)[:, :6]
                best = best[:, : np.isfinite(best[0]).sum()]
                assert found.rows.shape == best.shape
                if best.shape[1] == 0:  # nothing passes, and none is returned
                    continue
                assert passing[found.rows].all()
                assert all(len(set(rows)) == len(rows) for rows in found.rows.tolist())
                worst = best[:, -1:] + 2e-6 * scale
                share = float((np.take_along_axis(near, found.rows, 1) <= worst).mean())
                assert share == 1 if target == 1 else share >= 0.8, (where, crowding, target, share)
                told = np.take_along_axis(near, found.rows, 1)
                np.testing.assert_allclose(sign * found.distances, told, atol=2e-3 * scale)
    assert len(index.read(["0"])) == 1


def cases() -> Iterator[Any]:
    """All of them; those that the ordinary suite leaves out are slow."""
    for (i, engine), (j, kind), (m, measure) in product(
        enumerate(ENGINES), enumerate(DEGENERATE), enumerate(MEASURES)
    ):
        is_usual = m == (i + j) % 3 and (engine == "scann" or kind in ("all equal", "some zero"))
        yield pytest.param(engine, kind, measure, marks=() if is_usual else pytest.mark.slow)


@pytest.mark.parametrize(("engine", "kind", "measure"), list(cases()))
def test_degenerate_vectors_are_searched_like_others(engine, kind, measure, oracle) -> None:
    check(DEGENERATE[kind](np.random.default_rng(5)), measure, ENGINES[engine], oracle)


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_numbers_is_searched_by_its_values(kind, oracle) -> None:
    check(FORMS[kind](np.random.default_rng(6))[:300], "SQUARED_L2_DISTANCE", "exact", oracle)


@pytest.mark.parametrize("measure", [*MEASURES, "L1_DISTANCE"], ids=str.lower)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4096), (2, 3), (6, 4096)], ids=str)
def test_a_handful_of_datapoints_of_any_width(shape, measure, oracle) -> None:
    check(plain(np.random.default_rng(7), *shape), measure, "auto", oracle)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["scann", "faiss_cpu"])
def test_the_widest_vectors_in_a_tree(engine, oracle) -> None:
    check(plain(np.random.default_rng(8), 1000, 4096), "DOT_PRODUCT_DISTANCE", engine, oracle)
