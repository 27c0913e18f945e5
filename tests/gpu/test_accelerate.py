"""Exact truth, k-means and embedding on a real device."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.embedding import load_embedder
from earshot.embedding.torch_embedder import TorchEmbedder, why_no_torch
from earshot.index.engines import ExactEngine, accelerate
from earshot.index.engines.accelerate import FaissAccelerator, TorchAccelerator
from earshot.index.filters.partition import Lift, Partition
from tests.index.engines.test_accelerate import MEASURES, hard

pytestmark = pytest.mark.gpu
TEXTS = ["Bread.", "How to bake sourdough bread at home without a scale.", "Trains at night. " * 60]


@pytest.fixture(params=["faiss-gpu", "PyTorch"])
def accelerator(request, gpus):
    if request.param == "faiss-gpu":
        return FaissAccelerator(gpus.faiss)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    return TorchAccelerator(torch)


@pytest.fixture
def helper(accelerator, monkeypatch):
    monkeypatch.setattr(accelerate, "_LEAST_WORK", 0)
    monkeypatch.setattr(accelerate, "find_accelerator", lambda: accelerator)
    return accelerator


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", ["plain", "copies", "far", "equal"])
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_exact_search_is_the_same_to_the_last_bit(k, kind, measure, helper) -> None:
    generator = np.random.default_rng(3)
    vectors = hard(kind, generator)
    queries = vectors[:200] + generator.standard_normal((200, 8), dtype=np.float32) / np.float32(3)
    exact = ExactEngine(vectors, measure)
    expected = exact.search_rows(queries, None, k)
    rows, distances = exact.search(queries, k)
    np.testing.assert_array_equal(rows, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_partitions_are_as_good(base, helper, monkeypatch) -> None:
    def residual(partition: Partition) -> float:
        leaf = np.repeat(np.arange(partition.leaves), np.diff(partition.bounds))
        return float(((base[partition.row_of_slot] - partition.centroids[leaf]) ** 2).mean())

    lift = Lift.of(base, MEASURES[0])
    helped = Partition.build(base, lift, base[:100], 0)
    monkeypatch.setattr(accelerate, "find_accelerator", lambda: None)
    assert residual(helped) == pytest.approx(residual(Partition.build(base, lift, base[:100], 0)), rel=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_embedding_on_the_gpu_equals_float32_but_for_rounding(precision, tmp_path) -> None:
    if precision == "bfloat16" and why_no_torch():
        pytest.skip(why_no_torch())
    embedder = load_embedder(precision=precision, cache_dir=tmp_path)
    assert isinstance(embedder, TorchEmbedder) == (precision == "bfloat16")
    reference = load_embedder(precision="int8", cache_dir=tmp_path).embed(TEXTS)
    assert (embedder.embed(TEXTS) * reference).sum(axis=1).min() > 0.99
