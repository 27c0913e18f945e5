"""Indexes so small that a filter leaves fewer datapoints than are wanted in any leaf."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.index import Index


@pytest.mark.parametrize("count", [250, 300, 400])
def test_a_small_tree_is_built_with_restricts_and_finds_what_passes(count: int) -> None:
    vectors = np.random.default_rng(7).standard_normal((count, 16)).astype(np.float32)
    index = Index.build(vectors, restricts={"rare": ["yes" if row < 3 else "no" for row in range(count)]})
    assert index.manifest.engine.name == "scann"
    found = index.search(vectors[:5], 10, where={"rare": "yes"})
    assert {frozenset(ids) for ids in found.ids} == {frozenset({"0", "1", "2"})}
