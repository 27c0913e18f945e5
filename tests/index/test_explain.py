"""What a search did is told as it was done."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from earshot.errors import InvalidArgument
from earshot.index import Index, sizes


def test_a_plain_search_is_one_call_at_the_operating_point(scann_index: Index, unseen: np.ndarray) -> None:
    said = scann_index.explain(unseen[0], 10, target_recall=0.9)
    call, rest = said.steps
    assert said.point is not None
    assert said.point.recall.low >= 0.9
    assert (call.name, call.neighbors) == ("scann", 10)
    assert (call.leaves, call.candidates) == (said.point.leaves, said.point.candidates)
    assert rest.name == "rest"
    assert min(step.seconds for step in said.steps) > 0
    assert sum(step.seconds for step in said.steps) == pytest.approx(said.seconds)
    assert (said.rounds, said.crowding, said.filter, said.true) == (1, None, None, 10)
    assert said.tuned_on == scann_index.manifest.tuning.tuned_on
    np.testing.assert_array_equal(said.result.rows, scann_index.search(unseen[0], 10, target_recall=0.9).rows)


def test_exact_search_is_told_as_such_and_finds_all(scann_index: Index, unseen: np.ndarray) -> None:
    said = scann_index.explain(unseen[0], 7, target_recall=1)
    assert [step.name for step in said.steps] == ["exact", "rest"]
    assert said.steps[0].leaves is None
    assert (said.found, said.true) == (7, 7)
    assert said.point is not None
    assert said.point.leaves == 0


def test_what_is_missed_is_counted(scann_index: Index, unseen: np.ndarray) -> None:
    options = {"fraction_leaf_nodes_to_search": 0.01, "approximate_neighbor_count": 100}
    missed = 0
    for query in unseen[:20]:
        said = scann_index.explain(query, 100, **options)
        truth = scann_index.search(query, 100, target_recall=1)
        assert said.point is None
        assert said.target_recall is None
        common = len(set(said.result.ids[0]) & set(truth.ids[0]))
        assert said.found == common
        missed += said.true - said.found
    assert missed > 0


def test_crowding_tells_its_rounds(unseen: np.ndarray) -> None:
    vectors = np.concatenate(
        [unseen[:1] + 0.001 * np.random.default_rng(0).standard_normal((300, 16)), unseen]
    )
    index = Index.build(vectors, crowding_tags=["one"] * 300 + [str(row) for row in range(len(unseen))])
    said = index.explain(unseen[0], 5, crowding=1)
    calls = said.steps[:-1]
    assert said.rounds == len(calls) > 1
    assert [call.neighbors for call in calls[:2]] == [10, 20]
    assert said.true == said.found == 5


def test_a_filter_tells_its_plan(base: np.ndarray, unseen: np.ndarray) -> None:
    index = Index.build(base, restricts={"even": [str(row % 2 == 0) for row in range(len(base))]})
    said = index.explain(unseen[0], 5, where={"even": "True"})
    assert said.filter is not None
    assert said.filter.passing == len(base) / 2
    assert 0.95 <= said.filter.promised <= 1
    exactly = index.explain(unseen[0], 5, where={"even": "True"}, target_recall=1).filter
    assert exactly is not None
    assert exactly.promised == 1
    assert "filtered" in [step.name for step in said.steps]
    assert said.point is None
    assert said.found >= 4
    nothing = index.explain(unseen[0], 5, where={"even": "perhaps"})
    assert (nothing.found, nothing.true) == (0, 0)


def test_one_query_at_a_time(scann_index: Index, unseen: np.ndarray) -> None:
    with pytest.raises(InvalidArgument, match="query holds 2 vectors"):
        scann_index.explain(unseen[:2])
    with pytest.raises(InvalidArgument, match="crowding"):
        scann_index.explain(unseen[0], crowding=0)


def test_parts_add_up_to_what_lies_on_disk(scann_index: Index, tmp_path: object) -> None:
    manifest = scann_index.save(f"{tmp_path}/index")
    parts = {part.name: part for part in sizes(manifest)}
    assert sum(part.bytes for part in parts.values()) == manifest.bytes
    assert {"vectors", "codes", "engine", "ids", "attributes"} <= parts.keys()
    assert "other" not in parts
    assert parts["vectors"].bytes_a_vector == pytest.approx(4 * 16, abs=0.1)
    assert sizes(scann_index.manifest) == []
    assert msgspec.json.encode(list(parts.values()))
