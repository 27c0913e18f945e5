"""Whatever is wrong with a request: the same status and words over gRPC and HTTP, and the server unharmed."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format

from earshot.errors import TABLE
from earshot.v1 import search_service_pb2
from tests.servers import Server

from .conftest import DIMENSIONS

GOOD = {"vector": {"values": [0.5] * DIMENSIONS}}


def float32(*values: float) -> dict[str, Any]:
    return {"vector": {"float32": base64.b64encode(np.array(values, "<f4").tobytes()).decode()}}


def call(channel: grpc.Channel, data: bytes, *, method: str = "Search") -> bytes:
    """Bytes out and in, as any client of any language sends them."""
    send: Any = channel.unary_unary(f"/earshot.v1.SearchService/{method}")
    return bytes(send(data))


CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "unknown index": ("nosuch", GOOD, "NOT_FOUND", "nosuch"),
    "bad index name": ("UPPER case", GOOD, "NOT_FOUND", "UPPER case"),
    "nothing to search for": ("plain", {}, "INVALID_ARGUMENT", "exactly one of text, vector and"),
    "empty text": ("shows", {"text": ""}, "INVALID_ARGUMENT", "text is empty"),
    "blank text": ("shows", {"text": " \n\t"}, "INVALID_ARGUMENT", "text is empty"),
    "too much text": ("shows", {"text": "word " * 9000}, "INVALID_ARGUMENT", "45000 characters"),
    "text without a model": ("plain", {"text": "hello"}, "FAILED_PRECONDITION", "search by vector"),
    "wrong dimension": ("plain", {"vector": {"values": [1.0]}}, "INVALID_ARGUMENT", "dimension 8"),
    "empty vector": ("plain", {"vector": {}}, "INVALID_ARGUMENT", "exactly one of values and float32"),
    "both forms": (
        "plain",
        {"vector": {"values": [1.0], **float32(1.0)["vector"]}},
        "INVALID_ARGUMENT",
        "exactly one of values and float32",
    ),
    "bytes cut short": (
        "plain",
        {"vector": {"float32": base64.b64encode(b"12345").decode()}},
        "INVALID_ARGUMENT",
        "5 bytes",
    ),
    "NaN": ("plain", float32(math.nan, *[0.0] * 7), "INVALID_ARGUMENT", "NaN"),
    "infinity": ("plain", float32(*[0.0] * 7, math.inf), "INVALID_ARGUMENT", "infinity"),
    "k of zero": ("plain", {**GOOD, "neighborCount": 0}, "INVALID_ARGUMENT", "neighbor_count is 0"),
    "k below zero": ("plain", {**GOOD, "neighborCount": -3}, "INVALID_ARGUMENT", "neighbor_count is -3"),
    "k too large": (
        "plain",
        {**GOOD, "neighborCount": 10_001},
        "INVALID_ARGUMENT",
        "neighbor_count is 10001",
    ),
    "unknown datapoint": ("plain", {"datapointId": "ghost"}, "NOT_FOUND", "ghost"),
    "recall above one": ("plain", {**GOOD, "targetRecall": 1.5}, "INVALID_ARGUMENT", "1.5"),
    "negative crowding": (
        "plain",
        {**GOOD, "perCrowdingAttributeNeighborCount": -1},
        "INVALID_ARGUMENT",
        "per_crowding_attribute_neighbor_count is -1",
    ),
    "fraction of zero": (
        "plain",
        {**GOOD, "fractionLeafNodesToSearchOverride": 0.0},
        "INVALID_ARGUMENT",
        "fraction_leaf_nodes_to_search",
    ),
    "filter on an index that has none": (
        "plain",
        {**GOOD, "restricts": [{"namespace": "language", "allowList": ["de"]}]},
        "FAILED_PRECONDITION",
        "'plain' was built without restricts",
    ),
    "restrict without a namespace": (
        "shows",
        {"text": "x", "restricts": [{"allowList": ["de"]}]},
        "INVALID_ARGUMENT",
        "a namespace is empty",
    ),
    "comparison without a number": (
        "shows",
        {"text": "x", "numericRestricts": [{"namespace": "year", "op": "LESS"}]},
        "INVALID_ARGUMENT",
        "'year' has no value",
    ),
    "comparison without an operator": (
        "shows",
        {"text": "x", "numericRestricts": [{"namespace": "year", "valueInt": "2020"}]},
        "INVALID_ARGUMENT",
        "'year' with 2020 but has no op",
    ),
    "an operator from the future": (
        "shows",
        {"text": "x", "numericRestricts": [{"namespace": "year", "valueInt": 2020, "op": 7}]},
        "INVALID_ARGUMENT",
        "op of namespace 'year' is 7",
    ),
    "compared with NaN": (
        "shows",
        {"text": "x", "numericRestricts": [{"namespace": "year", "valueDouble": "NaN", "op": "LESS"}]},
        "INVALID_ARGUMENT",
        "'year' has the value NaN",
    ),
    "a token of 2,000 bytes": (
        "shows",
        {"text": "x", "restricts": [{"namespace": "show", "denyList": ["x" * 2000]}]},
        "INVALID_ARGUMENT",
        "2000 bytes",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_http_names_what_is_wrong(server: Server, case: str) -> None:
    index, body, code, words = CASES[case]
    reply = httpx.post(f"{server.http}/v1/indexes/{index}:search", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["status"], error["code"]) == (TABLE[code].http, code, TABLE[code].http)
    assert words in error["message"]


@pytest.mark.parametrize("case", CASES)
def test_grpc_names_what_is_wrong_in_the_same_words(server: Server, case: str) -> None:
    index, body, code, words = CASES[case]
    request = json_format.ParseDict({"index": f"indexes/{index}", **body}, search_service_pb2.SearchRequest())
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, request.SerializeToString())
    assert caught.value.code().name == code
    assert words in str(caught.value.details())
    over_http = httpx.post(f"{server.http}/v1/indexes/{index}:search", json=body).json()["error"]["message"]
    assert caught.value.details() == over_http


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'"vector": {}', "not JSON"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "expected `object`"),
        (b'{"texd": "typo"}', "unknown field `texd`"),
        (b'{"text": 5}', "text is 5"),
        (b'{"neighborCount": "many", "text": "x"}', "neighborCount is 'many'"),
        (b'{"neighborCount": 1.5, "text": "x"}', "neighborCount is 1.5"),
        (b'{"vector": {"values": [1, "a"]}}', "vector.values[1] is 'a'"),
        (b'{"vector": {"values": [NaN]}}', "not JSON"),
        (b'{"text": "x", "restricts": [{"namespace": "a", "allow": ["b"]}]}', "unknown field `allow`"),
        (b'{"text": "x", "numericRestricts": [{"valueInt": 1.5}]}', "numericRestricts[0].valueInt is 1.5"),
        (
            b'{"text": "x", "numericRestricts": [{"namespace": "a", "valueInt": 1, "valueFloat": 2}]}',
            "exactly one",
        ),
        (b'{"vector": {"float32": "@@"}}', "vector.float32 is '@@'"),
    ],
)
def test_malformed_json_is_told_by_field_and_value(server: Server, body: bytes, words: str) -> None:
    reply = httpx.post(f"{server.http}/v1/indexes/plain:search", content=body)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


V = GOOD["vector"]
BATCHES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no queries": ("plain", {}, "INVALID_ARGUMENT", "nothing given; give exactly one of texts, vectors,"),
    "two kinds": ("plain", {"texts": ["x"], "vectors": [V]}, "INVALID_ARGUMENT", "texts and vectors given"),
    "too many": ("plain", {"vectors": [V] * 1001}, "INVALID_ARGUMENT", "vectors has 1001 entries"),
    "too many neighbors": (
        "plain",
        {"vectors": [V] * 11, "neighborCount": 10_000},
        "INVALID_ARGUMENT",
        "11 queries want 10000 neighbors each",
    ),
    "the third of wrong dimension": (
        "plain",
        {"vectors": [V, V, {"values": [1.0]}]},
        "INVALID_ARGUMENT",
        "vectors[2] has 1 numbers",
    ),
    "NaN in the second": (
        "plain",
        {"vectors": [V, float32(math.nan, *[0.0] * 7)["vector"]]},
        "INVALID_ARGUMENT",
        "vectors[1] holds NaN",
    ),
    "an unknown datapoint": ("plain", {"datapointIds": ["id-1", "ghost"]}, "NOT_FOUND", "ghost"),
    "a blank text": ("shows", {"texts": ["x", " "]}, "INVALID_ARGUMENT", "texts[1] is empty"),
    "texts without a model": ("plain", {"texts": ["x"]}, "FAILED_PRECONDITION", "search by vector"),
    "unknown index": ("nosuch", {"vectors": [V]}, "NOT_FOUND", "nosuch"),
    "k of zero": ("plain", {"vectors": [V], "neighborCount": 0}, "INVALID_ARGUMENT", "neighbor_count is 0"),
}


@pytest.mark.parametrize("case", BATCHES)
def test_a_bad_batch_is_told_in_the_same_words_by_grpc_and_http(server: Server, case: str) -> None:
    index, body, code, words = BATCHES[case]
    reply = httpx.post(f"{server.http}/v1/indexes/{index}:batchSearch", json=body)
    assert (reply.status_code, reply.json()["error"]["status"]) == (TABLE[code].http, code)
    assert words in reply.json()["error"]["message"]
    request = json_format.ParseDict({"index": index, **body}, search_service_pb2.BatchSearchRequest())
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, request.SerializeToString(), method="BatchSearch")
    assert caught.value.code().name == code
    assert caught.value.details() == reply.json()["error"]["message"]


def test_malformed_protobuf_is_an_invalid_argument(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, b"\xff\xff\xff not a message")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "earshot.v1.SearchRequest" in str(caught.value.details())


def test_an_unknown_method_is_unimplemented(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, b"", method="Nothing")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_an_oversized_body_is_refused_and_not_read_to_its_end(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(1 << 14):
            yield b" " * (1 << 14)

    try:
        reply = httpx.post(f"{server.http}/v1/indexes/plain:search", content=endless())
    except httpx.TransportError:
        return  # the server answered and closed while we were still sending
    assert reply.status_code == 400
    assert "max_message_bytes" in reply.json()["error"]["message"]


def test_an_oversized_message_is_refused(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel, b" " * (17 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nowhere", 404, "/docs lists"),
        ("GET", "/v1/indexes/nosuch", 404, "nosuch"),
        ("GET", "/v1/indexes/nosuch/versions", 404, "nosuch"),
        ("PUT", "/v1/indexes/plain", 405, "does not take PUT"),
        ("GET", "/v1/indexes?pageSize=many", 400, "pageSize is 'many'"),
        ("GET", "/v1/indexes?pageSize=-1", 400, "page_size is -1"),
    ],
)
def test_paths_and_parameters_that_do_not_exist(
    server: Server, method: str, path: str, status: int, words: str
) -> None:
    reply = httpx.request(method, server.http + path)
    assert reply.status_code == status
    assert words in reply.json()["error"]["message"]


def test_the_server_still_answers(server: Server) -> None:
    reply = httpx.post(f"{server.http}/v1/indexes/plain:search", json=GOOD)
    assert reply.status_code == 200
    assert len(reply.json()["neighbors"]) == 10
