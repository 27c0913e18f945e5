"""Vectors on disk are indexed without a second full copy of them in memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from earshot.index import Index, open_vectors

COUNT, DIMENSION = 40_000, 512
BYTES = COUNT * DIMENSION * 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIMENSION), np.float32)
    np.save(folder / "float32.npy", vectors)
    np.save(folder / "big-endian.npy", vectors.astype(">f4"))
    return folder


def peak_of(work: Callable[[], object]) -> int:
    """The most that NumPy and Python held at once, in bytes; ScaNN's own memory is not seen."""
    tracemalloc.start()
    try:
        kept = work()
        del kept
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("measure", ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE"])
@pytest.mark.parametrize("name", ["float32.npy", "big-endian.npy"])
def test_building_holds_no_copy_of_the_vectors(name: str, measure: str, folder: Path) -> None:
    questions = np.load(folder / "float32.npy", mmap_mode="r")[:8]

    def build() -> Index:
        source = open_vectors(folder / name)
        return Index.build(source.vectors, distance_measure=measure, engine="exact", tuning_queries=questions)

    assert peak_of(build) < 0.6 * BYTES


CHILD = """
import re, sys, threading
from pathlib import Path
import numpy as np
from earshot.index import DistanceMeasure, Index, open_vectors
from earshot.index.engines import ScannEngine

def own():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def alone(vectors):
    measure = DistanceMeasure.DOT_PRODUCT_DISTANCE
    return ScannEngine.build(vectors, measure, ScannEngine.choose(*vectors.shape, measure), threads=2)

build = {"scann": alone, "earshot": Index.build}[sys.argv[2]]
alone(np.random.default_rng(0).standard_normal((2000, 8), np.float32))  # the library is loaded
before, peak, done = own(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, own() - before)

watcher = threading.Thread(target=watch)
watcher.start()
index = build(open_vectors(sys.argv[1]).vectors)
done.set()
watcher.join()
print(peak)
"""


@pytest.mark.slow
def test_a_build_takes_hardly_more_memory_than_scann_alone(tmp_path: Path) -> None:
    """ScaNN copies its input and, while it trains, holds the residuals of all vectors, and a sample in double
    precision: 3.2 × the vectors of this set. What is ours is ids, and Arrow's memory pool of some 50 MB.
    """
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((2000, 128), np.float32)
    vectors = centres[generator.integers(0, 2000, 200_000)]
    vectors += 0.6 * generator.standard_normal(vectors.shape, np.float32)
    np.save(tmp_path / "vectors.npy", vectors)

    def peak(what: str) -> float:
        child = [sys.executable, "-c", CHILD, str(tmp_path / "vectors.npy"), what]
        done = subprocess.run(child, capture_output=True, text=True, check=True)
        return int(done.stdout) / vectors.nbytes

    alone, ours = peak("scann"), peak("earshot")
    print(f"peak of own memory, × the vectors: ScaNN {alone:.2f}, Earshot {ours:.2f}")
    assert ours < alone + 0.8
