"""What every client may expect of either transport."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from earshot.v1 import (
    datapoint_pb2,
    datapoint_service_pb2,
    datapoint_service_pb2_grpc,
    index_service_pb2,
    index_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

from ..conftest import COUNT, DIMENSIONS
from .conftest import Face

SEARCH = "/earshot.v1.SearchService/Search"


def request_of(vector: np.ndarray, **more: Any) -> search_service_pb2.SearchRequest:
    return search_service_pb2.SearchRequest(
        index="plain", vector=datapoint_pb2.Vector(float32=vector.astype("<f4").tobytes()), **more
    )


def ids_of(answer: search_service_pb2.SearchResponse) -> list[str]:
    return [neighbor.datapoint.datapoint_id for neighbor in answer.neighbors]


def truth(vectors: np.ndarray, query: np.ndarray, k: int) -> list[str]:
    return [f"id-{row}" for row in np.argsort(((vectors - query) ** 2).sum(axis=1), kind="stable")[:k]]


def test_a_search_finds_the_neighbors_and_what_is_stored_of_them(
    channel: grpc.Channel, vectors: np.ndarray
) -> None:
    answer = search_service_pb2_grpc.SearchServiceStub(channel).Search(
        request_of(vectors[3], neighbor_count=4, return_full_datapoint=True)
    )
    assert ids_of(answer) == truth(vectors, vectors[3], 4)
    nearest = answer.neighbors[0]
    assert nearest.distance == pytest.approx(0, abs=1e-5)
    assert nearest.score == pytest.approx(-nearest.distance)
    assert nearest.datapoint.crowding_tag == "tag-3"
    assert json_format.MessageToDict(nearest.datapoint.embedding_metadata) == {
        "row": 3.0,
        "nested": {"ümlaut": ["ä", None, True]},
    }
    np.testing.assert_allclose(nearest.datapoint.feature_vector, vectors[3], rtol=1e-6)
    assert answer.index_version == "indexes/plain/versions/v000001"
    assert answer.search_duration.ToNanoseconds() > 0
    assert not answer.HasField("embed_duration")


def test_every_form_of_a_query_finds_the_same(channel: grpc.Channel, vectors: np.ndarray) -> None:
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    values = datapoint_pb2.Vector(values=vectors[5].tolist())
    answers = [
        stub.Search(request_of(vectors[5])),
        stub.Search(search_service_pb2.SearchRequest(index="indexes/plain", vector=values)),
        stub.Search(search_service_pb2.SearchRequest(index="plain", datapoint_id="id-5")),
    ]
    assert [ids_of(answer) for answer in answers] == [truth(vectors, vectors[5], 10)] * 3


def test_text_is_embedded_and_says_how_long_it_took(channel: grpc.Channel) -> None:
    request = search_service_pb2.SearchRequest(
        index="shows", text="why does my bread not rise", neighbor_count=1
    )
    answer = search_service_pb2_grpc.SearchServiceStub(channel).Search(request)
    assert answer.neighbors[0].datapoint.crowding_tag == "bread" or "bread" in ids_of(answer)[0]
    assert answer.embed_duration.ToNanoseconds() > 0


def test_json_says_the_same_as_protobuf(face: Face, channel: grpc.Channel, vectors: np.ndarray) -> None:
    for full in (False, True):
        request = request_of(vectors[7] + 0.25, neighbor_count=6, return_full_datapoint=full)
        over_grpc = search_service_pb2_grpc.SearchServiceStub(channel).Search(request)
        body = json_format.MessageToDict(request)
        del body["index"]
        reply = httpx.post(f"{face.addresses.http}/v1/indexes/plain:search", json=body)
        assert reply.headers["content-type"] == "application/json"
        over_http = json_format.ParseDict(reply.json(), search_service_pb2.SearchResponse())
        over_http.ClearField("search_duration")
        over_grpc.ClearField("search_duration")
        assert over_http == over_grpc


def without_times(answer: search_service_pb2.SearchResponse) -> search_service_pb2.SearchResponse:
    answer.ClearField("search_duration")
    answer.ClearField("embed_duration")
    return answer


def test_a_batch_answers_every_query_in_order(channel: grpc.Channel, vectors: np.ndarray) -> None:
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    queries = np.random.default_rng(2).standard_normal((300, DIMENSIONS), dtype=np.float32)
    batch = search_service_pb2.BatchSearchRequest(
        index="plain",
        vectors=[datapoint_pb2.Vector(float32=query.astype("<f4").tobytes()) for query in queries],
        neighbor_count=3,
    )
    responses = stub.BatchSearch(batch).responses
    assert [ids_of(response) for response in responses] == [truth(vectors, query, 3) for query in queries]
    assert all(response.search_duration.ToNanoseconds() > 0 for response in responses)
    ids = search_service_pb2.BatchSearchRequest(index="plain", datapoint_ids=["id-7", "id-3"])
    assert [ids_of(response)[0] for response in stub.BatchSearch(ids).responses] == ["id-7", "id-3"]


def test_texts_in_a_batch_are_answered_as_alone(face: Face, channel: grpc.Channel) -> None:
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    texts = ["why does my bread not rise", "singing out of tune", "hertz"] * 5
    batch = search_service_pb2.BatchSearchRequest(index="shows", texts=texts, neighbor_count=1)
    responses = stub.BatchSearch(batch).responses
    assert all(response.embed_duration.ToNanoseconds() > 0 for response in responses)
    for text, response in zip(texts, responses, strict=True):
        alone = stub.Search(search_service_pb2.SearchRequest(index="shows", text=text, neighbor_count=1))
        assert without_times(response) == without_times(alone)
    body = {"texts": texts, "neighborCount": 1}
    reply = httpx.post(f"{face.addresses.http}/v1/indexes/shows:batchSearch", json=body).json()
    over_http = json_format.ParseDict(reply, search_service_pb2.BatchSearchResponse())
    assert list(map(without_times, over_http.responses)) == list(responses)


def test_a_stream_answers_in_order_and_goes_on_after_an_error(
    channel: grpc.Channel, vectors: np.ndarray
) -> None:
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    queries = np.random.default_rng(3).standard_normal((1000, DIMENSIONS), dtype=np.float32)
    requests = [request_of(query, neighbor_count=1 + row % 5) for row, query in enumerate(queries)]
    requests[500] = search_service_pb2.SearchRequest(index="nosuch", datapoint_id="x")
    requests[600] = request_of(np.full(DIMENSIONS, np.nan))
    answers = list(stub.StreamSearch(iter(requests)))
    assert len(answers) == len(requests)
    assert (answers[500].error.code, answers[600].error.code) == (5, 3)
    assert "nosuch" in answers[500].error.message
    for row, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        if row not in (500, 600):
            assert ids_of(answer.response) == truth(vectors, query, 1 + row % 5)


@pytest.mark.anyio
async def test_a_stream_answers_each_query_while_it_is_open(face: Face, vectors: np.ndarray) -> None:
    async with grpc.aio.insecure_channel(face.addresses.grpc) as channel:
        stub: Any = search_service_pb2_grpc.SearchServiceStub(channel)
        call = stub.StreamSearch()
        for row in (4, 2, 9):
            await call.write(request_of(vectors[row]))
            assert ids_of((await call.read()).response)[0] == f"id-{row}"
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.anyio
async def test_streams_that_are_given_up_leave_the_server_unharmed(face: Face, vectors: np.ndarray) -> None:
    async with grpc.aio.insecure_channel(face.addresses.grpc) as channel:
        stub: Any = search_service_pb2_grpc.SearchServiceStub(channel)
        for _ in range(20):
            call = stub.StreamSearch()
            for _ in range(50):
                await call.write(request_of(vectors[0]))
            await call.read()
            call.cancel()
        late = stub.StreamSearch(timeout=0.2)
        await late.write(request_of(vectors[1]))
        assert ids_of((await late.read()).response)[0] == "id-1"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late.read()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert ids_of(await stub.Search(request_of(vectors[3])))[0] == "id-3"


def test_the_other_methods_answer(channel: grpc.Channel, vectors: np.ndarray) -> None:
    indexes = index_service_pb2_grpc.IndexServiceStub(channel)
    names = [index.name for index in indexes.ListIndexes(index_service_pb2.ListIndexesRequest()).indexes]
    assert names == ["indexes/plain", "indexes/shows"]
    found = indexes.GetIndex(index_service_pb2.GetIndexRequest(name="indexes/plain"))
    assert (found.dimensions, found.datapoint_count) == (DIMENSIONS, COUNT)
    read = datapoint_service_pb2_grpc.DatapointServiceStub(channel).ReadDatapoints(
        datapoint_service_pb2.ReadDatapointsRequest(index="plain", ids=["id-1"])
    )
    np.testing.assert_allclose(read.datapoints[0].feature_vector, vectors[1], rtol=1e-6)


@pytest.mark.anyio
async def test_many_at_once_from_one_connection_each_get_their_own(face: Face, vectors: np.ndarray) -> None:
    queries = np.random.default_rng(1).standard_normal((500, DIMENSIONS), dtype=np.float32)
    async with grpc.aio.insecure_channel(face.addresses.grpc) as channel:
        stub: Any = search_service_pb2_grpc.SearchServiceStub(channel)
        answers = await asyncio.gather(
            *(stub.Search(request_of(query, neighbor_count=1 + row % 7)) for row, query in enumerate(queries))
        )
    for row, (query, answer) in enumerate(zip(queries, answers, strict=True)):
        assert ids_of(answer) == truth(vectors, query, 1 + row % 7)


@pytest.mark.anyio
async def test_bad_queries_among_good_ones_fail_alone(face: Face, vectors: np.ndarray) -> None:
    async with grpc.aio.insecure_channel(face.addresses.grpc) as channel:
        stub: Any = search_service_pb2_grpc.SearchServiceStub(channel)
        queries = [vectors[0], np.full(DIMENSIONS, np.nan), np.ones(3), vectors[1]] * 25
        answers: list[Any] = await asyncio.gather(
            *map(stub.Search, map(request_of, queries)), return_exceptions=True
        )
    for position, answer in enumerate(answers):
        if position % 4 in (0, 3):
            assert ids_of(answer)[0] == f"id-{position % 4 // 3}"
        else:
            assert answer.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_large_message_passes_both_ways(channel: Any) -> None:
    ids = [f"id-{row % COUNT}" for row in range(1000)]
    request = datapoint_service_pb2.ReadDatapointsRequest(index="plain", ids=ids)
    # Unknown fields are kept and skipped: a legal way to be large.
    padded = request.SerializeToString() + b"\xfa\x01\x80\x80\x80\x06" + b"x" * (12 << 20)
    data = channel.unary_unary("/earshot.v1.DatapointService/ReadDatapoints")(padded)
    assert len(datapoint_service_pb2.ReadDatapointsResponse.FromString(data).datapoints) == 1000


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests_are_read(face: Face, vectors: np.ndarray, compression: grpc.Compression) -> None:
    with grpc.insecure_channel(face.addresses.grpc, compression=compression) as channel:
        request = request_of(vectors[2], neighbor_count=50)
        answer = search_service_pb2_grpc.SearchServiceStub(channel).Search(request)
        assert len(answer.neighbors) == 50


def test_health_says_serving_for_each_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "earshot.v1.SearchService"):
        assert stub.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_watch_tells_the_status_and_waits(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest(service="earshot.v1.IndexService"))
    assert next(watching).status == 1
    watching.cancel()
    unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_reflection_describes_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {"earshot.v1.SearchService", "grpc.health.v1.Health"} <= set(database.get_services())
    file = database.FindFileContainingSymbol("earshot.v1.SearchService")
    assert file.service[0].method[0].name == "Search"


def test_a_deadline_ends_a_stream_and_the_connection_lives_on(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=0.3))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 3
    assert stub.Check(health_pb2.HealthCheckRequest()).status == 1


def test_cancelled_calls_leave_the_server_unharmed(face: Face, channel: Any, vectors: np.ndarray) -> None:
    call = channel.unary_unary(SEARCH)
    data = request_of(vectors[0]).SerializeToString()
    for _ in range(200):
        call.future(data).cancel()
    watches = [channel.unary_stream("/grpc.health.v1.Health/Watch")(b"") for _ in range(50)]
    for watch in watches:
        next(watch)
        watch.cancel()
    assert ids_of(search_service_pb2.SearchResponse.FromString(call(data)))[0] == "id-0"


def test_who_gives_most_calls_up_keeps_the_connection(face: Face, vectors: np.ndarray) -> None:
    data = request_of(vectors[0]).SerializeToString()
    channel: Any
    # Envoy would take more than half of 500 streams for a flood.
    with grpc.insecure_channel(face.addresses.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(SEARCH)
        for _ in range(300):
            answer, *given_up = (call.future(data, timeout=30) for _ in range(3))
            for future in given_up:
                future.cancel()
            assert answer.result()


@pytest.mark.anyio
async def test_clients_that_vanish_leave_the_server_unharmed(face: Face, vectors: np.ndarray) -> None:
    for _ in range(10):
        channel: Any = grpc.aio.insecure_channel(
            face.addresses.grpc, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        calls = [channel.unary_unary(SEARCH)(request_of(vectors[0]).SerializeToString()) for _ in range(20)]
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        await watch.read()
        await channel.close(None)
        await asyncio.gather(*calls, return_exceptions=True)
    reply = httpx.get(f"{face.addresses.http}/healthz")
    assert reply.status_code == 200


def test_http_clients_that_vanish_leave_the_server_unharmed(face: Face) -> None:
    host, port = face.addresses.http.removeprefix("http://").split(":")
    beginnings = [
        b"POST /v1/indexes/plain:search HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v1/indexes/plain:search HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n"
        b'{"datapointId":"id-1"}',
        b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/indexes HTTP/1.1\r\nHost: x\r\n",
        b"\0\1\2 nonsense\r\n\r\n",
    ]
    for beginning in beginnings * 10:
        with socket.create_connection((host, int(port))) as connection:
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )  # RST on close
            connection.sendall(beginning)
    assert httpx.get(f"{face.addresses.http}/healthz").status_code == 200


def test_http_keeps_a_connection_for_many_requests(face: Face) -> None:
    with httpx.Client(base_url=face.addresses.http) as client, ThreadPoolExecutor(4) as threads:
        replies = list(threads.map(lambda row: client.get(f"/v1/indexes?pageSize={1 + row % 2}"), range(100)))
    assert {reply.status_code for reply in replies} == {200}
    assert [len(reply.json()["indexes"]) for reply in replies] == [1, 2] * 50
