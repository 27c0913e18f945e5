from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from earshot.index import Index
from earshot.index.live import LiveIndex
from earshot.server import messages
from earshot.server.hot.encode import JsonAnswers, ProtobufAnswers
from earshot.server.search import SearchPlan, attach, find, plan_search
from earshot.server.served_index import ServedIndex
from earshot.v1 import search_service_pb2

DIMENSIONS = 6
metadata = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.floats(-1e6, 1e6) | st.text(max_size=200), max_size=3
)
tags = st.none() | st.text(min_size=1, max_size=300)


def served(
    stored: list[tuple[str | None, dict[str, Any]]], measure: str = "DOT_PRODUCT_DISTANCE"
) -> ServedIndex:
    vectors = np.random.default_rng(len(stored)).standard_normal((len(stored), DIMENSIONS), dtype=np.float32)
    index = Index.build(
        vectors,
        crowding_tags=[tag for tag, _ in stored],
        metadata=[entry for _, entry in stored],
        distance_measure=measure,
    )
    return ServedIndex("some-index", "v000007", LiveIndex(index))


def plan_of(index: ServedIndex, **asked: Any) -> SearchPlan:
    return plan_search(messages.SearchRequest(index="some-index", **asked), index)


def expected(plan: SearchPlan, queries: np.ndarray) -> list[list[dict[str, Any]]]:
    found = find(plan, queries)
    return [json.loads(messages_json(attach(plan, found, row))) for row in range(len(queries))]


def messages_json(neighbors: list[messages.Neighbor]) -> bytes:
    from earshot.server.json_codec import encode

    return encode(neighbors)


@given(st.lists(st.tuples(tags, metadata), min_size=1, max_size=12), st.booleans(), st.integers(1, 15))
def test_both_encoders_say_what_the_service_says(
    stored: list[tuple[str | None, dict[str, Any]]], full: bool, k: int
) -> None:
    index = served(stored, "COSINE_DISTANCE")
    plan = plan_of(index, neighbor_count=k, return_full_datapoint=full)
    queries = np.random.default_rng(k).standard_normal((3, DIMENSIONS), dtype=np.float32)
    want = expected(plan, queries)
    as_json, as_protobuf = JsonAnswers(), ProtobufAnswers()
    for _ in range(2):  # the second time from remembered pieces
        found = find(plan, queries)
        for row, answer in enumerate(as_json.encode(plan, found, 0.25)):
            decoded = json.loads(answer)
            assert decoded.pop("searchDuration") == "0.250000s"
            assert decoded == {"neighbors": want[row], "indexVersion": "indexes/some-index/versions/v000007"}
        for row, data in enumerate(as_protobuf.encode(plan, found, 1.5)):
            message = search_service_pb2.SearchResponse.FromString(data)
            assert message.search_duration.ToMilliseconds() == 1500
            assert message.index_version == "indexes/some-index/versions/v000007"
            again = json_format.ParseDict({"neighbors": want[row]}, search_service_pb2.SearchResponse())
            assert message.neighbors == again.neighbors


@pytest.mark.parametrize("encoder", [ProtobufAnswers(), JsonAnswers()])
@pytest.mark.parametrize("seconds", [0.0, 1e-9, 0.001234567, 1.0, 300.5])
def test_the_time_for_embedding_is_added_to_an_answer(encoder: Any, seconds: float) -> None:
    plan = plan_of(served([(None, {})] * 3))
    answer = encoder.encode(plan, find(plan, np.ones((1, DIMENSIONS), np.float32)), 0.0)[0]
    more = encoder.with_embed_duration(answer, seconds)
    if isinstance(encoder, JsonAnswers):
        decoded = json_format.ParseDict(json.loads(more), search_service_pb2.SearchResponse())
    else:
        decoded = search_service_pb2.SearchResponse.FromString(more)
    assert decoded.HasField("embed_duration")
    assert decoded.embed_duration.ToNanoseconds() == pytest.approx(seconds * 1e9, abs=1000)
    assert len(decoded.neighbors) == 3


def test_a_new_version_of_an_index_does_not_get_the_old_ones_datapoints() -> None:
    encoder = ProtobufAnswers()
    query = np.ones((1, DIMENSIONS), np.float32)
    for marker in ("old", "new"):
        plan = plan_of(served([(marker, {})] * 5))
        (answer,) = encoder.encode(plan, find(plan, query), 0.0)
        neighbors = search_service_pb2.SearchResponse.FromString(answer).neighbors
        assert {neighbor.datapoint.crowding_tag for neighbor in neighbors} == {marker}


@pytest.mark.parametrize("encoder", [JsonAnswers, ProtobufAnswers])
def test_what_is_remembered_keeps_no_version_open(encoder: type[JsonAnswers | ProtobufAnswers]) -> None:
    answers, index = encoder(), served([(None, {"a": 1.0})])
    answers.forget(index.name)  # as at a swap; a request that began before it comes last
    plan = plan_of(index, neighbor_count=1)
    found = find(plan, np.ones((1, DIMENSIONS), np.float32))
    assert answers.encode(plan, found, 0.0) != answers.encode(plan, found, 1.0)
    held = weakref.ref(index)
    del plan, found, index
    gc.collect()
    assert held() is None
