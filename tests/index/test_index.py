from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from earshot.index import MAX_NEIGHBORS, ExactParameters, Index, ScannParameters


@pytest.mark.parametrize(
    "measure", ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE", "L1_DISTANCE"]
)
@pytest.mark.parametrize("reordering", ["FLOAT32", "BFLOAT16", "INT8", None])
def test_a_saved_index_answers_as_before(measure, reordering, base, unseen, tmp_path) -> None:
    engine: str | ScannParameters
    if measure == "L1_DISTANCE":
        engine = "auto"
    else:
        engine = ScannParameters(leaves=40, reordering=reordering) if reordering else "exact"
    index = Index.build(3 * base, distance_measure=measure, engine=engine)
    written = index.save(tmp_path / "index", source={"rows": 3000})
    again = Index.open(tmp_path / "index")
    assert again.manifest == written
    assert again.manifest.source == {"rows": 3000}
    for options in ({}, {"target_recall": 1.0}, {"fraction_leaf_nodes_to_search": 0.2}, {"crowding": 1}):
        before, after = index.search(unseen, 7, **options), again.search(unseen, 7, **options)
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.distances, after.distances)


def test_the_vectors_lie_on_disk_once(scann_index, tmp_path) -> None:
    scann_index.save(tmp_path / "index")
    raw = scann_index.dimension * 4 * len(scann_index)
    holders = [
        path for path in (tmp_path / "index").rglob("*") if path.is_file() and path.stat().st_size >= raw
    ]
    assert [path.name for path in holders] == ["vectors.npy"]


@pytest.mark.parametrize("measure", ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE"])
@pytest.mark.parametrize("norm", ["NONE", "UNIT_L2_NORM"])
def test_read_gives_back_what_was_stored(measure, norm, base) -> None:
    vectors = base[:20] * np.arange(20, dtype=np.float32)[:, None]
    index = Index.build(
        vectors,
        [f"é{row}" for row in range(20)],
        crowding_tags=["even", None] * 10,
        metadata=[{"row": row} for row in range(20)],
        distance_measure=measure,
        feature_norm=norm,
    )
    points = index.read(["é7", "é0", "é7"])
    assert [point.id for point in points] == ["é7", "é0", "é7"]
    assert [point.crowding_tag for point in points] == [None, "even", None]
    assert [point.metadata for point in points] == [{"row": 7}, {"row": 0}, {"row": 7}]
    np.testing.assert_allclose(points[0].vector, vectors[7], rtol=1e-6)
    np.testing.assert_array_equal(points[1].vector, vectors[0])
    assert points[0].vector.dtype == np.float32
    alone = index.vectors(["é7", "é0", "é7"])
    assert alone.dtype == np.float32
    np.testing.assert_array_equal(alone, [point.vector for point in points])
    assert index.vectors([]).shape == (0, index.dimension)


def test_a_stored_datapoint_is_its_own_nearest_neighbor(scann_index) -> None:
    found = scann_index.search_ids(["id-5", "id-77"], 3)
    assert [ids[0] for ids in found.ids] == ["id-5", "id-77"]


@pytest.mark.parametrize("method", ["read", "vectors", "search_ids"])
def test_unknown_ids_are_named(method, scann_index) -> None:
    with pytest.raises(NotFound, match="the id 'x', 'y'"):
        getattr(scann_index, method)(["id-1", "x", "y"])
    with pytest.raises(NotFound, match="'n9' and 40 more"):
        getattr(scann_index, method)([f"n{i}" for i in range(50)])
    with pytest.raises(InvalidArgument, match="must be a list of strings"):
        getattr(scann_index, method)("id-1")
    with pytest.raises(InvalidArgument, match="holds 7"):
        getattr(scann_index, method)([7])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; it must be a whole number from 1 to 10000"),
        ({"k": MAX_NEIGHBORS + 1}, "k is 10001"),
        ({"k": 1.5}, "k is 1.5"),
        ({"k": True}, "k is True"),
        ({"k": "10"}, "k is '10'"),
        ({"target_recall": 0}, "target_recall is 0"),
        ({"target_recall": 1.01}, "target_recall is 1.01"),
        ({"target_recall": float("nan")}, "target_recall is nan"),
        ({"target_recall": 0.9, "approximate_neighbor_count": 50}, "target_recall chooses the parameters"),
        ({"fraction_leaf_nodes_to_search": 0}, "fraction_leaf_nodes_to_search is 0"),
        ({"fraction_leaf_nodes_to_search": 1.5}, "fraction_leaf_nodes_to_search is 1.5"),
        (
            {"approximate_neighbor_count": 9},
            "approximate_neighbor_count is 9; it must be a whole number from 10",
        ),
        ({"crowding": 0}, "crowding is 0"),
        ({"crowding": 1.0}, "crowding is 1.0"),
    ],
)
@pytest.mark.parametrize("engine", ["small_index", "scann_index"])
def test_a_bad_argument_is_named(options, message, engine, request) -> None:
    index = request.getfixturevalue(engine)
    with pytest.raises(InvalidArgument, match=message) as caught:
        index.search(np.ones(index.dimension), **options)
    assert caught.value.field in options


