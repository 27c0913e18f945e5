"""Indexes, versions and datapoints: every client of either server makes and sees the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from earshot.client import AsyncClient
from earshot.errors import EarshotError
from tests.client.congruence.conftest import COUNT, DIMENSIONS, VECTORS, Ask, stored, the_one


def test_indexes_live_and_die_alike(ask: Ask) -> None:
    """Each client makes, changes and removes an index of its own; they must all see the same."""

    def life(client: Any) -> Any:
        steps: list[Callable[[Any], Any]] = [
            lambda client: client.create_index("tmp", dimensions=4, distance_measure="COSINE_DISTANCE"),
            lambda client: client.create_index("tmp"),
            lambda client: client.get_index("tmp"),
            lambda client: client.search("tmp", "a text, of which it knows no model"),
            lambda client: client.update_index("tmp", {"shards": 2, "target_recall": 0.9}),
            lambda client: client.update_index("tmp", {"shards": None}),
            lambda client: client.update_index("tmp", {"dimensions": 5}),
            lambda client: client.update_index("tmp", {"colour": "red"}),
            lambda client: client.update_index("tmp", {"shards": 3}, etag="old"),
            lambda client: client.rollback("tmp"),
            lambda client: client.operations("nosuch"),
            lambda client: client.delete_index("tmp"),
            lambda client: client.delete_index("tmp", etag="old"),
            lambda client: client.delete_index("tmp", force=True),
            lambda client: client.get_index("tmp"),
        ]

        def told(answer: Any) -> Any:
            return (type(answer), answer.message) if isinstance(answer, EarshotError) else answer

        if isinstance(client, AsyncClient):

            async def awaited() -> list[Any]:
                answers = []
                for step in steps:
                    try:
                        answers.append(await step(client))
                    except EarshotError as error:
                        answers.append(told(error))
                return answers

            return awaited()
        answers = []
        for step in steps:
            try:
                answers.append(step(client))
            except EarshotError as error:
                answers.append(told(error))
        return answers

    made, twice, got, empty, changed, unsaid, fixed, unknown, late, *rest = the_one(ask(life))
    assert (made.dimensions, made.current_version, made.datapoint_count) == (4, "", 0)
    assert made.config == {"dimensions": 4, "distance_measure": "COSINE_DISTANCE"}
    assert got == made
    assert changed.config == {**made.config, "shards": 2, "target_recall": 0.9}
    assert unsaid.config == {**made.config, "target_recall": 0.9}
    codes = [answer[0].code for answer in (twice, empty, fixed, unknown, late)]
    assert codes == [
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "ABORTED",
    ]
    back, jobs, unguarded, old, gone, after = rest
    assert gone is None
    codes = [answer[0].code for answer in (back, jobs, unguarded, old, after)]
    assert codes == ["FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "ABORTED", "NOT_FOUND"]


def test_rolled_back_versions_are_alike(ask: Ask) -> None:
    assert the_one(ask(lambda client: client.rollback("dots", "v000001"))).current_version.endswith("v000001")
    forth = the_one(ask(lambda client: client.rollback("dots", "indexes/dots/versions/v000002")))
    assert forth.current_version == "indexes/dots/versions/v000002"
    kind, message = the_one(ask(lambda client: client.rollback("dots", "v000009")))
    assert kind.code == "NOT_FOUND"
    assert "v000009" in message


def test_reading_and_listing_answer_alike(ask: Ask) -> None:
    points = the_one(ask(lambda client: client.read("dots", ["p/5 é", "p/0 é"])))
    assert [point.id for point in points] == ["p/5 é", "p/0 é"]
    assert np.array_equal(points[0].vector, VECTORS[5])
    assert [point.restricts for point in points] == [stored(5), stored(0)]
    many = the_one(ask(lambda client: client.read("dots", ["p/1 é"] * 1001, metadata_fields=["half"])))
    assert [point.metadata for point in many] == [{"half": 1.5}] * 1001
    dots, squares = the_one(ask(lambda client: client.indexes()))
    assert (dots.name, squares.name) == ("indexes/dots", "indexes/squares")
    assert (squares.datapoint_count, squares.dimensions) == (COUNT, DIMENSIONS)
    assert squares.distance_measure == "SQUARED_L2_DISTANCE"
    assert squares.update_time.tzinfo is not None
    assert the_one(ask(lambda client: client.get_index("squares"))) == squares
    newest, oldest = the_one(ask(lambda client: client.versions("dots")))
    assert (newest.name, newest.current, oldest.current) == ("indexes/dots/versions/v000002", True, False)
    assert oldest.complete
    assert oldest.size_bytes > 0


def test_the_server_is_healthy_and_ready(ask: Ask) -> None:
    assert the_one(ask(lambda client: client.healthy()))
    assert the_one(ask(lambda client: client.ready()))
