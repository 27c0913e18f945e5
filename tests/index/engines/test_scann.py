from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from earshot.errors import DataLoss, InvalidArgument, ResourceExhausted
from earshot.index.distance import DistanceMeasure
from earshot.index.engines import ExactEngine, ExactParameters, QueryParameters, ScannEngine, ScannParameters
from earshot.index.engines.scann import _check_complete

DOT = DistanceMeasure.DOT_PRODUCT_DISTANCE
L2 = DistanceMeasure.SQUARED_L2_DISTANCE
EVERYTHING = QueryParameters(leaves=10_000, candidates=3000)


def build(vectors: np.ndarray, measure: DistanceMeasure = DOT, **changes) -> ScannEngine:
    changes = {"leaves": 30, "anisotropic_threshold": 0.2 if measure is DOT else None} | changes
    return ScannEngine.build(vectors, measure, ScannParameters(**changes), threads=1)


@pytest.fixture(scope="module")
def engine(base) -> ScannEngine:
    return build(base)


def recall(rows: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows, truth, strict=True)]))


@pytest.mark.parametrize("measure", [DOT, L2])
@pytest.mark.parametrize("reordering", ["FLOAT32", "BFLOAT16", "INT8"])
@pytest.mark.parametrize("soar", [None, 1.5])
def test_looking_everywhere_finds_what_exact_search_finds(measure, reordering, soar, base, unseen, tmp_path):
    if soar and measure is L2:
        pytest.skip("SOAR is for dot products")
    engine = build(base, measure, reordering=reordering, soar_lambda=soar)
    rows, distances = engine.search(unseen, 10, EVERYTHING)
    truth, expected = ExactEngine.build(base, measure, ExactParameters(), threads=1).search(unseen, 10)
    assert recall(rows, truth) >= {"FLOAT32": 1.0, "BFLOAT16": 0.97, "INT8": 0.95}[reordering]
    np.testing.assert_allclose(
        distances, expected, atol={"FLOAT32": 1e-5, "BFLOAT16": 0.02, "INT8": 0.03}[reordering]
    )
    (tmp_path / "engine").mkdir()
    engine.save(tmp_path / "engine", tmp_path / "vectors.npy")
    assert (tmp_path / "vectors.npy").exists() == (reordering == "FLOAT32")
    if reordering != "FLOAT32":
        np.save(tmp_path / "vectors.npy", base)
    again = ScannEngine.load(tmp_path / "engine", tmp_path / "vectors.npy", base, measure, engine.parameters)
    np.testing.assert_array_equal(again.search(unseen, 10, EVERYTHING)[0], rows)


@pytest.mark.parametrize(
    ("count", "target", "leaves"),
    [
        (200_000, 0.5, 448),
        (200_000, 0.95, 448),
        (200_000, 0.98, 664),
        (200_000, 0.99, 895),
        (200_000, 1.0, 895),
        (1000, 0.99, 25),  # 40 vectors each
    ],
)
def test_more_recall_asks_for_more_leaves(count, target, leaves) -> None:
    chosen = ScannEngine.choose(count, 128, DOT, target_recall=target)
    assert chosen is not None
    assert chosen.leaves == leaves


def test_a_saved_engine_works_wherever_its_folder_moves(engine, base, unseen, tmp_path) -> None:
    first = tmp_path / "first" / "engine"
    first.mkdir(parents=True)
    engine.save(first, first.parent / "vectors.npy")
    np.testing.assert_array_equal(np.load(first.parent / "vectors.npy"), base)
    assert str(tmp_path) not in "".join(path.read_text("latin-1") for path in first.iterdir())
    shutil.move(tmp_path / "first", tmp_path / "second")
    moved = tmp_path / "second"
    again = ScannEngine.load(moved / "engine", moved / "vectors.npy", base, DOT, engine.parameters)
    parameters = QueryParameters(5, 50)
    np.testing.assert_array_equal(
        again.search(unseen, 10, parameters)[0], engine.search(unseen, 10, parameters)[0]
    )