def test_numpy_numbers_are_taken_as_numbers(scann_index, unseen) -> None:
    found = scann_index.search(unseen, np.int32(3), target_recall=np.float32(0.9), crowding=np.int64(2))
    assert found.rows.shape == (100, 3)


@pytest.mark.parametrize("count", [1, 2, 9, 10, 249, 250, 1500])
def test_from_one_datapoint_up_every_size_can_be_asked_for_more_than_it_has(count, base) -> None:
    index = Index.build(base[:count])
    assert index.manifest.engine.name == ("exact" if count < 250 else "scann")
    found = index.search(base[:3], 10_000)
    assert found.rows.shape == (3, count)
    assert found.counts.tolist() == [count] * 3
    assert all(sorted(rows) == list(range(count)) for rows in found.rows.tolist())


def test_too_few_for_a_tree_is_said_in_the_manifest(base) -> None:
    entry = Index.build(base[:249], engine="scann").manifest.engine
    assert (entry.name, entry.reason) == ("exact", "249 datapoints are too few for scann")


def test_leaves_with_fewer_than_k_widen_until_k_are_found(scann_index, unseen) -> None:
    found = scann_index.search(
        unseen, 500, fraction_leaf_nodes_to_search=0.001, approximate_neighbor_count=500
    )
    assert found.rows.shape == (100, 500)
    assert (found.rows >= 0).all()


def test_experts_parameters_are_obeyed(scann_index, unseen) -> None:
    exact = scann_index.search(unseen, 10, target_recall=1.0).rows

    def recall(**options) -> float:
        rows = scann_index.search(unseen, 10, **options).rows
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, exact, strict=True)]))

    one_leaf = recall(fraction_leaf_nodes_to_search=0.001, approximate_neighbor_count=3000)
    few = recall(fraction_leaf_nodes_to_search=1.0, approximate_neighbor_count=10)
    everything = recall(fraction_leaf_nodes_to_search=1.0, approximate_neighbor_count=3000)
    assert one_leaf < everything
    assert few < everything
    assert everything == 1.0


def test_one_query_many_and_none(scann_index, unseen) -> None:
    assert len(scann_index.search(unseen[0])) == 1
    assert len(scann_index.search(unseen)) == 100
    empty = scann_index.search(unseen[:0])
    assert (len(empty), empty.ids) == (0, [])


