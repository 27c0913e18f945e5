"""The short way from the wire says what the ordinary way says, or nothing at all."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from earshot.index import Index
from earshot.index.live import LiveIndex
from earshot.server import messages
from earshot.server.batch import batch_kind, batch_vectors
from earshot.server.hot.decode import (
    MAX_REMEMBERED,
    UsualRequests,
    options_of_batch,
    options_of_search,
    split,
)
from earshot.server.hot.decode_json import options_of_json, split_json
from earshot.server.json_codec import decode
from earshot.server.proto_codec import batch_search_request, search_request
from earshot.server.registry import Registry
from earshot.server.search import SearchPlan, plan_search, query_kind, query_vector
from earshot.server.served_index import ServedIndex
from earshot.v1 import datapoint_pb2, search_service_pb2

DIMENSIONS = 6
NAME = "some-index"
SEARCH, BATCH = search_service_pb2.SearchRequest, search_service_pb2.BatchSearchRequest


class Opened:
    """As much of a registry as is looked at."""

    def __init__(self) -> None:
        self.swap()

    def swap(self) -> None:
        self.served = ServedIndex(
            NAME, "v000001", LiveIndex(Index.build(np.eye(DIMENSIONS, dtype=np.float32)))
        )

    def ready(self, name: str) -> ServedIndex | None:
        return self.served if name == NAME else None


opened = Opened()


def usual(options: Any) -> UsualRequests[SearchPlan]:
    return UsualRequests(options, cast("Registry", opened), lambda plan: plan)


SEARCHES, BATCHES = usual(options_of_search), usual(options_of_batch)
JSONS = usual(options_of_json)

floats = st.lists(st.floats(width=32), min_size=DIMENSIONS, max_size=DIMENSIONS)
vectors = st.builds(
    lambda values, packed: (
        datapoint_pb2.Vector(float32=np.array(values, "<f4").tobytes())
        if packed
        else datapoint_pb2.Vector(values=values)
    ),
    floats | st.lists(st.floats(width=32), max_size=40),
    st.booleans(),
)
names = st.sampled_from([NAME, f"indexes/{NAME}", "other", "", "x" * 127, "x" * 128])
options: dict[str, Any] = {
    "neighbor_count": st.none() | st.integers(-1, 20_000),
    "target_recall": st.none() | st.floats(),
    "per_crowding_attribute_neighbor_count": st.none() | st.integers(-1, 3),
    "return_full_datapoint": st.booleans(),
    "metadata_fields": st.lists(st.text(max_size=3), max_size=2),
    "restricts": st.lists(st.builds(datapoint_pb2.TokenRestrict, namespace=st.text(max_size=3)), max_size=1),
}
searches = st.builds(SEARCH, index=names, vector=vectors, explain=st.booleans(), **options) | st.builds(
    SEARCH, index=names, text=st.text(max_size=3) | st.none(), **options
)
batches = st.builds(BATCH, index=names, vectors=st.lists(vectors, max_size=4), **options)


@st.composite
def wires(draw: Any, messages: st.SearchStrategy[Any]) -> bytes:
    """A message, or two that protobuf merges; sometimes damaged."""
    data = b"".join(
        message.SerializeToString() for message in draw(st.lists(messages, min_size=1, max_size=2))
    )
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 3)) :]
    return data


@given(wires(searches))
def test_a_search_means_the_same_either_way(data: bytes) -> None:
    found = SEARCHES.find_in(data)
    if found is None:
        return
    plan, query = found
    request = search_request(data)
    assert query_kind(request) == "vector"
    assert not request.explain
    assert plan == plan_search(request, opened.served)
    assert request.vector is not None
    assert query_vector(request.vector, opened.served).tobytes() == query.data


@given(st.lists(wires(searches), min_size=1, max_size=4), st.binary(min_size=4, max_size=4))
def test_a_search_like_the_one_before_is_found_as_if_there_had_been_none(
    messages: list[bytes], bits: bytes
) -> None:
    # The same message with another number somewhere is what comes most often.
    data = messages[0]
    place = max(0, len(data) // 2)
    for message in (*messages, data[:place] + bits + data[place + 4 :], data):
        found, alone = SEARCHES.find_in(message), SEARCHES.find(split(message))
        assert found == alone


@given(wires(batches))
def test_a_batch_means_the_same_either_way(data: bytes) -> None:
    found = BATCHES.find(split(data))
    if found is None:
        return
    plan, queries = found
    request = batch_search_request(data)
    assert plan == plan_search(request, opened.served)
    assert batch_kind(request, plan) == "vectors"
    matrix = batch_vectors(request.vectors, opened.served)
    assert matrix.tobytes() == queries.data
    assert len(matrix) == queries.number


@pytest.mark.parametrize("form", ["values", "float32"])
def test_what_clients_send_goes_the_short_way(form: str) -> None:
    query = np.arange(1, DIMENSIONS + 1, dtype="<f4")
    values = datapoint_pb2.Vector(values=query.tolist())
    vector = values if form == "values" else datapoint_pb2.Vector(float32=query.tobytes())
    found = SEARCHES.find(split(SEARCH(index=NAME, vector=vector, neighbor_count=3).SerializeToString()))
    assert found is not None
    assert found[1].data == query.tobytes()
    assert found[0].k == 3
    found = BATCHES.find(
        split(BATCH(index=NAME, vectors=[vector] * 70, target_recall=0.5).SerializeToString())
    )
    assert found is not None
    assert found[1].data == query.tobytes() * 70
    assert found[0].target_recall == 0.5


@pytest.mark.parametrize("dimensions", [1, 31, 32, 33, 4095, 4096])
def test_vectors_of_every_length_are_found_or_left(dimensions: int) -> None:
    wide = Opened()
    wide.served = ServedIndex(NAME, "v000001", LiveIndex(Index.build(np.ones((2, dimensions), np.float32))))
    searches = UsualRequests(options_of_search, cast("Registry", wide), lambda plan: plan)
    query = np.random.default_rng(dimensions).standard_normal(dimensions, dtype=np.float32)
    vector = datapoint_pb2.Vector(values=query.tolist())
    found = searches.find(split(SEARCH(index=NAME, vector=vector).SerializeToString()))
    assert (found is None) == (dimensions > 4095)
    assert found is None or found[1].data == query.tobytes()


def test_a_new_version_is_planned_anew() -> None:
    data = SEARCH(index=NAME, vector=datapoint_pb2.Vector(values=[1] * DIMENSIONS)).SerializeToString()
    searches = usual(options_of_search)
    before = searches.find_in(data)
    assert searches.find_in(data) == before
    opened.swap()
    after = searches.find_in(data)
    assert before is not None
    assert after is not None
    assert after[0].served is opened.served is not before[0].served


def test_no_more_is_remembered_than_fits() -> None:
    searches = usual(options_of_search)
    vector = datapoint_pb2.Vector(values=[1] * DIMENSIONS)
    for count in range(1, MAX_REMEMBERED + 50):
        found = searches.find(
            split(SEARCH(index=NAME, vector=vector, neighbor_count=count).SerializeToString())
        )
        assert found is not None
        assert found[0].k == count
    assert len(searches) <= MAX_REMEMBERED


def test_errors_are_told_by_the_ordinary_way() -> None:
    vector = datapoint_pb2.Vector(values=[1] * DIMENSIONS)
    for wrong in (
        SEARCH(index=NAME, vector=vector, neighbor_count=0),
        SEARCH(index="missing", vector=vector),
        SEARCH(index=NAME, vector=datapoint_pb2.Vector(values=[1, 2])),
    ):
        assert SEARCHES.find(split(wrong.SerializeToString())) is None
    not_a_number = datapoint_pb2.Vector(values=[float("nan")] * DIMENSIONS)
    assert BATCHES.find(split(BATCH(index=NAME, vectors=[vector, not_a_number]).SerializeToString())) is None


numbers = st.floats() | st.integers(-(10**40), 10**40) | st.just("7") | st.none()
json_vectors = st.fixed_dictionaries(
    {},
    optional={
        "float32": st.binary(max_size=30).map(lambda data: base64.b64encode(data).decode())
        | st.just(base64.b64encode(np.ones(DIMENSIONS, "<f4").tobytes()).decode())
        | st.text(max_size=9),
        "values": st.lists(numbers, max_size=7) | st.just([0.1] * DIMENSIONS),
    },
)
json_members = st.fixed_dictionaries(
    {"vector": json_vectors},
    optional={
        "neighborCount": st.integers(-1, 20),
        "text": st.sampled_from(["", '"float32":"AAAA"', '"values":[1]']),
        "explain": st.booleans(),
        "restricts": st.lists(st.fixed_dictionaries({"namespace": st.just('"values": [1]')}), max_size=1),
    },
)


@given(st.lists(json_members, min_size=1, max_size=2), st.integers(0, 60), st.binary(max_size=2))
def test_json_means_the_same_either_way(members: list[dict[str, Any]], place: int, junk: bytes) -> None:
    # Two objects become one whose members come twice.
    body = b"{%b}" % b",".join(json.dumps(part).encode()[1:-1] for part in members)
    escaped = body.replace(b"float32", rb"float\u00332")
    for data in (body, b"%b,%b" % (body[:-1], escaped[1:]), body[:place] + junk + body[place + 1 :]):
        found = JSONS.find(split_json(NAME, data))
        if found is None:
            continue
        plan, query = found
        request = structs.replace(decode(data, messages.SearchRequest), index=NAME)
        assert query_kind(request) == "vector"
        assert not request.explain
        assert plan == plan_search(request, opened.served)
        assert request.vector is not None
        assert query_vector(request.vector, opened.served).tobytes() == query.data


@pytest.mark.parametrize("separator", [":", ": "])
@pytest.mark.parametrize("form", ["values", "float32"])
def test_json_that_clients_send_goes_the_short_way(form: str, separator: str) -> None:
    query = np.arange(1, DIMENSIONS + 1, dtype="<f4")
    value = query.tolist() if form == "values" else base64.b64encode(query.tobytes()).decode()
    body = json.dumps({"vector": {form: value}, "neighborCount": 3}, separators=(",", separator)).encode()
    found = JSONS.find(split_json(NAME, body))
    assert found is not None
    assert found[1].data == query.tobytes()
    assert found[0].k == 3
    assert JSONS.find(split_json("other", body)) is None
