"""Streams of queries: every client of either server finds the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from earshot.client import AsyncClient
from earshot.errors import EarshotError, InvalidArgument
from tests.client.congruence.conftest import VECTORS, Ask, the_one


def streamed(**asked: Any) -> Callable[[Any], Any]:
    """The ids that a stream of queries finds, or its errors where those are returned."""

    def seen(result: Any) -> Any:
        if isinstance(result, EarshotError):
            return type(result), result.message
        return [neighbor.id for neighbor in result]

    def question(client: Any) -> Any:
        results = client.search_stream("dots", **asked)
        if not isinstance(client, AsyncClient):
            return [seen(result) for result in results]

        async def collected() -> list[Any]:
            return [seen(result) async for result in results]

        return collected()

    return question


@pytest.mark.parametrize("count", [0, 1, 70])
def test_a_stream_answers_like_its_queries_one_by_one(ask: Ask, count: int) -> None:
    options: dict[str, Any] = {"k": 3, "where": {"year": {">=": 2000}}, "target_recall": 1.0}
    rows = list(range(count))
    found = the_one(ask(streamed(vectors=VECTORS[:count], **options)))
    by_id = the_one(ask(streamed(datapoint_ids=[f"p/{row} é" for row in rows], **options)))
    assert (
        found
        == by_id
        == [
            [each.id for each in results]
            for results in the_one(
                ask(lambda client: client.search_batch("dots", vectors=VECTORS[:count], **options))
            )
        ]
    )


def test_a_query_of_a_stream_that_fails_ends_nothing(ask: Ask) -> None:
    vectors = [VECTORS[0], VECTORS[0][:5], VECTORS[1]]
    good, bad, after = the_one(ask(streamed(vectors=vectors, k=1, return_exceptions=True)))
    assert (good, after) == (["p/0 é"], ["p/1 é"])
    assert bad[0] is InvalidArgument
    assert "dimension 16" in bad[1]
    kind, message = the_one(ask(streamed(vectors=vectors, k=1)))
    assert (kind, message) == bad


def test_what_is_wrong_with_a_stream_is_said_alike(ask: Ask) -> None:
    for asked in (
        {},
        {"texts": ["x"], "datapoint_ids": ["y"]},
        {"texts": "one"},
        {"texts": ["x"], "where": 3},
    ):
        kind, message = the_one(ask(streamed(**asked)))
        assert kind is InvalidArgument, message

    def broken() -> Iterator[np.ndarray]:
        yield VECTORS[0]
        raise InvalidArgument("of my own")

    answer = the_one(ask(lambda client: streamed(vectors=broken(), k=1)(client)))
    assert answer == (InvalidArgument, "of my own")
