"""What all four clients do alike: sync and async, over gRPC and HTTP, against a small real server."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from earshot import client as package
from earshot.client import Client, Index, IndexVersion, Neighbor, Retry, SearchResults
from earshot.errors import (
    TABLE,
    DeadlineExceeded,
    EarshotError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from earshot.v1 import datapoint_pb2, datapoint_service_pb2, index_service_pb2, search_service_pb2

QUICK = Retry(attempts=3, initial_seconds=0.001, max_seconds=0.002)


def found(request: search_service_pb2.SearchRequest) -> search_service_pb2.SearchResponse:
    response = search_service_pb2.SearchResponse(index_version="indexes/p/versions/v000001")
    neighbor = response.neighbors.add(distance=0.1, score=1 / 3)
    neighbor.datapoint.datapoint_id = "a/ü 1"
    neighbor.datapoint.crowding_tag = "show"
    neighbor.datapoint.feature_vector.extend([0.1, -2.5, 1e-30] if request.return_full_datapoint else [])
    neighbor.datapoint.embedding_metadata.update(
        {"title": "ü", "year": 2020, "half": 0.5, "yes": True, "no": None, "list": [1, {"deep": "x"}]}
    )
    response.neighbors.add().datapoint.datapoint_id = "b"
    response.embed_duration.FromNanoseconds(1_500_000)
    response.search_duration.FromNanoseconds(250_000)
    return response


def raising(error: EarshotError) -> Any:
    def answer(request: Any) -> Any:
        raise error

    return answer


def test_a_search_by_text_sends_what_was_asked_and_returns_every_field(client: Any, server: Any) -> None:
    server.answers["Search"] = found
    results = client.search("p", "sour dough", k=3, target_recall=0.9, return_full_datapoint=True)
    assert server.asked == [
        search_service_pb2.SearchRequest(
            index="indexes/p",
            text="sour dough",
            neighbor_count=3,
            target_recall=0.9,
            return_full_datapoint=True,
        )
    ]
    metadata = {
        "title": "ü",
        "year": 2020,
        "half": 0.5,
        "yes": True,
        "no": None,
        "list": [1, {"deep": "x"}],
    }
    first = Neighbor("a/ü 1", 1 / 3, 0.1, metadata, "show", np.array([0.1, -2.5, 1e-30], np.float32))
    assert results == SearchResults((first, Neighbor("b", 0.0, 0.0, {})), "indexes/p/versions/v000001")
    assert results[0].vector.dtype == np.float32
    assert isinstance(results[0].metadata["year"], int)
    assert (results.embed_seconds, results.search_seconds) == (0.0015, 0.00025)
    assert [neighbor.id for neighbor in results] == ["a/ü 1", "b"]


def test_a_search_by_vector_sends_float32_bytes_and_the_expert_options(client: Any, server: Any) -> None:
    server.answers["Search"] = found
    results = client.search(
        "indexes/p",
        vector=np.arange(3, dtype=">f8")[::-1],
        per_crowding_attribute_neighbor_count=0,
        approximate_neighbor_count=50,
        fraction_leaf_nodes_to_search=0.25,
    )
    assert server.asked == [
        search_service_pb2.SearchRequest(
            index="indexes/p",
            vector=datapoint_pb2.Vector(float32=np.array([2, 1, 0], "<f4").tobytes()),
            neighbor_count=10,
            per_crowding_attribute_neighbor_count=0,
            approximate_neighbor_count=50,
            fraction_leaf_nodes_to_search_override=0.25,
            # Proto JSON leaves it out when False, and so does binary.
        )
    ]
    assert results[0].vector is None


def test_a_search_without_text_has_no_time_of_embedding(client: Any, server: Any) -> None:
    server.answers["Search"] = lambda request: search_service_pb2.SearchResponse(index_version="v")
    results = client.search("p", datapoint_id="a")
    assert server.asked[0].datapoint_id == "a"
    assert results.embed_seconds is None
    assert len(results) == 0


def test_read_returns_datapoints_in_order_with_vectors(client: Any, server: Any) -> None:
    server.answers["ReadDatapoints"] = lambda request: datapoint_service_pb2.ReadDatapointsResponse(
        datapoints=[datapoint_pb2.Datapoint(datapoint_id=each, feature_vector=[0.1]) for each in request.ids]
    )
    points = client.read("p", (each for each in ("b", "ä")))
    assert [point.id for point in points] == ["b", "ä"]
    assert points[0].vector == np.float32(0.1)
    assert points[0].crowding_tag is None


def test_get_index_returns_every_field(client: Any, server: Any) -> None:
    server.answers["GetIndex"] = lambda request: index_service_pb2.Index(
        name=request.name,
        current_version=f"{request.name}/versions/v000002",
        dimensions=384,
        distance_measure=index_service_pb2.COSINE_DISTANCE,
        datapoint_count=2**40,
        model="m",
        engine="scann",
        target_recall=0.95,
        measured_recall=0.96,
        update_time=Timestamp(seconds=1_767_323_045),
    )
    assert client.get_index("pod casts") == Index(
        "indexes/pod casts",
        "indexes/pod casts/versions/v000002",
        384,
        "COSINE_DISTANCE",
        2**40,
        "m",
        "scann",
        0.95,
        0.96,
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


def test_lists_follow_page_tokens_to_the_end(client: Any, server: Any) -> None:
    def indexes(request: Any) -> Any:
        page = int(request.page_token or 0)
        return index_service_pb2.ListIndexesResponse(
            indexes=[index_service_pb2.Index(name=f"indexes/{page}")],
            next_page_token=str(page + 1) if page < 2 else "",
        )

    def versions(request: Any) -> Any:
        return index_service_pb2.ListIndexVersionsResponse(
            versions=[index_service_pb2.IndexVersion(name=request.parent + request.page_token, size_bytes=5)],
            next_page_token="" if request.page_token else "/ü &?",
        )

    server.answers |= {"ListIndexes": indexes, "ListIndexVersions": versions}
    assert [index.name for index in client.indexes()] == ["indexes/0", "indexes/1", "indexes/2"]
    assert client.versions("p") == [
        IndexVersion("indexes/p", False, 0, 0.0, 5, None, False),
        IndexVersion("indexes/p/ü &?", False, 0, 0.0, 5, None, False),
    ]


@pytest.mark.parametrize("code", sorted(TABLE.keys() - {"UNAVAILABLE", "DEADLINE_EXCEEDED"}))
def test_an_error_of_the_server_arrives_as_the_same_class_and_message_without_retry(
    client: Any, server: Any, code: Any
) -> None:
    server.answers["GetIndex"] = raising(TABLE[code].error("index 'ü' is\nnot so"))
    with pytest.raises(EarshotError) as caught:
        client.get_index("p")
    assert type(caught.value) is TABLE[code].error
    assert caught.value.message == "index 'ü' is\nnot so"
    assert len(server.asked) == 1


def test_unavailable_is_tried_again_until_it_works(clients: Any, server: Any) -> None:
    failures = [Unavailable("a moment"), Unavailable("a moment")]
    server.answers["Search"] = lambda request: (
        raising(failures.pop())(request) if failures else found(request)
    )
    client = clients(clients.address(server), retry=QUICK)
    assert len(client.search("p", "x")) == 2
    assert len(server.asked) == 3


def test_unavailable_is_told_with_the_address_when_attempts_are_used_up(clients: Any, server: Any) -> None:
    server.answers["Search"] = raising(Unavailable("index 'p' is being loaded"))
    address = clients.address(server)
    client = clients(address, retry=QUICK)
    with pytest.raises(Unavailable) as caught:
        client.search("p", "x")
    assert caught.value.message == f"{address} is unavailable after 3 attempts: index 'p' is being loaded"
    assert len(server.asked) == 3


@pytest.mark.parametrize("kind", [ResourceExhausted, Unavailable])
def test_a_service_that_says_when_is_asked_again_then(clients: Any, server: Any, kind: Any) -> None:
    failures = [kind("too many", retry_after=0.15)]
    server.answers["Search"] = lambda request: (
        raising(failures.pop())(request) if failures else found(request)
    )
    started = time.monotonic()
    assert len(clients(clients.address(server), retry=QUICK).search("p", "x")) == 2
    assert 0.15 <= time.monotonic() - started < 5
    assert len(server.asked) == 2


def test_a_quota_that_stays_used_up_is_told_as_it_is(clients: Any, server: Any) -> None:
    server.answers["Search"] = raising(ResourceExhausted("too many", retry_after=0.01))
    with pytest.raises(ResourceExhausted) as caught:
        clients(clients.address(server), retry=QUICK).search("p", "x")
    assert caught.value.message == "too many"
    assert caught.value.retry_after == 0.01
    assert len(server.asked) == 3


def test_nothing_listening_is_unavailable_and_names_the_address(clients: Any) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = clients.nowhere(bound.getsockname()[1])
        client = clients(address, retry=QUICK)
        with pytest.raises(Unavailable, match=rf"{address} is unavailable after 3 attempts: .*refused"):
            client.indexes()
        assert not client.healthy()
        assert not client.ready()


def test_a_client_finds_a_server_that_starts_while_it_tries(clients: Any, server: Any) -> None:
    ports = [int(address.rpartition(":")[2]) for address in (server.grpc, server.http)]
    server.stop()
    retry = Retry(attempts=100, initial_seconds=0.05, max_seconds=0.05)
    client = clients(clients.address(server), retry=retry, timeout=20)

    def start_late() -> None:
        time.sleep(0.2)
        server.__init__(*ports)
        server.answers["Search"] = found
        server.start()

    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(start_late)
        assert len(client.search("p", "x")) == 2
        starting.result()


@pytest.mark.parametrize("how", ["of the client", "of the call"])
def test_a_deadline_ends_a_slow_call_and_names_address_and_time(clients: Any, server: Any, how: str) -> None:
    released = threading.Event()

    def late(request: Any) -> Any:
        released.wait(30)
        return found(request)

    server.answers["Search"] = late
    address = clients.address(server)
    client = clients(address, timeout=0.1 if how == "of the client" else 30)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        client.search("p", "x", timeout=0.1 if how == "of the call" else None)
    assert 0.09 < time.monotonic() - started < 5
    assert caught.value.message == f"{address} did not answer within 0.1 seconds"
    released.set()


def test_a_deadline_spans_all_pages(clients: Any, server: Any) -> None:
    page = index_service_pb2.ListIndexesResponse(next_page_token="again")
    server.answers["ListIndexes"] = lambda request: page
    with pytest.raises(DeadlineExceeded):
        clients(clients.address(server)).indexes(timeout=0.2)


def test_a_pause_is_not_begun_when_the_deadline_would_pass(clients: Any, server: Any) -> None:
    server.answers["Search"] = raising(Unavailable("no"))
    an_age = Retry(attempts=50, initial_seconds=1e12, max_seconds=1e12)
    started = time.monotonic()
    with pytest.raises(Unavailable):
        clients(clients.address(server), retry=an_age).search("p", "x", timeout=20)
    assert time.monotonic() - started < 10


def test_ready_and_healthy_tell_a_serving_server_from_one_that_is_only_alive(
    client: Any, server: Any
) -> None:
    assert client.healthy()
    assert client.ready()
    server.is_ready = False
    assert client.healthy()
    assert not client.ready()


def test_a_closed_client_says_so(client: Any) -> None:
    client.close()
    for call in (client.indexes, client.ready):
        with pytest.raises(FailedPrecondition, match="closed"):
            call()


BAD = [
    (lambda c: c.search("p"), "nothing given; set exactly one"),
    (lambda c: c.search("p", "x", vector=[1.0]), "text and vector given; set exactly one"),
    (lambda c: c.search("", "x"), "index '' is not the name of an index"),
    (lambda c: c.search("a/b", "x"), "index 'a/b' is not the name of an index"),
    (lambda c: c.get_index("indexes/.."), "name 'indexes/..' is not the name of an index"),
    (lambda c: c.versions("."), "index '.' is not the name of an index"),
    (lambda c: c.search("p", "x", k=2**31), "neighbor_count is 2147483648: "),
    (lambda c: c.search("p", "x", k="10"), "neighbor_count is '10': "),
    (lambda c: c.search("p", "\ud800"), "text is "),
    (lambda c: c.search("p", vector=[[1.0, 2.0]]), r"vector has shape \(1, 2\)"),
    (lambda c: c.search("p", vector=[]), r"vector has shape \(0,\)"),
    (lambda c: c.search("p", vector=["1"]), "vector has dtype <U1; real numbers"),
    (lambda c: c.search("p", vector=[1j]), "vector has dtype complex128; real numbers"),
    (lambda c: c.search("p", vector=[[1], [1, 2]]), "vector is not an array of numbers"),
    (lambda c: c.read("p", "abc"), r"ids is the string 'abc'; give a list"),
    (lambda c: c.read("p", [1]), r"ids is \[1\]: "),
    (lambda c: c.indexes(timeout=0), "timeout is 0; it must be more than 0"),
    (lambda c: c.indexes(timeout=float("nan")), "timeout is nan"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_what_cannot_be_sent_is_refused_before_anything_is_sent(
    client: Any, server: Any, call: Any, message: Any
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        call(client)
    assert server.asked == []


def test_an_answer_of_many_megabytes_arrives(client: Any, server: Any) -> None:
    answer = search_service_pb2.SearchResponse(index_version="x" * 20_000_000)
    server.answers["Search"] = lambda request: answer
    assert client.search("p", "x").index_version == answer.index_version


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_threads_share_one_client(server: Any, transport: Any) -> None:
    server.answers["GetIndex"] = lambda request: index_service_pb2.Index(name=request.name)
    with Client(getattr(server, transport)) as client, ThreadPoolExecutor(8) as pool:
        names = [f"indexes/{number}" for number in range(200)]
        assert [index.name for index in pool.map(client.get_index, names)] == names


def test_an_unknown_name_is_not_found_through_a_context_manager(server: Any) -> None:
    server.answers["GetIndex"] = raising(NotFound("index 'p' does not exist; there are: none"))
    with Client(f"grpc://{server.grpc}") as client, pytest.raises(NotFound, match="there are: none"):
        client.get_index("p")


def test_all_is_sorted_and_complete() -> None:
    assert package.__all__ == sorted(package.__all__)
    public = {name for name, value in vars(package).items() if isinstance(value, type)}
    assert public == set(package.__all__)
