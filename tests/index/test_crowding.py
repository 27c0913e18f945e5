from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.index import Index
from earshot.index.crowding import keep_first


def crowded(distances: np.ndarray, tags: list[str | None], limit: int, k: int) -> list[int]:
    """The definition, word by word: rank all, keep the first of each tag, take k."""
    seen: dict[str, int] = {}
    kept = []
    for row in np.argsort(distances, kind="stable").tolist():
        tag = tags[row]
        if tag is not None:
            seen[tag] = seen.get(tag, 0) + 1
            if seen[tag] > limit:
                continue
        kept.append(row)
    return kept[:k]


@settings(max_examples=200, deadline=None)
@given(
    tags=st.lists(
        st.one_of(st.none(), st.sampled_from("abc"), st.integers(0, 9).map(str)), min_size=1, max_size=80
    ),
    limit=st.integers(1, 4),
    k=st.integers(1, 100),
    seed=st.integers(0, 1000),
)
def test_crowding_is_what_its_definition_says(tags, limit, k, seed) -> None:
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-5, 6, (len(tags), 3))
    queries = generator.integers(-5, 6, (2, 3))
    index = Index.build(vectors, crowding_tags=tags, distance_measure="SQUARED_L2_DISTANCE", engine="exact")
    found = index.search(queries, k, crowding=limit)
    for query, rows in zip(queries, found.rows, strict=True):
        assert rows.tolist() == crowded(((vectors - query) ** 2).sum(1), tags, limit, k)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_a_tree_with_crowding_keeps_its_recall(limit, k, scann_index, unseen) -> None:
    found = scann_index.search(unseen, k, crowding=limit, target_recall=0.95)
    exact = scann_index.search(unseen, k, crowding=limit, target_recall=1.0)
    assert found.rows.shape == exact.rows.shape
    assert (found.rows >= 0).all()
    hits = [len(set(a) & set(b)) / len(b) for a, b in zip(found.rows, exact.rows, strict=True)]
    assert np.mean(hits) > 0.94
    for tags in found.crowding_tags:
        named = [tag for tag in tags if tag is not None]
        assert max((named.count(tag) for tag in set(named)), default=0) <= limit


def test_one_tag_for_all_leaves_one_neighbor_and_is_not_slow(base) -> None:
    index = Index.build(base, crowding_tags=["same"] * len(base))
    found = index.search(base[:300], 10, crowding=1)
    assert found.rows.shape == (300, 1)
    np.testing.assert_array_equal(found.rows[:, 0], np.arange(300))


def test_the_nearest_all_of_one_tag_do_not_hide_the_rest() -> None:
    """2,000 near copies of the query's own tag surround it; the other tags lie far off."""
    generator = np.random.default_rng(0)
    near = np.eye(1, 8) + 0.01 * generator.standard_normal((2000, 8))
    far = -np.eye(1, 8) + 0.3 * generator.standard_normal((500, 8))
    tags = ["near"] * 2000 + [f"far-{row}" for row in range(500)]
    index = Index.build(np.vstack((near, far)), crowding_tags=tags)
    found = index.search(np.eye(1, 8), 10, crowding=3)
    assert found.crowding_tags[0].count("near") == 3
    assert found.rows.shape == (1, 10)
    np.testing.assert_array_equal(
        found.rows, index.search(np.eye(1, 8), 10, crowding=3, target_recall=1.0).rows
    )


def test_tags_of_one_query_do_not_count_for_the_next() -> None:
    codes = np.array([-1, 0, 1, 2])
    rows = np.array([[3, 0, 3, -1], [0, 0, 3, 1]])
    np.testing.assert_array_equal(
        keep_first(rows, codes, 1), [[True, True, False, False], [True, True, True, True]]
    )
