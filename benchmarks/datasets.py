"""The data sets of the index's benchmarks: real ones from a folder, and synthetic ones of any size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

ROOT = Path(__file__).resolve().parent.parent
DIMENSION, CENTRES, NOISE = 128, 2000, 0.6
UNSEEN = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Vectors [n, d], queries [q, d] that tuning must not see, and how they are compared.

    `tuning_queries` come from where the queries come from, for sets whose queries are unlike their vectors.
    """

    name: str
    base: Floats
    queries: Floats
    measure: str
    tuning_queries: Floats | None = None


def data_folder() -> Path:
    """Where real data lies unless a flag says otherwise."""
    return Path(os.environ.get("EARSHOT_TEST_DATA", ROOT.parent / "shared" / "data"))


def real(name: str, folder: Path) -> Dataset | None:
    """sift10k, glove_twitter25_12k, lsa128_podcast100k or its text queries, lsa128_podcast100k_text; None
    where the folder has no such file."""
    path = folder / "vectors" / f"{name.removesuffix('_text')}.npz"
    if not path.exists():
        return None
    data = np.load(path)
    base, queries = (np.ascontiguousarray(data[key], np.float32) for key in ("base", "queries"))
    measure = "SQUARED_L2_DISTANCE" if name.startswith("sift") else "DOT_PRODUCT_DISTANCE"
    if name.endswith("_text"):
        return Dataset(name, base, queries[500:], measure, queries[:500])
    if "queries_indist" in data:
        queries = np.ascontiguousarray(data["queries_indist"], np.float32)
    return Dataset(name, base, queries, measure)


def synthetic(count: int, dimension: int = DIMENSION) -> Dataset:
    """A point is one of 2,000 centres from N(0, 1), plus 0.6 N(0, 1), scaled to length 1. Kind to indexes
    that partition."""
    centres = np.random.default_rng(0).standard_normal((CENTRES, dimension), dtype=np.float32)

    def draw(count: int, seed: int) -> Floats:
        generator = np.random.default_rng(seed)
        points = generator.standard_normal((count, dimension), dtype=np.float32)
        points *= np.float32(NOISE)
        points += centres[generator.integers(0, CENTRES, count)]
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return points

    return Dataset(f"synthetic_{count // 1000}k", draw(count, 1), draw(UNSEEN, 2), "DOT_PRODUCT_DISTANCE")


def recall_of(rows: Rows, truth: Rows) -> float:
    """Mean share of the true neighbors that were found."""
    return float(np.mean((rows[:, :, np.newaxis] == truth[:, np.newaxis]).any(axis=2).mean(axis=1)))
