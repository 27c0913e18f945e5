from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted
from earshot.index import FaissParameters, Index
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, ExactParameters, FaissEngine, QueryParameters

DOT = DistanceMeasure.DOT_PRODUCT_DISTANCE
L2 = DistanceMeasure.SQUARED_L2_DISTANCE
EVERYTHING = QueryParameters(leaves=10_000, candidates=3000)


def build(vectors: np.ndarray, factory: str, measure: DistanceMeasure = DOT) -> FaissEngine:
    return FaissEngine.build(vectors, measure, FaissParameters(factory), threads=2)


def recall(rows: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows, truth, strict=True)]))


@pytest.mark.parametrize("measure", [DOT, L2])
@pytest.mark.parametrize(
    ("factory", "least"),
    [
        ("IVF30,PQ8x4fs,RFlat", 1.0),
        ("IVF30,PQ8x4fs,Refine(SQfp16)", 0.97),
        ("IVF30,Flat", 1.0),
        ("HNSW16", 0.98),
        ("HNSW16,SQ8", 0.93),
        ("PCA12,IVF30,PQ6x4fs,RFlat", 1.0),
        ("PCA12,HNSW16", 0.4),
        ("SQ8", 0.95),
        ("Flat", 1.0),
    ],
)
def test_any_factory_string_finds_saves_and_loads(factory, least, measure, base, unseen, tmp_path) -> None:
    engine = build(base, factory, measure)
    rows, distances = engine.search(unseen, 10, EVERYTHING)
    truth, expected = ExactEngine.build(base, measure, ExactParameters(), threads=1).search(unseen, 10)
    assert recall(rows, truth) >= least
    if least == 1.0:
        np.testing.assert_allclose(distances, expected, atol=1e-5)
    engine.save(tmp_path, tmp_path / "vectors.npy")
    again = FaissEngine.load(tmp_path, tmp_path / "vectors.npy", base, measure, engine.parameters)
    np.testing.assert_array_equal(again.search(unseen, 10, EVERYTHING)[0], rows)
    assert again.leaves == engine.leaves


@pytest.mark.parametrize("factory", ["IVF50,PQ8x4fs,RFlat", "RR16,IVF50,Flat", "HNSW8"])
def test_more_leaves_find_more(factory, base, unseen) -> None:
    engine = build(base, factory)
    truth, _ = ExactEngine.build(base, DOT, ExactParameters(), threads=1).search(unseen, 20)
    few, many = (recall(engine.search(unseen, 20, QueryParameters(n, 400))[0], truth) for n in (1, 50))
    assert few < many
    assert many > 0.97


def test_more_candidates_mend_the_codes(base, unseen) -> None:
    engine = build(base, "IVF10,PQ4x4fs,RFlat")
    truth, _ = ExactEngine.build(base, DOT, ExactParameters(), threads=1).search(unseen, 10)
    few, many = (recall(engine.search(unseen, 10, QueryParameters(10, n))[0], truth) for n in (10, 300))
    assert few < 0.9 < many
    assert engine.rescores
    assert not build(base, "IVF10,Flat").rescores


@pytest.mark.parametrize("queries", [1, 3])
def test_too_few_in_the_leaves_visited_shows_as_minus_one(queries, base, unseen) -> None:
    rows, distances = build(base, "IVF30,Flat").search(unseen[:queries], 2000, QueryParameters(1, 10))
    assert (rows[:, 0] >= 0).all()
    assert (rows[:, -1] == -1).all()
    np.testing.assert_array_equal(np.isnan(distances), rows < 0)


def test_no_queries_bring_no_rows(base) -> None:
    rows, distances = build(base, "Flat").search(base[:0], 3, EVERYTHING)
    assert rows.shape == distances.shape == (0, 3)


@pytest.mark.parametrize("dimension", [1, 7, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 16))])
@pytest.mark.parametrize("measure", ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE"])
def test_the_preset_takes_any_dimension_and_measure(dimension, measure, capfd) -> None:
    vectors = np.random.default_rng(0).standard_normal((1200, dimension)).astype(np.float32)
    index = Index.build(vectors, engine="faiss_cpu", distance_measure=measure)
    assert index.manifest.engine.parameters["factory"].startswith("IVF30,PQ")
    assert index.measure_recall(vectors[:200], 10).value >= 0.93
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("parameters", ["faiss_cpu", FaissParameters.hnsw()])
def test_an_index_on_faiss_answers_as_before_when_opened_again(parameters, base, unseen, tmp_path) -> None:
    index = Index.build(base, engine=parameters)
    index.save(tmp_path / "index")
    again = Index.open(tmp_path / "index")
    assert again.manifest.engine.name == "faiss_cpu"
    for options in ({}, {"target_recall": 0.99}, {"fraction_leaf_nodes_to_search": 0.2}, {"crowding": 1}):
        before, after = index.search(unseen, 7, **options), again.search(unseen, 7, **options)
        np.testing.assert_array_equal(before.rows, after.rows)
    assert index.measure_recall(unseen, 10).value >= 0.93


def test_too_few_datapoints_are_searched_exactly(base) -> None:
    entry = Index.build(base[:999], engine="faiss_cpu").manifest.engine
    assert (entry.name, entry.reason) == ("exact", "999 datapoints are too few for faiss_cpu")


@pytest.mark.parametrize(
    ("budget", "ending"), [(10_000_000, "RFlat"), (150_000, "Refine(SQfp16)"), (100_000, "Refine(SQ8)")]
)
def test_a_budget_of_memory_chooses_the_refinement(budget, ending, base) -> None:
    chosen = FaissEngine.choose(len(base), base.shape[1], DOT, budget)
    assert chosen is not None
    assert chosen.factory.endswith(ending)


def test_a_budget_too_small_says_what_is_needed() -> None:
    with pytest.raises(
        InvalidArgument, match="memory_budget is 1000 bytes; 3000 datapoints need at least 84"
    ):
        FaissEngine.choose(3000, 16, DOT, 1000)


@pytest.mark.parametrize("factory", ["IVF5000,Flat", "PQ5x4fs", "nonsense", "IDMap,Flat", ""])
def test_a_factory_string_that_cannot_be_built_is_refused(factory, base) -> None:
    with pytest.raises(InvalidArgument, match="Faiss refuses"):
        build(base, factory)


def test_without_the_package_the_extra_is_named(base, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(FailedPrecondition, match=r"pip install 'earshot\[faiss\]'"):
        build(base, "Flat")


@pytest.mark.parametrize("damage", ["missing", "truncated", "other vectors"])
def test_a_damaged_file_is_refused(damage, base, tmp_path) -> None:
    engine = build(base, "IVF30,Flat")
    engine.save(tmp_path, tmp_path / "vectors.npy")
    path = tmp_path / "index.faiss"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    vectors = base[:-1] if damage == "other vectors" else base
    with pytest.raises(DataLoss, match=r"index\.faiss"):
        FaissEngine.load(tmp_path, tmp_path / "vectors.npy", vectors, DOT, engine.parameters)


def test_a_folder_that_cannot_be_written_is_an_error(base, tmp_path) -> None:
    with pytest.raises(ResourceExhausted, match="could not write"):
        build(base, "Flat").save(tmp_path / "absent", tmp_path / "vectors.npy")


def test_searches_from_many_threads_agree(base, unseen) -> None:
    engine = build(base, "IVF30,PQ8x4fs,RFlat")
    expected = engine.search(unseen, 10, QueryParameters(5, 50))[0]

    def ask(_: int) -> bool:
        return np.array_equal(engine.search(unseen, 10, QueryParameters(5, 50))[0], expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))
