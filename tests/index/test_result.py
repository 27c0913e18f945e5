"""What a search brings back: arrays, ids, and as much of the metadata as is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from earshot.errors import InvalidArgument
from earshot.index import Index, ScannParameters

METADATA: list[dict[str, Any] | None] = [
    {"title": "Bread", "year": 2020, "show": "Kitchen"},
    {"title": "Grid", "score": "high"},
    None,
    {"title": "Choir", "year": 2024},
]


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.build(np.eye(4, dtype=np.float32), ["bread", "grid", "none", "choir"], metadata=METADATA)


def test_selected_fields_are_all_that_comes(index: Index) -> None:
    found = index.search(np.array([4, 3, 2, 1]), k=4)
    assert found.ids == [["bread", "grid", "none", "choir"]]
    assert found.select(["year", "title"]) == [
        [{"year": 2020, "title": "Bread"}, {"title": "Grid"}, None, {"year": 2024, "title": "Choir"}]
    ]
    assert found.select([]) == [[{}, {}, None, {}]]
    assert found.metadata == [METADATA]


def test_read_takes_fields_too(index: Index) -> None:
    choir, none = index.read(["choir", "none"], fields=["year"])
    assert choir.metadata == {"year": 2024}
    assert none.metadata is None


def test_one_string_is_not_a_list_of_fields(index: Index) -> None:
    found = index.search(np.ones(4), k=1)
    with pytest.raises(InvalidArgument, match="list of strings"):
        found.select("title")
    with pytest.raises(InvalidArgument, match="list of strings"):
        index.read(["bread"], fields="title")


def test_fields_become_columns(index: Index) -> None:
    table = index.search(np.array([[4, 3, 2, 1], [1, 2, 3, 4]]), k=2).to_arrow(["title", "year", "score"])
    assert table.column_names == [
        "query",
        "rank",
        "id",
        "distance",
        "score",
        "title",
        "year",
        "metadata.score",
    ]
    assert table["id"].to_pylist() == ["bread", "grid", "choir", "none"]
    assert table["title"].to_pylist() == ["Bread", "Grid", "Choir", None]
    assert table["year"].to_pylist() == [2020, None, 2024, None]
    assert table["metadata.score"].to_pylist() == [None, "high", None, None]


def test_a_field_of_mixed_types_is_named() -> None:
    index = Index.build(np.eye(2, dtype=np.float32), metadata=[{"length": 3}, {"length": "three"}])
    with pytest.raises(InvalidArgument, match="'length'"):
        index.search(np.ones(2), k=2).to_arrow(["length"])


def test_a_data_frame_has_the_same_rows(index: Index) -> None:
    pandas = pytest.importorskip("pandas")
    frame = index.search(np.array([4, 3, 2, 1]), k=3).to_pandas(["title"])
    assert isinstance(frame, pandas.DataFrame)
    assert frame["id"].tolist() == ["bread", "grid", "none"]
    assert frame["distance"].tolist() == [4, 3, 2]
    assert frame["title"].tolist()[:2] == ["Bread", "Grid"]


@pytest.mark.parametrize("measure", ["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE"])
def test_rounded_distances_are_no_misses(measure, base, unseen) -> None:
    engine = ScannParameters(leaves=20, reordering="INT8")
    index = Index.build(3 * base, engine=engine, distance_measure=measure, tuning_queries=unseen)
    found, truth = index.search(unseen).rows, index.search(unseen, target_recall=1.0).rows
    true = sum(len(set(some) & set(others)) for some, others in zip(found, truth, strict=True))
    assert index.measure_recall(unseen).value == pytest.approx(true / truth.size, abs=1e-6)
