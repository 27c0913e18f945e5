"""What is wrong is said alike by every client of either server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from earshot.errors import EarshotError, InvalidArgument, ResourceExhausted
from tests.client.congruence.conftest import DIMENSIONS, VECTORS, Ask, the_one

WRONG: dict[str, Callable[[Any], Any]] = {
    "unknown index": lambda client: client.search("nosuch", "x"),
    "unknown index's versions": lambda client: client.versions("nosuch"),
    "unknown index by name": lambda client: client.get_index("nosuch"),
    "a name no index can have": lambda client: client.get_index("a b?:%"),
    "unknown datapoint": lambda client: client.search("dots", datapoint_id="nosuch"),
    "unknown datapoints": lambda client: client.read("dots", ["p/0 é", "no", "such"]),
    "no ids": lambda client: client.read("dots", []),
    "ids that are one string": lambda client: client.read("dots", "p/0 é"),
    "fields that are one string": lambda client: client.search("dots", "x", metadata_fields="title"),
    "text without a model": lambda client: client.search("dots", "x"),
    "empty text": lambda client: client.search("dots", " "),
    "wrong dimension": lambda client: client.search("dots", vector=[1.0] * 3),
    "NaN": lambda client: client.search("dots", vector=[np.nan] * DIMENSIONS),
    "too large for float32": lambda client: client.search("dots", vector=[1e300] * DIMENSIONS),
    "k of 0": lambda client: client.search("dots", vector=VECTORS[0], k=0),
    "k too large": lambda client: client.search("dots", vector=VECTORS[0], k=10_001),
    "negative crowding": lambda client: client.search(
        "dots", vector=VECTORS[0], per_crowding_attribute_neighbor_count=-1
    ),
    "recall of 0": lambda client: client.search("dots", vector=VECTORS[0], target_recall=0.0),
    "recall above 1": lambda client: client.search("dots", vector=VECTORS[0], target_recall=1.5),
    "recall that is no number": lambda client: client.search("dots", vector=VECTORS[0], target_recall=np.nan),
    "no leaves": lambda client: client.search("dots", vector=VECTORS[0], fraction_leaf_nodes_to_search=0.0),
    "no candidates": lambda client: client.search("dots", vector=VECTORS[0], approximate_neighbor_count=0),
    "an empty batch of nothing": lambda client: client.search_batch("dots"),
    "a batch of two kinds": lambda client: client.search_batch("dots", ["x"], datapoint_ids=["y"]),
    "a batch that is one text": lambda client: client.search_batch("dots", "text"),
    "a batch of one vector": lambda client: client.search_batch("dots", vectors=VECTORS[0]),
    "a batch of wrong dimension": lambda client: client.search_batch("dots", vectors=VECTORS[:3, :5]),
    "NaN in a batch": lambda client: client.search_batch("dots", vectors=VECTORS[:3] * [[1], [np.nan], [1]]),
    "infinity in a batch": lambda client: client.search_batch("dots", vectors=VECTORS[:2] * [[1], [np.inf]]),
    "an empty text in a batch": lambda client: client.search_batch("dots", ["x", " "]),
    "a batch of texts without a model": lambda client: client.search_batch("dots", ["x", "y"]),
    "unknown datapoints in a batch": lambda client: client.search_batch("dots", datapoint_ids=["no"]),
    "a batch with k of 0": lambda client: client.search_batch("dots", vectors=VECTORS, k=0),
    "a batch with a bad filter": lambda client: client.search_batch("dots", vectors=VECTORS, where={"": 1}),
    "a filter without a name": lambda client: client.search("dots", vector=VECTORS[0], where={"": "x"}),
    "a filter that is no mapping": lambda client: client.search("dots", vector=VECTORS[0], where="year=3"),
    "a filter by NaN": lambda client: client.search("dots", vector=VECTORS[0], where={"year": np.nan}),
    "a target and parameters": lambda client: client.search(
        "dots", vector=VECTORS[0], target_recall=0.9, approximate_neighbor_count=10
    ),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_errors_are_alike(ask: Ask, call: Callable[[Any], Any]) -> None:
    kind, message = the_one(ask(call))
    assert issubclass(kind, EarshotError)
    assert kind.code in {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}
    assert message


def test_a_request_that_is_too_large_is_refused_and_the_server_serves_on(ask: Ask) -> None:
    # Over gRPC the library refuses it before our code sees it, hence its status.
    answers = ask(lambda client: client.search("dots", "x" * (17 << 20)))
    assert {kind for kind, _ in answers} <= {InvalidArgument, ResourceExhausted}
    assert all("16777216" in message for _, message in answers[:-1])
    assert the_one(ask(lambda client: client.ready()))
