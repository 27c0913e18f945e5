"""What a browser and curl see: the API page without any foreign address, its examples, health."""

from __future__ import annotations

import base64
import re

import httpx
import numpy as np

from tests.servers import Server

from .conftest import COUNT


def test_the_api_page_works_without_the_internet(server: Server) -> None:
    page = httpx.get(f"{server.http}/", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/docs")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/"), address
        assert httpx.get(server.http + address).status_code == 200


def test_every_reference_of_the_schema_resolves(server: Server) -> None:
    text = httpx.get(f"{server.http}/openapi.json").text
    schema = httpx.get(f"{server.http}/openapi.json").json()
    named = set(schema["components"]["schemas"])
    assert set(re.findall(r'"#/components/schemas/(\w+)"', text)) <= named
    assert "/v1/indexes/{index}:search" in schema["paths"]


def test_the_examples_of_the_schema_run(server: Server) -> None:
    schema = httpx.get(f"{server.http}/openapi.json").json()
    content = schema["paths"]["/v1/indexes/{index}:search"]["post"]["requestBody"]["content"]
    examples = content["application/json"]["examples"]
    assert len(examples) >= 2
    for example in examples.values():
        reply = httpx.post(f"{server.http}/v1/indexes/shows:search", json=example["value"])
        assert reply.status_code == 200, reply.text


def test_search_by_vector_in_both_forms_by_id_and_in_snake_case(server: Server, vectors: np.ndarray) -> None:
    def ids(**body: object) -> list[str]:
        reply = httpx.post(f"{server.http}/v1/indexes/plain:search", json={"neighborCount": 4, **body})
        assert reply.status_code == 200, reply.text
        return [neighbor["datapoint"]["datapointId"] for neighbor in reply.json()["neighbors"]]

    expected = [f"id-{row}" for row in np.argsort(((vectors - vectors[3]) ** 2).sum(axis=1))[:4]]
    assert ids(vector={"values": vectors[3].tolist()}) == expected
    assert ids(vector={"float32": base64.b64encode(vectors[3].tobytes()).decode()}) == expected
    assert ids(datapointId="id-3") == expected
    assert ids(datapoint_id="id-3") == expected


def test_metadata_distance_and_score_are_returned(server: Server) -> None:
    reply = httpx.post(
        f"{server.http}/v1/indexes/plain:search",
        json={"datapointId": "id-7", "neighborCount": 2, "returnFullDatapoint": True},
    ).json()
    first, second = reply["neighbors"]
    assert first["datapoint"]["embeddingMetadata"] == {"row": 7, "nested": {"ümlaut": ["ä", None, True]}}
    assert first["datapoint"]["crowdingTag"] == "tag-2"
    assert len(first["datapoint"]["featureVector"]) == 8
    assert first["distance"] == 0.0
    assert second["distance"] > 0
    assert second["score"] == -second["distance"]
    assert reply["indexVersion"] == "indexes/plain/versions/v000001"


def test_crowding_is_per_request_and_k_beyond_the_index_returns_all(server: Server) -> None:
    def neighbors(**body: object) -> list[dict[str, object]]:
        body = {"datapointId": "id-0", "neighborCount": 1000, **body}
        return list(httpx.post(f"{server.http}/v1/indexes/plain:search", json=body).json()["neighbors"])

    assert len(neighbors()) == COUNT
    assert len(neighbors(perCrowdingAttributeNeighborCount=1)) == 5
    assert len(neighbors(perCrowdingAttributeNeighborCount=2)) == 10
    assert len(neighbors(perCrowdingAttributeNeighborCount=0)) == COUNT


def test_datapoints_are_read_in_order(server: Server) -> None:
    reply = httpx.post(f"{server.http}/v1/indexes/plain/datapoints:read", json={"ids": ["id-9", "id-1"]})
    assert [found["datapointId"] for found in reply.json()["datapoints"]] == ["id-9", "id-1"]


def test_lists_are_paged(server: Server) -> None:
    first = httpx.get(f"{server.http}/v1/indexes?pageSize=1").json()
    assert [index["name"] for index in first["indexes"]] == ["indexes/plain"]
    second = httpx.get(f"{server.http}/v1/indexes?pageSize=1&pageToken={first['nextPageToken']}").json()
    assert [index["name"] for index in second["indexes"]] == ["indexes/shows"]
    assert second["nextPageToken"] == ""


def test_health_and_readiness(server: Server) -> None:
    assert httpx.get(f"{server.http}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{server.http}/readyz")
    assert ready.status_code == 200
    assert ready.json()["indexes"] == ["plain", "shows"]
