"""Exact search and k-means with a GPU's help; faiss-cpu plays the GPU."""

from __future__ import annotations

import logging
from typing import Any

import faiss
import numpy as np
import pytest

from earshot.index import Index
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, accelerate
from earshot.index.engines.accelerate import FaissAccelerator
from earshot.index.filters.partition import Lift, Partition

DOT = DistanceMeasure.DOT_PRODUCT_DISTANCE
MEASURES = [DOT, DistanceMeasure.SQUARED_L2_DISTANCE, DistanceMeasure.L1_DISTANCE]


class OnCpu:
    """Faiss with `knn_gpu` by its own brute force on the CPU; `wrong` scrambles the nearest."""

    def __init__(self, *, error: bool = False) -> None:
        self.calls = 0
        self._error = error

    def __getattr__(self, name: str) -> object:
        return getattr(faiss, name)

    def StandardGpuResources(self) -> None:  # noqa: N802  # Faiss's name
        return None

    def knn_gpu(self, resources, queries, vectors, k, *, metric, **limits):
        del resources, limits
        self.calls += 1
        if self._error:
            raise RuntimeError("cudaMalloc error out of memory")
        return faiss.knn(queries, vectors, k, metric=metric)


@pytest.fixture
def helper(monkeypatch) -> OnCpu:
    helper = OnCpu()
    monkeypatch.setattr(accelerate, "_LEAST_WORK", 0)
    monkeypatch.setattr(accelerate, "find_accelerator", lambda: FaissAccelerator(helper))
    return helper


def hard(kind: str, generator: np.random.Generator) -> Any:
    vectors = generator.standard_normal((1500, 8)).astype(np.float32)
    match kind:
        case "copies":  # more of each than the GPU proposes
            return vectors[generator.integers(0, 10, 1500)]
        case "far":  # from the origin, where float32 cannot tell them apart
            return vectors + np.float32(3000)
        case "equal":
            return np.broadcast_to(vectors[0], vectors.shape).copy()
    return vectors


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", ["plain", "copies", "far", "equal"])
@pytest.mark.parametrize("k", [1, 10, 1500])
def test_the_answer_is_the_same_to_the_last_bit(k, kind, measure, helper) -> None:
    generator = np.random.default_rng(3)
    vectors = hard(kind, generator)
    noise = generator.standard_normal((70, 8), dtype=np.float32)
    queries = vectors[generator.integers(0, 1500, 70)] + noise / np.float32(3)
    exact = ExactEngine(vectors, measure)
    expected = exact.search_rows(queries, None, k)
    rows, distances = exact.search(queries, k)
    assert helper.calls == 1
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_few_queries_and_little_work_stay_here(helper, monkeypatch) -> None:
    vectors = np.eye(40, 8, dtype=np.float32)
    exact = ExactEngine(vectors, DOT)
    exact.search(vectors[:31], 3)
    assert helper.calls == 0
    monkeypatch.setattr(accelerate, "_LEAST_WORK", 1 << 33)
    exact.search(vectors, 3)
    assert helper.calls == 0


def test_a_gpu_that_fails_is_told_of_and_replaced(monkeypatch, caplog) -> None:
    monkeypatch.setattr(accelerate, "_LEAST_WORK", 0)
    monkeypatch.setattr(accelerate, "find_accelerator", lambda: FaissAccelerator(OnCpu(error=True)))
    vectors = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    exact = ExactEngine(vectors, DOT)
    with caplog.at_level(logging.WARNING):
        rows, _ = exact.search(vectors[:50], 3)
    np.testing.assert_array_equal(rows, exact.search_rows(vectors[:50], None, 3)[0])
    assert "faiss-gpu could not search 500 vectors, the CPU does" in caplog.text


def test_partitions_are_as_good(base, helper) -> None:
    def residual(partition: Partition) -> float:
        leaf = np.repeat(np.arange(partition.leaves), np.diff(partition.bounds))
        return float(((base[partition.row_of_slot] - partition.centroids[leaf]) ** 2).mean())

    lift = Lift.of(base, DOT)
    helped = Partition.build(base, lift, base[:100], 0)
    assert helper.calls > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerate, "find_accelerator", lambda: None)
        alone = Partition.build(base, lift, base[:100], 0)
    assert residual(helped) == pytest.approx(residual(alone), rel=0.02)


def test_an_index_tuned_with_help_holds_its_recall(base, unseen, helper) -> None:
    index = Index.build(base, engine="scann", target_recall=0.97)
    assert helper.calls > 0
    assert index.manifest.tuning.chosen.cost > 0
    assert index.measure_recall(unseen, 10).value >= 0.95


def test_no_gpu_means_no_help() -> None:
    accelerate.find_accelerator.cache_clear()
    assert accelerate.find_accelerator() is None