def test_results_as_a_table(scann_index, unseen) -> None:
    found = scann_index.search(unseen[:2], 3)
    table = found.to_arrow()
    assert table.column_names == ["query", "rank", "id", "distance", "score"]
    assert table["query"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert table["rank"].to_pylist() == [1, 2, 3, 1, 2, 3]
    assert table["id"].to_pylist() == [name for names in found.ids for name in names]
    assert found.metadata[1][2] == {"row": int(found.rows[1, 2])}
    assert "2 queries × 3 neighbors" in repr(found)


def test_without_pandas_to_pandas_says_what_to_install(scann_index, unseen, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(FailedPrecondition, match="pip install pandas"):
        scann_index.search(unseen[0]).to_pandas()


def test_threads_may_search_one_index(scann_index, unseen) -> None:
    expected = scann_index.search(unseen, 10, crowding=2).ids

    def ask(_: int) -> bool:
        return scann_index.search(unseen, 10, crowding=2).ids == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(100)))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"distance_measure": "EUCLID"}, "distance_measure"),
        ({"feature_norm": "L2"}, "feature_norm"),
        ({"engine": "annoy"}, "engine"),
        ({"engine": object()}, "engine"),
        ({"engine": "scann", "distance_measure": "L1_DISTANCE"}, "engine"),
        ({"engine": ScannParameters(leaves=5000)}, "leaves"),
        ({"target_recall": 2}, "target_recall"),
        ({"memory_budget": 0}, "memory_budget"),
        ({"memory_budget": 1.5e9}, "memory_budget"),
        ({"memory_budget": 1000}, "memory_budget"),
        ({"memory_budget": 1 << 40, "engine": ScannParameters(leaves=40)}, "memory_budget"),
        ({"ids": ["a"]}, "ids"),
        ({"tuning_queries": np.ones((2, 3))}, "tuning_queries"),
        ({"tuning_queries": np.ones((0, 16))}, "tuning_queries"),
    ],
)
def test_a_build_that_cannot_be_is_refused_by_field(options, field, base) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Index.build(base, **options)
    assert caught.value.field == field


def test_progress_reports_every_stage(base) -> None:
    reports: list[tuple[str, int, int]] = []
    Index.build(base, progress=lambda *report: reports.append(report))
    assert reports[:2] == [("build", 0, 1), ("build", 1, 1)]
    assert reports[-1] == ("tune", 2, 2)


def test_given_parameters_go_into_the_manifest(base) -> None:
    assert Index.build(base, engine=ScannParameters(leaves=7)).manifest.engine.parameters["leaves"] == 7
    assert Index.build(base, engine=ExactParameters()).manifest.engine.name == "exact"


def test_a_folder_in_use_is_not_written_over(small_index, tmp_path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InvalidArgument, match="is not empty"):
        small_index.save(tmp_path)


def test_a_newer_format_is_refused(small_index, tmp_path) -> None:
    small_index.save(tmp_path / "index", format=2)
    with pytest.raises(FailedPrecondition, match="format 2; this program reads up to 1"):
        Index.open(tmp_path / "index")


def test_an_engine_this_program_lacks_is_named(small_index, tmp_path) -> None:
    from earshot.index.manifest import EngineEntry

    small_index.save(tmp_path / "index", engine=EngineEntry("another", {}, ""))
    with pytest.raises(DataLoss, match="'another', which this program does not have"):
        Index.open(tmp_path / "index")


def test_the_manifest_can_be_read_by_anyone(scann_index, tmp_path) -> None:
    scann_index.save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["count"] == 3000
    assert manifest["engine"]["name"] == "scann"
    assert manifest["tuning"]["chosen"]["recall"].keys() == {"value", "low", "high"}
    assert manifest["files"]["shard-00000/vectors.npy"].keys() == {"bytes", "xxh3_128"}


def test_sample_recall_is_measured_on_the_default_point(scann_index, small_index) -> None:
    assert 0.93 <= scann_index.sample_recall().value <= 1
    assert small_index.sample_recall().value == 1


def test_no_sample_counts_itself_as_found(scann_index) -> None:
    """At a point that finds little, itself would be a tenth of what there is to find."""
    points = [point for point in scann_index.manifest.tuning.points if point.k == 10]
    cheapest = min(points, key=lambda point: point.cost)
    tuning = msgspec.structs.replace(scann_index.manifest.tuning, target_recall=0.3, points=points)
    poor = Index(scann_index._shard, msgspec.structs.replace(scann_index.manifest, tuning=tuning))
    assert poor.sample_recall(sample=2000).value == pytest.approx(cheapest.recall.value, abs=0.03)
