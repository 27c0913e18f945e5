"""Query vectors in memory."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.embedding import cached_queries
from earshot.errors import InvalidArgument


def test_a_repeated_query_is_embedded_once(toy) -> None:
    embedder = toy()
    embed_query = cached_queries(embedder)
    first, second = embed_query("bread"), embed_query("bread")
    assert embedder.asked == ["bread"]
    np.testing.assert_array_equal(first, toy().embed(["bread"])[0])
    assert second is first


def test_the_oldest_query_makes_room(toy) -> None:
    embedder = toy()
    embed_query = cached_queries(embedder, capacity=2)
    for text in ("a", "b", "c", "b", "a"):
        embed_query(text)
    assert embedder.asked == ["a", "b", "c", "a"]
    assert embed_query.cache_info().currsize == 2


def test_a_remembered_vector_cannot_be_changed(toy) -> None:
    vector = cached_queries(toy())("bread")
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 0


def test_a_refused_query_is_refused_again(toy) -> None:
    embed_query = cached_queries(toy())
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="blank"):
            embed_query(" ")
