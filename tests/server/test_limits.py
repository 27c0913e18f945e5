"""Nothing on the wire is larger than it may be: requests, answers and headers, on both faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from earshot.server.limits import MAX_HEADER_BYTES
from earshot.v1 import search_service_pb2, search_service_pb2_grpc
from tests.server.hot.conftest import Face, serving_face, settings_for

LIMIT = 2048


@pytest.fixture(scope="module", params=["portable", "envoy", "direct"])
def face(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    settings = settings_for(data_dir, max_message_bytes=LIMIT, max_answer_bytes=LIMIT)
    with serving_face(request.param, settings, tmp_path_factory.mktemp(request.param) / "log") as face:
        yield face
    assert "Traceback" not in face.log()


@pytest.fixture
def stub(face: Face) -> Iterator[Any]:
    options = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
    with grpc.insecure_channel(face.addresses.grpc, options=options) as channel:
        yield search_service_pb2_grpc.SearchServiceStub(channel)


SMALL = {"neighbor_count": 1}
LARGE_ANSWER = {"neighbor_count": 50, "return_full_datapoint": True}


def query(**more: Any) -> search_service_pb2.SearchRequest:
    return search_service_pb2.SearchRequest(index="plain", datapoint_id="id-1", **more)


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, str(caught.value.details())


def test_a_request_above_the_limit_is_refused(face: Face, stub: Any) -> None:
    request = search_service_pb2.SearchRequest(index="plain", text="x" * 2 * LIMIT)
    assert refusal(lambda: stub.Search(request))[0] == "RESOURCE_EXHAUSTED"
    reply = httpx.post(f"{face.addresses.http}/v1/indexes/plain:search", json={"text": "x" * 2 * LIMIT})
    assert reply.status_code == 400
    assert str(LIMIT) in reply.json()["error"]["message"]
    assert stub.Search(query(**SMALL)).neighbors


def test_an_answer_above_the_limit_is_not_sent_and_what_to_do_is_said(face: Face, stub: Any) -> None:
    code, message = refusal(lambda: stub.Search(query(**LARGE_ANSWER)))
    assert code == "RESOURCE_EXHAUSTED"
    assert f"max_answer_bytes, is {LIMIT}: ask for fewer neighbors" in message
    for verb, body in (
        ("search", {"datapointId": "id-1", "neighborCount": 50}),
        ("batchSearch", {"datapointIds": ["id-1"] * 10}),
    ):
        reply = httpx.post(f"{face.addresses.http}/v1/indexes/plain:{verb}", json=body)
        assert (reply.status_code, reply.json()["error"]["status"]) == (429, "RESOURCE_EXHAUSTED")
        assert "retry-after" not in reply.headers  # later it would be as large
    reply = httpx.post(f"{face.addresses.http}/v1/indexes/plain/datapoints:read", json={"ids": ["id-1"] * 20})
    assert reply.status_code == 429
    assert stub.Search(query(**SMALL)).neighbors


def test_in_a_stream_only_the_answer_that_is_too_large_is_missing(stub: Any) -> None:
    answers = list(stub.StreamSearch(iter([query(**SMALL), query(**LARGE_ANSWER), query(**SMALL)])))
    assert [answer.WhichOneof("result") for answer in answers] == ["response", "error", "response"]
    assert answers[1].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


def test_headers_above_the_limit_are_refused_and_the_next_request_is_answered(face: Face, stub: Any) -> None:
    large, small = "x" * 2 * MAX_HEADER_BYTES, "x" * (MAX_HEADER_BYTES // 2)
    # By the transport, before the application sees it; Envoy resets the stream.
    code, message = refusal(lambda: stub.Search(query(**SMALL), metadata=(("x-large", large),)))
    assert code == {"envoy": "INTERNAL"}.get(face.transport, "RESOURCE_EXHAUSTED"), message
    assert stub.Search(query(**SMALL), metadata=(("x-small", small),)).neighbors
    url = f"{face.addresses.http}/v1/indexes/plain"
    assert httpx.get(url, headers={"x-large": large}).status_code in (400, 431)
    assert httpx.get(url, headers={"x-small": small}).status_code == 200
