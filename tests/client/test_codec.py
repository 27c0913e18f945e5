"""Requests and replies without I/O."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from earshot.client import Client, Datapoint, Neighbor, SearchResults, codec
from earshot.v1 import datapoint_pb2, datapoint_service_pb2, search_service_pb2

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DTYPES = ("<f2", "<f4", ">f4", "<f8", ">f8", "i1", "u1", "<i4", ">i8", "?")


def finish(flow: codec.Flow[Any], reply: Any) -> Any:
    with pytest.raises(StopIteration) as end:
        flow.send(reply)
    return end.value.value


def sent_vector(vector: Any) -> bytes:
    request: Any = next(codec.search("p", text=None, vector=vector, datapoint_id=None)).request
    return bytes(request.vector.float32)


@given(
    st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 40))),
    st.sampled_from([1, -1, 2]),
)
def test_any_numeric_array_in_any_memory_order_is_sent_as_little_endian_float32(
    numbers: Any, step: Any
) -> None:
    with np.errstate(all="ignore"):
        assert sent_vector(numbers[::step]) == numbers[::step].astype("<f4").tobytes()


@pytest.mark.parametrize("vector", [[1, 2.5], (1, 2.5), np.array([1, 2.5], object), array("d", [1, 2.5])])
def test_lists_and_their_like_are_vectors(vector: Any) -> None:
    assert sent_vector(vector) == np.array([1, 2.5], "<f4").tobytes()


def test_a_number_too_large_for_float32_is_left_for_the_server_to_name() -> None:
    assert np.isinf(np.frombuffer(sent_vector([1e300]), "<f4")).all()


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_metadata_comes_back_as_it_was_stored(metadata: Any) -> None:
    point = datapoint_pb2.Datapoint(datapoint_id="a")
    point.embedding_metadata.update(metadata)
    flow = codec.read("p", ["a"])
    next(flow)
    reply = datapoint_service_pb2.ReadDatapointsResponse(datapoints=[point])
    assert finish(flow, reply) == [Datapoint("a", None, None, metadata)]


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False)))
def test_vectors_come_back_bit_by_bit(vector: Any) -> None:
    flow = codec.search("p", text="x", vector=None, datapoint_id=None)
    next(flow)
    reply = search_service_pb2.SearchResponse()
    reply.neighbors.add().datapoint.feature_vector.extend(vector.tolist())
    assert finish(flow, reply)[0].vector.tobytes() == vector.tobytes()


def test_a_field_that_is_none_is_not_sent() -> None:
    call = next(codec.search("p", text="x", vector=None, datapoint_id=None, target_recall=None))
    assert call.request == search_service_pb2.SearchRequest(index="indexes/p", text="x")


def test_results_are_equal_when_they_say_the_same_however_long_it_took() -> None:
    def results(vector: list[float], **times: Any) -> SearchResults:
        neighbor = Neighbor("a", 1.0, 2.0, {"b": [1]}, None, np.array(vector, np.float32))
        return SearchResults((neighbor,), "v", **times)

    assert results([1, 2], search_seconds=1.0) == results([1, 2], search_seconds=2.0)
    assert results([1, 2]) != results([1, 3])
    assert results([1, 2])[0] != Neighbor("a", 1.0, 2.0, {"b": [1]})
    assert results([1, 2])[0] != "a"
    assert {results([1, 2])[0]: 1}[results([1, 2])[0]] == 1


def test_results_are_a_sequence_and_cannot_be_changed() -> None:
    results = SearchResults((Neighbor("a", 1, 2, {}), Neighbor("b", 1, 2, {})), "v")
    assert isinstance(results, Sequence)
    assert [each.id for each in reversed(results)] == ["b", "a"]
    assert results[1:] == (results[1],)
    with pytest.raises(AttributeError):
        results[0].score = 3.0  # type: ignore[misc]


class Recorded:
    """A transport that needs no socket."""

    def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        self.timeout = timeout
        return search_service_pb2.SearchResponse(index_version=f"{method.name} {request.text}")

    def probe(self, timeout: float | None, *, ready: bool) -> bool:
        return ready

    def close(self) -> None:
        pass


def test_a_transport_of_ones_own_replaces_the_network() -> None:
    recorded = Recorded()
    with Client("nowhere", transport=recorded, timeout=None) as client:
        assert client.search("p", "x").index_version == "Search x"
        assert client.ready()
        assert recorded.timeout is None
        assert repr(client) == "Client('nowhere')"
