"""What a scrape of `/metrics` says after known calls, on both transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from earshot.client import Client
from earshot.errors import EarshotError, NotFound
from earshot.v1 import datapoint_pb2, search_service_pb2, search_service_pb2_grpc
from tests.servers import Server, serving

from .conftest import COUNT, DIMENSIONS

QUERY = np.ones(DIMENSIONS, np.float32)


class Scrape:
    """One reading of `/metrics`."""

    def __init__(self, http: str) -> None:
        reply = httpx.get(f"{http}/metrics")
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/plain")
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(reply.text)
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float:
        """The sum over all samples that have these labels."""
        return sum(
            value
            for (sample, given), value in self._samples.items()
            if sample == name and labels.items() <= set(given)
        )

    def values(self, label: str) -> set[str]:
        return {value for _, labels in self._samples for name, value in labels if name == label}


@pytest.fixture(scope="module", params=["portable", "direct"])
def server(data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of its own: what other tests ask must not be counted here."""
    with serving(data_dir, "--transport", request.param) as running:
        yield running


def search_request() -> search_service_pb2.SearchRequest:
    vector = datapoint_pb2.Vector(float32=QUERY.tobytes())
    return search_service_pb2.SearchRequest(index="plain", vector=vector)


def test_searches_are_counted_with_their_time_in_every_stage(server: Server) -> None:
    before = Scrape(server.http)
    for target in (server.grpc, server.http):
        with Client(target) as client:
            client.search("plain", vector=QUERY)
            client.search("shows", "bread that does not rise")
            client.search_batch("plain", vectors=[QUERY] * 3)
    after = Scrape(server.http)

    def grown(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    for protocol in ("grpc", "http"):
        ok = {"protocol": protocol, "code": "OK"}
        assert grown("earshot_requests_total", method="Search", index="plain", **ok) == 1
        assert grown("earshot_requests_total", method="BatchSearch", index="plain", **ok) == 1
    assert grown("earshot_queries_total", method="BatchSearch", index="plain") == 6
    assert grown("earshot_request_duration_seconds_count", method="Search") == 4
    for stage in ("queue", "engine", "encode"):
        assert grown("earshot_stage_duration_seconds_count", method="Search", stage=stage) == 4
    assert grown("earshot_stage_duration_seconds_count", stage="embed", index="shows") == 2
    assert grown("earshot_stage_duration_seconds_count", stage="embed", index="plain") == 0
    whole = grown("earshot_request_duration_seconds_sum", method="Search")
    assert 0 < grown("earshot_stage_duration_seconds_sum", method="Search") <= whole
    assert after.get("earshot_requests_in_flight") == 0


def test_failures_are_counted_by_code_and_unknown_names_never_become_labels(server: Server) -> None:
    before = Scrape(server.http)
    for target in (server.grpc, server.http):
        with Client(target) as client:
            for number in range(3):
                with pytest.raises(NotFound):
                    client.search(f"made-up-{number}", vector=QUERY)
            with pytest.raises(EarshotError):
                client.search("plain", vector=QUERY[:3])
    httpx.get(f"{server.http}/v1/made-up-path")
    after = Scrape(server.http)
    for code, index, count in (("NOT_FOUND", "", 6), ("INVALID_ARGUMENT", "plain", 2)):
        labels = {"method": "Search", "index": index, "code": code}
        grown = after.get("earshot_requests_total", **labels) - before.get("earshot_requests_total", **labels)
        assert grown == count
    assert after.values("index") <= {"", "plain", "shows"}
    assert after.values("method") <= {"", "Search", "BatchSearch", "StreamSearch", "ListIndexes"}


def test_each_query_of_a_stream_counts(server: Server) -> None:
    channel: Any
    with grpc.insecure_channel(server.grpc) as channel:
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        assert len(list(stub.StreamSearch(search_request() for _ in range(5)))) == 5
    seen = Scrape(server.http)
    assert seen.get("earshot_requests_total", method="StreamSearch", index="plain", code="OK") == 5
    assert seen.get("earshot_open_streams") == 0


def test_indexes_show_their_version_their_size_and_their_recall(server: Server) -> None:
    seen = Scrape(server.http)
    assert seen.get("earshot_index_info", index="plain", version="v000001") == 1
    assert seen.get("earshot_index_datapoints", index="plain") == COUNT
    assert 0 < seen.get("earshot_index_target_recall", index="plain") <= 1
    assert 0 < seen.get("earshot_index_measured_recall", index="plain") <= 1
    assert seen.get("earshot_index_problem") == 0
    assert seen.get("earshot_version_loads_total", result="ok") == 2
    assert seen.get("process_resident_memory_bytes") > 1e6


def test_a_request_id_is_kept_or_made_and_always_returned(server: Server) -> None:
    ours = {"x-request-id": "a-request-of-ours"}
    replies = [
        httpx.post(f"{server.http}/v1/indexes/plain:search", json={"datapointId": "id-1"}, headers=ours),
        httpx.get(f"{server.http}/v1/indexes/plain", headers=ours),
        httpx.get(f"{server.http}/v1/indexes/none", headers=ours),
    ]
    assert [reply.headers.get_list("x-request-id") for reply in replies] == [["a-request-of-ours"]] * 3
    made = {httpx.get(f"{server.http}/v1/indexes").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    channel: Any
    with grpc.insecure_channel(server.grpc) as channel:
        search = search_service_pb2_grpc.SearchServiceStub(channel).Search
        _, call = search.with_call(search_request(), metadata=tuple(ours.items()))
        told = dict([*call.initial_metadata(), *call.trailing_metadata()])
        assert told["x-request-id"] == "a-request-of-ours"
        with pytest.raises(grpc.RpcError) as failed:
            search(search_service_pb2.SearchRequest(index="none"))
        error: Any = failed.value
        metadata = [*error.initial_metadata(), *error.trailing_metadata()]
        assert dict(metadata)["x-request-id"]


def test_a_deadline_is_honoured_over_http_as_over_grpc(server: Server) -> None:
    url = f"{server.http}/v1/indexes/plain:search"
    late = httpx.post(url, json={"datapointId": "id-1"}, headers={"grpc-timeout": "1n"})
    assert (late.status_code, late.json()["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    wrong = httpx.post(url, json={"datapointId": "id-1"}, headers={"grpc-timeout": "soon"})
    assert wrong.status_code == 400
    assert "grpc-timeout" in wrong.json()["error"]["message"]
    assert httpx.get(f"{server.http}/v1/indexes", headers={"grpc-timeout": "soon"}).status_code == 400
    assert httpx.get(f"{server.http}/v1/indexes", headers={"grpc-timeout": "5S"}).status_code == 200
