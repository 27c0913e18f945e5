"""All of the engine but what a GPU computes, which `make test-gpu` tests."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from earshot.errors import DataLoss, FailedPrecondition, Internal, InvalidArgument, ResourceExhausted
from earshot.index import FaissGpuParameters, Index
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import (
    ExactEngine,
    ExactParameters,
    FaissGpuEngine,
    QueryParameters,
    faiss_gpu,
    gpus,
)
from earshot.index.engines.gpu_copies import check_memory
from tests.gpus import CpuGpus

DOT = DistanceMeasure.DOT_PRODUCT_DISTANCE
L1 = DistanceMeasure.L1_DISTANCE
L2 = DistanceMeasure.SQUARED_L2_DISTANCE
EVERYTHING = QueryParameters(leaves=10_000, candidates=2048)
LAYOUTS = [
    ("Flat", 1.0),
    ("IVF30,Flat", 1.0),
    ("IVF30,SQfp16", 0.98),
    ("IVF30,SQ8", 0.93),
    ("IVF30,PQ2,RFlat", 0.99),
    ("IVF30,PQ2,Refine(SQfp16)", 0.97),
    ("CAGRA32", 0.99),
]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch):
    """Puts GPUs into the machine; None takes them away."""

    def put(found: CpuGpus | None, reason: str = "") -> CpuGpus | None:
        monkeypatch.setattr(faiss_gpu, "find_gpus", lambda: (found, reason))
        return found

    put(CpuGpus())
    return put


def build(vectors: np.ndarray, measure: DistanceMeasure = DOT, **how: Any) -> FaissGpuEngine:
    return FaissGpuEngine.build(vectors, measure, FaissGpuParameters(**how), threads=1)


def reload(engine: FaissGpuEngine, vectors: np.ndarray, measure: DistanceMeasure, folder) -> FaissGpuEngine:
    engine.save(folder, folder / "vectors.npy")
    return FaissGpuEngine.load(folder, folder / "vectors.npy", vectors, measure, engine.parameters)


def truth(vectors: np.ndarray, queries: np.ndarray, k: int, measure: DistanceMeasure = DOT):
    return ExactEngine.build(vectors, measure, ExactParameters(), threads=1).search(queries, k)


def recall(rows: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows, true, strict=True)]))


@pytest.mark.parametrize("measure", [DOT, L2])
@pytest.mark.parametrize(("factory", "least"), LAYOUTS)
@pytest.mark.parametrize(
    "how", [{}, {"devices": 2}, {"devices": 2, "replicate": True}], ids=["one", "parts", "replicas"]
)
def test_every_layout_finds_saves_and_loads(
    how, factory, least, measure, base, unseen, tmp_path, device
) -> None:
    device(CpuGpus(3))
    engine = build(base, measure, factory=factory, **how)
    rows, distances = engine.search(unseen, 10, EVERYTHING)
    true, expected = truth(base, unseen, 10, measure)
    assert recall(rows, true) >= least
    if least == 1.0:
        np.testing.assert_allclose(distances, expected, atol=1e-5)
    again = reload(engine, base, measure, tmp_path)
    assert again.leaves == engine.leaves
    assert recall(again.search(unseen, 10, EVERYTHING)[0], rows) >= 0.99
    assert engine.on_device
    assert again.on_device


@pytest.mark.parametrize(("factory", "least"), LAYOUTS)
def test_without_a_gpu_the_cpu_answers_and_says_so(
    factory, least, base, unseen, tmp_path, device, caplog
) -> None:
    built_there = build(base, factory=factory)
    device(None, "CUDA finds none")
    with caplog.at_level(logging.WARNING):
        here = reload(built_there, base, DOT, tmp_path)
    name = "exact" if factory == "Flat" else "faiss_cpu"
    assert here.served_by == f"{name} (no GPU: CUDA finds none)"
    assert here.served_by in caplog.text
    assert not here.on_device
    true, _ = truth(base, unseen, 10)
    assert recall(here.search(unseen, 10, EVERYTHING)[0], true) >= least
    built_here = build(base, factory=factory)
    assert recall(built_here.search(unseen, 10, EVERYTHING)[0], true) >= least
    assert built_here.served_by == here.served_by


@pytest.mark.parametrize(("factory", "least"), LAYOUTS)
def test_what_was_built_without_a_gpu_is_moved_to_one(factory, least, base, unseen, tmp_path, device) -> None:
    device(None, "CUDA finds none")
    engine = build(base, factory=factory)
    found = device(CpuGpus())
    moved = reload(engine, base, DOT, tmp_path)
    assert found.allocated
    assert moved.served_by == "faiss_gpu (on a GPU)"
    assert recall(moved.search(unseen, 10, EVERYTHING)[0], truth(base, unseen, 10)[0]) >= least


def test_a_half_precision_flat_index_finds_nearly_the_same(base, unseen) -> None:
    engine = build(base, factory="Flat", precision="FLOAT16")
    assert recall(engine.search(unseen, 10, EVERYTHING)[0], truth(base, unseen, 10)[0]) >= 0.98


def test_l1_is_for_flat_alone(base, unseen, device) -> None:
    rows, distances = build(base, L1).search(unseen, 5, EVERYTHING)
    true, expected = truth(base, unseen, 5, L1)
    np.testing.assert_array_equal(rows, true)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    with pytest.raises(InvalidArgument, match="L1_DISTANCE is known to Flat alone"):
        build(base, L1, factory="IVF30,Flat")


def test_an_index_too_large_says_what_it_needs_and_allocates_nothing(base, tmp_path, device) -> None:
    engine = build(base, factory="IVF30,Flat")
    found = device(CpuGpus(free=1_000_000))
    with pytest.raises(ResourceExhausted, match=r"Flat of 3000 × 16 needs \d+ bytes on GPU 0, where 1000000"):
        build(base, factory="Flat")
    engine.save(tmp_path, tmp_path / "vectors.npy")
    with pytest.raises(ResourceExhausted, match="IVF30,Flat of 3000 × 16 needs"):
        FaissGpuEngine.load(tmp_path, tmp_path / "vectors.npy", base, DOT, engine.parameters)
    with pytest.raises(ResourceExhausted, match="0 bytes can be had on the GPUs; 3000 datapoints of 16 dim"):
        FaissGpuEngine.choose(3000, 16, DOT)
    assert found.allocated == []


def test_parts_need_half_the_memory_that_replicas_do(base, device) -> None:
    needed = FaissGpuParameters().memory(1_000_000, 128)
    scratch = CpuGpus().memory(0).scratch
    for replicate, fits in ((False, True), (True, False)):
        found = CpuGpus(2, free=scratch + needed * 2 // 3)
        vectors = np.broadcast_to(np.float32(0), (1_000_000, 128))
        parameters = FaissGpuParameters(replicate=replicate)
        if fits:
            check_memory(found, [0, 1], parameters, vectors)
        else:
            with pytest.raises(ResourceExhausted, match="on GPU 0"):
                check_memory(found, [0, 1], parameters, vectors)


@pytest.mark.parametrize(
    ("budget", "factory", "precision"),
    [
        (None, "Flat", "FLOAT32"),
        (600 << 20, "Flat", "FLOAT32"),
        (330 << 20, "IVF4000,SQfp16", "FLOAT32"),
        (100 << 20, "IVF4000,PQ64,RFlat", "FLOAT32"),
    ],
)
def test_a_budget_of_memory_chooses_the_layout(budget, factory, precision, device) -> None:
    assert FaissGpuEngine.choose(1_000_000, 128, DOT, budget) == FaissGpuParameters(factory, precision)


def test_what_a_gpu_reads_too_slowly_is_partitioned(device) -> None:
    device(CpuGpus(free=1 << 40))
    assert FaissGpuEngine.choose(100_000_000, 128, DOT) == FaissGpuParameters("IVF40000,Flat")
    assert FaissGpuEngine.choose(100_000_000, 128, L1) == FaissGpuParameters("Flat")


def test_a_budget_too_small_says_what_is_needed(device) -> None:
    with pytest.raises(InvalidArgument, match="memory_budget is 1000 bytes; 3000 datapoints of 16 dim"):
        FaissGpuEngine.choose(3000, 16, DOT, 1000)


def test_without_a_gpu_what_a_cpu_serves_well_is_chosen(device) -> None:
    device(None, "none")
    assert FaissGpuEngine.choose(1_000_000, 128, DOT) == FaissGpuParameters("IVF4000,Flat")
    assert FaissGpuEngine.choose(999, 128, DOT) is None


@pytest.mark.parametrize("factory", ["IVF30,Flat", "CAGRA8"])
def test_more_leaves_find_more(factory, base, unseen, device) -> None:
    engine = build(base, factory=factory)
    true, _ = truth(base, unseen, 10)
    few, many = (recall(engine.search(unseen, 10, QueryParameters(n, 10))[0], true) for n in (1, 300))
    assert few < many
    assert many > 0.9


def test_more_candidates_mend_the_codes(base, unseen, device) -> None:
    engine = build(base, factory="IVF10,PQ2,RFlat")
    true, _ = truth(base, unseen, 10)
    few, many = (recall(engine.search(unseen, 10, QueryParameters(10, n))[0], true) for n in (10, 500))
    assert few < 0.9 < many
    assert engine.rescores
    assert not build(base, factory="IVF10,Flat").rescores


@pytest.mark.parametrize(("factory", "k"), [("Flat", 2500), ("IVF30,Flat", 2049), ("CAGRA32", 513)])
def test_more_neighbors_than_a_gpu_selects_are_found_exactly(factory, k, base, unseen, device) -> None:
    engine = build(base, factory=factory)
    rows, _ = engine.search(unseen[:3], k, QueryParameters(1, 10))
    np.testing.assert_array_equal(rows, truth(base, unseen[:3], k)[0])


def test_too_few_in_the_leaves_visited_shows_as_minus_one(base, unseen, device) -> None:
    rows, distances = build(base, factory="IVF30,Flat").search(unseen[:3], 2000, QueryParameters(1, 10))
    assert (rows[:, -1] == -1).all()
    np.testing.assert_array_equal(np.isnan(distances), rows < 0)


def test_many_queries_go_in_blocks_and_none_bring_none(base, unseen, device, monkeypatch) -> None:
    engine = build(base, factory="IVF30,Flat")
    whole = engine.search(unseen, 7, EVERYTHING)
    monkeypatch.setattr(faiss_gpu, "_QUERIES_AT_ONCE", 13)
    parts = engine.search(unseen, 7, EVERYTHING)
    np.testing.assert_array_equal(whole[0], parts[0])
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-5)
    assert engine.search(unseen[:0], 7, EVERYTHING)[0].shape == (0, 7)


@pytest.mark.parametrize(("devices", "replicate", "most"), [(1, False, 1), (3, True, 3)])
def test_a_copy_serves_one_thread_at_a_time(devices, replicate, most, base, unseen, device) -> None:
    device(CpuGpus(3))
    engine = build(base, factory="IVF30,Flat", devices=devices, replicate=replicate)
    lock, inside, seen = threading.Lock(), [], []

    class Watched:
        def __init__(self, index: Any) -> None:
            self.index = index

        def search(self, *arguments: Any, **named: Any) -> Any:
            with lock:
                assert self not in inside
                inside.append(self)
                seen.append(len(inside))
            try:
                threading.Event().wait(0.002)
                return self.index.search(*arguments, **named)
            finally:
                with lock:
                    inside.remove(self)

    copies = [engine._copies.get() for _ in range(most)]
    for copy in copies:
        engine._copies.put(replace(copy, whole=Watched(copy.whole)))
    expected = truth(base, unseen, 5)[0]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: engine.search(unseen, 5, EVERYTHING)[0], range(64)))
    assert all(np.array_equal(rows, expected) for rows in answers)
    assert max(seen) == most


@pytest.mark.parametrize(
    ("message", "kind", "said"),
    [
        ("cudaMalloc error out of memory", ResourceExhausted, "the GPU's memory is full"),
        ("something else", Internal, "Faiss failed on a valid query: something else"),
    ],
)
def test_a_failing_search_is_told_and_leaves_the_copy_usable(
    message, kind, said, base, unseen, device
) -> None:
    engine = build(base, factory="Flat")
    copy = engine._copies.get()

    class Broken:
        def search(self, *arguments: Any, **named: Any) -> Any:
            raise RuntimeError(message)

    engine._copies.put(replace(copy, whole=Broken()))
    for _ in range(2):
        with pytest.raises(kind, match=said):
            engine.search(unseen, 3, EVERYTHING)


@pytest.mark.parametrize("factory", ["HNSW32", "IVF30,PQ8x4fs", "IVF30,PQ5", "PCA8,Flat", "Flat,RFlat", ""])
def test_a_layout_that_no_gpu_searches_is_refused(factory, base, device) -> None:
    with pytest.raises(InvalidArgument, match="factory is"):
        build(base, factory=factory)


def test_parameters_that_faiss_refuses_are_refused(base, device) -> None:
    with pytest.raises(InvalidArgument, match="Faiss refuses"):
        build(base, factory="IVF5000,Flat")
    with pytest.raises(InvalidArgument, match="precision is 'INT4'; it must be FLOAT32 or FLOAT16"):
        build(base, precision="INT4")
    with pytest.raises(InvalidArgument, match="devices is 2; this machine has 1 GPUs"):
        build(base, devices=2)


def test_an_index_of_more_gpus_than_there_are_uses_those_there_are(base, unseen, tmp_path, device) -> None:
    device(CpuGpus(3))
    engine = build(base, factory="IVF30,Flat", devices=3)
    found = device(CpuGpus(2))
    again = reload(engine, base, DOT, tmp_path)
    assert set(found.allocated) == {0, 1}
    assert again.served_by == "faiss_gpu (in parts on 2 GPUs)"
    assert recall(again.search(unseen, 10, EVERYTHING)[0], truth(base, unseen, 10)[0]) == 1.0


def test_cagra_without_cuvs_is_searched_by_the_cpu(base, device) -> None:
    device(CpuGpus(has_cagra=False))
    engine = build(base, factory="CAGRA32")
    assert engine.served_by.startswith("faiss_cpu (no GPU: CAGRA needs a Faiss built with cuVS")


@pytest.mark.parametrize("damage", ["missing", "truncated", "other vectors"])
def test_a_damaged_file_is_refused(damage, base, tmp_path, device) -> None:
    engine = build(base, factory="IVF30,Flat")
    engine.save(tmp_path, tmp_path / "vectors.npy")
    path = tmp_path / "index.faiss"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    vectors = base[:-1] if damage == "other vectors" else base
    with pytest.raises(DataLoss, match=r"index\.faiss"):
        FaissGpuEngine.load(tmp_path, tmp_path / "vectors.npy", vectors, DOT, engine.parameters)


@pytest.mark.parametrize("engine", ["faiss_gpu", FaissGpuParameters("IVF8,SQ8,RFlat")])
def test_an_index_on_a_gpu_tunes_filters_and_opens_again(engine, base, unseen, tmp_path, device) -> None:
    tags = [f"tag-{row % 37}" for row in range(len(base))]
    colours = ["red" if row % 7 == 0 else "blue" for row in range(len(base))]
    index = Index.build(base, engine=engine, crowding_tags=tags, restricts={"colour": colours})
    assert index.manifest.engine.reason.endswith("; built on faiss_gpu (on a GPU)")
    index.save(tmp_path / "index")
    again = Index.open(tmp_path / "index")
    for options in ({}, {"target_recall": 0.99}, {"crowding": 1}, {"where": {"colour": "red"}}):
        before, after = index.search(unseen, 7, **options), again.search(unseen, 7, **options)
        assert recall(before.rows, after.rows) >= 0.99
    assert (again.search(unseen, 7, where={"colour": "red"}).rows % 7 == 0).all()
    assert again.measure_recall(unseen, 10).value >= 0.93
    assert again.explain(unseen[0]).engine == "faiss_gpu (on a GPU)"
    device(None, "CUDA finds none")
    opened = Index.open(tmp_path / "index")
    assert "(no GPU: CUDA finds none)" in opened.explain(unseen[0]).engine
    assert opened.measure_recall(unseen, 10).value >= 0.93


def test_why_faiss_has_no_gpu_is_told(monkeypatch) -> None:
    gpus.find_gpus.cache_clear()
    assert gpus.find_gpus() == (None, "the installed Faiss is faiss-cpu")

    def absent() -> Any:
        raise FailedPrecondition("not installed")

    def without_cuda() -> Any:
        raise RuntimeError("faiss-gpu installed but nvidia-cublas-cu12 is missing")

    for loader, reason in (
        (absent, "faiss-gpu is not installed"),
        (without_cuda, "faiss-gpu installed but nvidia-cublas-cu12 is missing"),
    ):
        monkeypatch.setattr(gpus, "faiss_module", loader)
        gpus.find_gpus.cache_clear()
        assert gpus.find_gpus() == (None, reason)
    gpus.find_gpus.cache_clear()
