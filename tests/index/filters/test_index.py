"""Filters through the whole index: build, save, open, search with `where`, with crowding, and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument
from earshot.index import Index, NumericRestrict, ScannParameters, TokenRestrict

COUNT = 3000


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(1).normal(size=(COUNT, 16)).astype(np.float32)


@pytest.fixture(scope="module", params=["DOT_PRODUCT_DISTANCE", "COSINE_DISTANCE", "SQUARED_L2_DISTANCE"])
def index(request, vectors):
    return Index.build(
        vectors,
        restricts={
            "language": ["de" if row % 3 == 0 else "en" for row in range(COUNT)],
            "year": np.arange(COUNT) % 50 + 1975,
        },
        crowding_tags=[f"show {row % 7}" for row in range(COUNT)],
        distance_measure=request.param,
        tuning_queries=vectors[:100],  # few, to be quick
    )


def is_german(row):
    return row % 3 == 0


def test_a_filtered_search_finds_the_nearest_that_pass(index, vectors):
    found = index.search(vectors[:20], 10, where={"language": "de", "year": {">=": 2000}}, target_recall=1)
    everything = index.search(vectors[:20], COUNT, target_recall=1)
    passing = [
        [row for row in rows if is_german(row) and row % 50 >= 25][:10] for rows in everything.rows.tolist()
    ]
    assert found.rows.tolist() == passing
    assert found.plan is not None
    assert found.plan.passing == sum(is_german(row) and row % 50 >= 25 for row in range(COUNT))


def test_a_search_without_a_filter_has_no_plan(index, vectors):
    assert index.search(vectors[:1], 3).plan is None


def test_fewer_matches_than_k_are_all_returned_and_none_gives_none(index, vectors):
    few = index.search(vectors[:4], 500, where={"language": "de", "year": 1975})
    assert few.distances.shape == (4, sum(is_german(row) and row % 50 == 0 for row in range(COUNT)))
    none = index.search(vectors[:4], 5, where={"language": "fr"})
    assert none.distances.shape == (4, 0)
    assert none.ids == [[]] * 4


def test_crowding_counts_only_what_passes(index, vectors):
    where = {"year": {"<": 1985}}
    ranked = index.search(vectors[:8], COUNT, where=where, target_recall=1).rows.tolist()
    expected = []
    for rows in ranked:
        seen: dict[int, int] = {}
        kept = []
        for row in rows:
            seen[row % 7] = seen.get(row % 7, 0) + 1
            if seen[row % 7] <= 2:
                kept.append(row)
        expected.append(kept[:12])
    found = index.search(vectors[:8], 12, where=where, crowding=2, target_recall=1)
    assert found.rows.tolist() == expected
    assert index.search(vectors[:8], 50, where={"language": "fr"}, crowding=1).distances.shape == (8, 0)


def test_a_saved_index_filters_alike_and_returns_restricts(index, vectors, tmp_path: Path):
    index.save(tmp_path / "saved")
    opened = Index.open(tmp_path / "saved")
    where = {"language": "de", "year": {"!=": 1980}}
    assert opened.search(vectors[:9], where=where).ids == index.search(vectors[:9], where=where).ids
    (datapoint,) = opened.read(["3"])
    assert datapoint.restricts == (TokenRestrict("language", ("de",)), NumericRestrict("year", 1978))
    assert opened.manifest.filters == index.manifest.filters
    assert opened.manifest.filters is not None
    assert opened.manifest.filters.namespaces == ["language", "year"]


@pytest.mark.parametrize("name", ["tokens.arrow", "row_of_slot.npy", "centroids.npy"])
def test_a_damaged_filter_file_is_named(index, tmp_path: Path, name: str):
    index.save(tmp_path / "saved")
    (file,) = (tmp_path / "saved").rglob(name)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataLoss, match=name):
        Index.open(tmp_path / "saved")


def test_an_index_without_restricts_says_so(vectors):
    with pytest.raises(FailedPrecondition, match="without restricts"):
        Index.build(vectors[:50]).search(vectors[:1], where={"language": "de"})


def test_building_reports_each_step_of_calibration(vectors):
    stages = []
    Index.build(
        vectors,
        restricts={"year": np.arange(COUNT)},
        engine=ScannParameters(leaves=20),
        tuning_queries=vectors[:50],
        progress=lambda *step: stages.append(step),
    )
    assert [step for step in stages if step[0] == "filters"] == [("filters", done, 4) for done in range(5)]


def test_wrong_restricts_fail_before_training(vectors):
    stages = []
    with pytest.raises(InvalidArgument, match="row 1"):
        Index.build(vectors, restricts={"year": [1, float("nan"), *range(COUNT - 2)]},
                    progress=lambda stage, done, total: stages.append(stage))  # fmt: skip
    assert stages == []