def test_a_pickle_laid_beside_the_engine_is_not_read(engine, base, tmp_path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    engine.save(folder, tmp_path / "vectors.npy")
    marker = tmp_path / "executed"
    (folder / "scann_docids.pkl").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    ScannEngine.load(folder, tmp_path / "vectors.npy", base, DOT, engine.parameters)
    assert not marker.exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../../other/vectors.npy", "../vectors.npy/x"])
def test_assets_outside_the_index_are_refused(path, engine, base, tmp_path) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    engine.save(folder, tmp_path / "vectors.npy")
    assets = folder / "scann_assets.pbtxt"
    assets.write_text(assets.read_text().replace("ah_codebook.pb", path))
    with pytest.raises(DataLoss, match="which is not a file of this index"):
        ScannEngine.load(folder, tmp_path / "vectors.npy", base, DOT, engine.parameters)


@pytest.mark.parametrize("queries", [1, 3])
def test_too_few_in_the_leaves_visited_shows_as_minus_one(queries, engine, unseen) -> None:
    rows, distances = engine.search(unseen[:queries], 2000, QueryParameters(1, 10))
    assert rows.shape == (queries, 2000)
    assert (rows[:, 0] >= 0).all()
    assert (rows[:, -1] == -1).all()
    np.testing.assert_array_equal(np.isnan(distances), rows < 0)
    for found in rows:
        present = found[found >= 0]
        assert len(set(present.tolist())) == len(present)


def test_fewer_candidates_than_k_still_bring_k(engine, unseen) -> None:
    rows, _ = engine.search(unseen, 50, QueryParameters(30, 1))
    assert (rows >= 0).all()


def test_one_by_one_and_batched_agree(engine, unseen) -> None:
    batched, _ = engine.search(unseen, 10, QueryParameters(5, 100))
    single = np.concatenate([engine.search(unseen[[i]], 10, QueryParameters(5, 100))[0] for i in range(100)])
    assert recall(single, batched) > 0.98


@pytest.mark.parametrize(
    "vectors",
    [
        np.ones((1500, 8), np.float32),
        np.zeros((1500, 8), np.float32),
        np.repeat(np.eye(2, 8, dtype=np.float32), 750, axis=0),
        np.random.default_rng(0).standard_normal((1500, 1)).astype(np.float32),
        np.random.default_rng(0).standard_normal((1500, 3)).astype(np.float32),
    ],
    ids=["all equal", "all zero", "two distinct", "one dimension", "three dimensions"],
)
@pytest.mark.parametrize("measure", [DOT, L2])
def test_odd_data_is_searched_like_any(vectors, measure) -> None:
    engine = build(vectors, measure)
    rows, distances = engine.search(vectors[:5], 10, EVERYTHING)
    _, expected = ExactEngine.build(vectors, measure, ExactParameters(), threads=1).search(vectors[:5], 10)
    assert (rows >= 0).all()
    np.testing.assert_allclose(distances, expected, atol=1e-5)


@pytest.mark.parametrize("changes", [{"leaves": 0}, {"leaves": 3001}, {"reordering": "FLOAT8"}])
def test_parameters_that_cannot_be_built_are_refused(changes, base) -> None:
    with pytest.raises(InvalidArgument):
        build(base, **changes)


def test_searches_from_many_threads_agree(engine, unseen) -> None:
    expected = engine.search(unseen, 10, QueryParameters(5, 50))[0]

    def ask(_: int) -> bool:
        return np.array_equal(engine.search(unseen, 10, QueryParameters(5, 50))[0], expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize("missing", [1, 500])
def test_a_short_write_of_scann_is_noticed(missing, tmp_path) -> None:
    path = tmp_path / "dataset.npy"
    np.save(path, np.zeros(100, np.float32))
    _check_complete(path)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ResourceExhausted, match="not written whole"):
        _check_complete(path)


@pytest.mark.parametrize(
    ("budget", "reordering"),
    [(None, "FLOAT32"), (270_000, "FLOAT32"), (150_000, "BFLOAT16"), (90_000, "INT8")],
)
def test_a_budget_of_memory_chooses_the_finest_precision_that_fits(budget, reordering, base) -> None:
    count, dimension = base.shape
    chosen = ScannEngine.choose(count, dimension, DOT, budget)
    assert chosen is not None
    assert chosen.reordering == reordering
    assert budget is None or chosen.memory(count, dimension) <= budget


def test_the_budget_counts_what_the_engine_keeps(base, tmp_path) -> None:
    for reordering in ("FLOAT32", "BFLOAT16", "INT8"):
        engine = build(base, reordering=reordering)
        folder = tmp_path / reordering / "engine"
        folder.mkdir(parents=True)
        engine.save(folder, folder.parent / "vectors.npy")
        # On disk a byte holds one code, in memory two.
        written = sum(
            path.stat().st_size // (2 if path.name.startswith("hashed") else 1)
            for path in folder.parent.rglob("*")
            if path.suffix == ".npy" or path.name == "serialized_partitioner.pb"
        )
        assert written == pytest.approx(engine.parameters.memory(*base.shape), rel=0.1)


def test_of_few_dimensions_each_has_a_code() -> None:
    chosen = [ScannEngine.choose(5000, dimension, DOT) for dimension in (1, 32, 33, 4096)]
    assert [parameters and parameters.dimensions_per_block for parameters in chosen] == [1, 1, 2, 2]


@pytest.mark.parametrize("dimension", [1, 2, 17, 384])
@pytest.mark.parametrize("measure", [DOT, L2])
def test_a_tree_over_the_fewest_datapoints_finds_nearly_all(dimension, measure) -> None:
    vectors = np.random.default_rng(0).standard_normal((250, dimension)).astype(np.float32)
    parameters = ScannEngine.choose(250, dimension, measure)
    assert parameters is not None
    engine = ScannEngine.build(vectors, measure, parameters, threads=1)
    rows, _ = engine.search(vectors[:50], 10, QueryParameters(engine.leaves, 60))
    truth, _ = ExactEngine.build(vectors, measure, ExactParameters(), threads=1).search(vectors[:50], 10)
    assert recall(rows, truth) > 0.98
