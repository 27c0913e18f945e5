"""The engine on a real device: what a stand-in cannot show."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest

from earshot.errors import ResourceExhausted
from earshot.index import FaissGpuParameters
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, FaissGpuEngine, QueryParameters, faiss_gpu
from earshot.index.engines.faiss_module import METRICS
from earshot.index.engines.gpu_copies import check_memory
from tests.index.engines.test_faiss_gpu import EVERYTHING, LAYOUTS, build, recall, reload, truth

pytestmark = pytest.mark.gpu
DOT = DistanceMeasure.DOT_PRODUCT_DISTANCE
L1 = DistanceMeasure.L1_DISTANCE
L2 = DistanceMeasure.SQUARED_L2_DISTANCE
ROUNDED = 0.02  # distances come from float16 in places, or from a GPU's order of summation


def needs(factory: str, gpus) -> None:
    if factory.startswith("CAGRA") and not gpus.has_cagra:
        pytest.skip("this Faiss was built without cuVS: install faiss-gpu-cuvs in the place of faiss-gpu")


@pytest.mark.parametrize("measure", [DOT, L2])
@pytest.mark.parametrize(("factory", "least"), LAYOUTS)
@pytest.mark.parametrize("replicate", [False, True], ids=["parts", "replicas"])
def test_every_layout_finds_saves_and_loads_on_all_gpus(
    replicate, factory, least, measure, base, unseen, tmp_path, gpus
) -> None:
    needs(factory, gpus)
    engine = build(base, measure, factory=factory, replicate=replicate)
    assert engine.on_device
    rows, distances = engine.search(unseen, 10, EVERYTHING)
    true, expected = truth(base, unseen, 10, measure)
    assert recall(rows, true) >= least - 0.01
    np.testing.assert_allclose(np.sort(distances), np.sort(expected), atol=ROUNDED)
    again = reload(engine, base, measure, tmp_path)
    assert recall(again.search(unseen, 10, EVERYTHING)[0], rows) >= 0.98


@pytest.mark.parametrize(("factory", "least"), LAYOUTS)
def test_versions_travel_between_gpu_and_cpu(
    factory, least, base, unseen, tmp_path, gpus, monkeypatch
) -> None:
    needs(factory, gpus)
    (tmp_path / "from gpu").mkdir()
    (tmp_path / "from cpu").mkdir()
    engine = build(base, factory=factory)
    true, _ = truth(base, unseen, 10)
    with monkeypatch.context() as patch:
        patch.setattr(faiss_gpu, "find_gpus", lambda: (None, "hidden for the test"))
        here = reload(engine, base, DOT, tmp_path / "from gpu")
        assert here.served_by.endswith("(no GPU: hidden for the test)")
        assert recall(here.search(unseen, 10, EVERYTHING)[0], true) >= least - 0.01
        built_here = build(base, factory=factory)
        built_here.save(tmp_path / "from cpu", tmp_path / "vectors.npy")
    moved = FaissGpuEngine.load(
        tmp_path / "from cpu", tmp_path / "vectors.npy", base, DOT, built_here.parameters
    )
    assert moved.on_device
    assert recall(moved.search(unseen, 10, EVERYTHING)[0], true) >= least - 0.01


def test_float16_finds_nearly_the_same(base, unseen) -> None:
    rows, _ = build(base, precision="FLOAT16").search(unseen, 10, EVERYTHING)
    assert recall(rows, truth(base, unseen, 10)[0]) >= 0.98


@pytest.mark.parametrize("measure", [DOT, L2])
def test_float16_is_searched_by_kernels_of_our_own(measure, base, unseen, gpus) -> None:
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    metric = getattr(gpus.faiss, METRICS[measure])
    fused = gpus.fused(0, base, metric)
    assert fused is not None, "they do not run on this GPU; the log says why"
    faiss = gpus.flat(0, base.shape[1], metric, half=True)
    faiss.add(base)
    for count, k in ((1, 1), (17, 10), (len(unseen), 100)):
        distances, rows = fused.search(unseen[:count], k)
        expected, again = faiss.search(unseen[:count], k)
        assert recall(rows, again) >= 0.98
        np.testing.assert_allclose(distances, expected, atol=ROUNDED)


def test_l1(base, unseen) -> None:
    rows, distances = build(base, L1).search(unseen, 5, EVERYTHING)
    true, expected = truth(base, unseen, 5, L1)
    assert recall(rows, true) >= 0.99
    np.testing.assert_allclose(distances, expected, rtol=1e-4)


@pytest.mark.parametrize("k", [1, 100, 2048, 2049])
@pytest.mark.parametrize("factory", ["Flat", "IVF30,Flat"])
def test_any_number_of_neighbors(factory, k, base, unseen) -> None:
    rows, _ = build(base, factory=factory).search(unseen, k, EVERYTHING)
    assert recall(rows, truth(base, unseen, k)[0]) >= 0.999


@pytest.mark.parametrize(
    "parameters",
    [
        FaissGpuParameters(),
        FaissGpuParameters(precision="FLOAT16"),
        FaissGpuParameters("IVF1000,Flat"),
        FaissGpuParameters("IVF1000,SQfp16"),
        FaissGpuParameters("IVF1000,PQ32"),
    ],
    ids=lambda parameters: f"{parameters.factory} {parameters.precision}",
)
def test_the_estimate_of_memory_holds_and_is_not_wasteful(parameters, gpus) -> None:
    vectors = np.random.default_rng(0).standard_normal((1_000_000, 128), dtype=np.float32)
    before = gpus.memory(0).free
    engine = FaissGpuEngine.build(vectors, DOT, parameters, threads=8)
    engine.search(vectors[:1000], 10, QueryParameters(8, 10))
    taken = before - gpus.memory(0).free
    estimate = parameters.memory(*vectors.shape) + 2 * gpus.memory(0).scratch
    assert taken <= estimate
    print(f"{parameters.factory} {parameters.precision}: {taken:,} bytes taken, {estimate:,} estimated")


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
def test_what_an_index_took_is_free_once_it_is_gone(precision, gpus) -> None:
    vectors = np.random.default_rng(0).standard_normal((1_000_000, 128), dtype=np.float32)
    size = vectors.nbytes // (1 if precision == "FLOAT32" else 2)
    build(vectors[:1000], precision=precision)  # what stays: kernels, and what libraries set aside
    gc.collect()
    before = gpus.memory(0).free
    engine = build(vectors, precision=precision)
    engine.search(vectors[:1000], 10, EVERYTHING)
    assert before - gpus.memory(0).free >= size
    del engine
    gc.collect()
    assert before - gpus.memory(0).free < size / 2


def test_too_large_an_index_is_refused_before_it_allocates(gpus) -> None:
    before = gpus.memory(0)
    vectors = np.broadcast_to(np.float32(0), (before.total // 256, 128))
    with pytest.raises(ResourceExhausted, match=r"needs \d+ bytes on GPU 0"):
        check_memory(gpus, [0], FaissGpuParameters(), vectors)
    assert gpus.memory(0).free == before.free


@pytest.mark.parametrize("factory", ["Flat", "IVF30,Flat", "IVF30,PQ2,RFlat"])
def test_searches_from_many_threads_agree(factory, base, unseen) -> None:
    engine = build(base, factory=factory)
    expected = engine.search(unseen, 10, EVERYTHING)[0]

    def ask(_: int) -> float:
        return recall(engine.search(unseen, 10, EVERYTHING)[0], expected)

    with ThreadPoolExecutor(8) as pool:
        assert min(pool.map(ask, range(200))) >= 0.999


def test_large_batches_equal_small_ones(base) -> None:
    queries = np.random.default_rng(5).standard_normal((20_000, base.shape[1])).astype(np.float32)
    engine = build(base, factory="Flat")
    rows, _ = engine.search(queries, 10, EVERYTHING)
    small = np.concatenate([engine.search(part, 10, EVERYTHING)[0] for part in np.array_split(queries, 40)])
    assert recall(rows, small) >= 0.999
    assert recall(rows, ExactEngine(base, DOT).search_rows(queries, None, 10)[0]) >= 0.999
