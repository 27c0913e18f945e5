"""Both faces ask alike, over gRPC and HTTP, on real sockets."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from earshot.client import Client
from earshot.errors import PermissionDenied, Unauthenticated
from earshot.server.auth import Grant, TokenFile
from earshot.v1 import (
    datapoint_service_pb2,
    index_service_pb2,
    index_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)
from tests.server.hot.conftest import Face, serving_face, settings_for
from tests.servers import earshot


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("guarded") / "data"
    shutil.copytree(data_dir, copy)
    return copy


@pytest.fixture(scope="module", params=["portable", "direct"])
def face(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    TokenFile(folder / "tokens.json").create([Grant.parse("admin")])
    log_file = tmp_path_factory.mktemp(request.param) / "server.log"
    with serving_face(request.param, settings_for(folder), log_file) as face:
        yield face
    assert "Traceback" not in face.log()


Make = Callable[..., str]


@pytest.fixture
def token(face: Face, folder: Path) -> Make:
    """Makes tokens, and waits until the server knows them."""

    def make(*scopes: str, **more: Any) -> str:
        secret = TokenFile(folder / "tokens.json").create([Grant.parse(scope) for scope in scopes], **more)
        give_up = time.monotonic() + 10
        while not httpx.get(f"{face.addresses.http}/readyz", headers=bearer(secret.secret)).json()["indexes"]:
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return secret.secret

    return make


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def channel(face: Face) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(face.addresses.grpc) as channel:
        yield channel


def over_grpc(channel: grpc.Channel, secret: str | None, index: str = "plain") -> str:
    """OK, or the status and what is said."""
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    metadata = tuple(bearer(secret).items()) if secret else ()
    try:
        stub.Search(
            search_service_pb2.SearchRequest(index=index, datapoint_id="id-1"), metadata=metadata, timeout=10
        )
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


def over_http(face: Face, secret: str | None, index: str = "plain") -> httpx.Response:
    return httpx.post(
        f"{face.addresses.http}/v1/indexes/{index}:search",
        json={"datapointId": "id-1"},
        headers=bearer(secret) if secret else {},
    )


def test_without_a_token_nobody_searches(face: Face, channel: grpc.Channel) -> None:
    for secret in (None, "earshot_wrong"):
        assert over_grpc(channel, secret).startswith("UNAUTHENTICATED")
        reply = over_http(face, secret)
        assert (reply.status_code, reply.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert reply.headers["www-authenticate"].startswith("Bearer")


def test_with_one_they_do_in_either_form(face: Face, channel: grpc.Channel, token: Make) -> None:
    secret = token("read")
    assert over_grpc(channel, secret) == "OK"
    assert over_http(face, secret).status_code == 200
    stub = index_service_pb2_grpc.IndexServiceStub(channel)
    assert stub.ListIndexes(index_service_pb2.ListIndexesRequest(), metadata=(("bearer", secret),)).indexes


def test_a_token_of_one_index_reads_no_other_and_sees_no_other(
    face: Face, channel: grpc.Channel, token: Make
) -> None:
    secret = token("read:plain")
    assert over_grpc(channel, secret) == "OK"
    for index in ("shows", "no-such-index"):  # whether it exists is not told
        said = over_grpc(channel, secret, index)
        assert said.startswith("PERMISSION_DENIED")
        assert f"lacks the scope read on index '{index}'" in said
        assert over_http(face, secret, index).status_code == 403
    stub = index_service_pb2_grpc.IndexServiceStub(channel)
    metadata = tuple(bearer(secret).items())
    listed = stub.ListIndexes(index_service_pb2.ListIndexesRequest(page_size=1), metadata=metadata)
    assert [index.name for index in listed.indexes] == ["indexes/plain"]
    assert listed.next_page_token == ""
    page = httpx.get(f"{face.addresses.http}/v1/indexes", headers=bearer(secret)).json()
    assert [index["name"] for index in page["indexes"]] == ["indexes/plain"]


def test_a_stream_refuses_a_query_of_a_foreign_index_and_goes_on(channel: grpc.Channel, token: Make) -> None:
    secret = token("read:plain")
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    queries = [
        search_service_pb2.SearchRequest(index=index, datapoint_id="id-1")
        for index in ("plain", "shows", "plain")
    ]
    answers = list(stub.StreamSearch(iter(queries), metadata=tuple(bearer(secret).items())))
    assert [answer.WhichOneof("result") for answer in answers] == ["response", "error", "response"]
    assert answers[1].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamSearch(iter(queries)))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_revoked_token_is_refused_within_a_second(
    face: Face, channel: grpc.Channel, folder: Path, token: Make
) -> None:
    secret = token("read", note="short-lived")
    assert over_grpc(channel, secret) == "OK"
    file = TokenFile(folder / "tokens.json")
    file.revoke(next(token.id for token in file.read() if token.note == "short-lived"))
    time.sleep(1)
    assert over_grpc(channel, secret).startswith("UNAUTHENTICATED")
    assert over_http(face, secret).status_code == 401


def test_above_its_rate_a_token_is_told_when_to_come_back(
    face: Face, channel: grpc.Channel, token: Make
) -> None:
    secret = token("read", requests_per_second=0.1, burst=2)
    assert [over_http(face, secret).status_code for _ in range(3)] == [200, 200, 429]
    refused = over_http(face, secret)
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert refused.json()["error"]["details"][0]["retryDelay"].endswith("s")
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    request = search_service_pb2.SearchRequest(index="plain", datapoint_id="id-1")
    with pytest.raises(grpc.RpcError) as caught:
        stub.Search(request, metadata=tuple(bearer(secret).items()))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers: Any = caught.value.trailing_metadata()
    assert 0 < int(dict(trailers)["grpc-retry-pushback-ms"]) <= 10_000


def test_the_queries_of_a_batch_count_one_by_one(face: Face, channel: grpc.Channel, token: Make) -> None:
    stub = search_service_pb2_grpc.SearchServiceStub(channel)
    request = search_service_pb2.BatchSearchRequest(index="plain", datapoint_ids=["id-1"] * 20)

    def batch_over_grpc(secret: str) -> None:
        stub.BatchSearch(request, metadata=tuple(bearer(secret).items()))

    def batch_over_http(secret: str) -> None:
        url = f"{face.addresses.http}/v1/indexes/plain:batchSearch"
        assert httpx.post(url, json={"datapointIds": ["id-1"] * 20}, headers=bearer(secret)).is_success

    for batch in (batch_over_grpc, batch_over_http):
        secret = token("read", requests_per_second=1.0, burst=5)
        batch(secret)
        assert 14 <= int(over_http(face, secret).headers["retry-after"]) <= 16


def test_health_and_the_schema_are_open_and_name_no_index(face: Face, channel: grpc.Channel) -> None:
    check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"") == b"\x08\x01"
    ready = httpx.get(f"{face.addresses.http}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "indexes": [], "problems": {}})
    for path in ("/healthz", "/docs", "/openapi.json"):
        assert httpx.get(face.addresses.http + path).status_code == 200
    assert httpx.get(f"{face.addresses.http}/v1/indexes").status_code == 401
    assert httpx.get(f"{face.addresses.http}/metrics").status_code == 401


@pytest.mark.parametrize("verb", [":search", "/datapoints:read"])
def test_a_refusal_reaches_clients_that_are_still_sending(face: Face, verb: str) -> None:
    """An answer that overtakes the body is lost by some clients; in HTTP/2, curl is one."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    url = f"{face.addresses.http}/v1/indexes/plain{verb}"
    command = ["curl", "-sS", "--http2-prior-knowledge" if face.transport != "portable" else "--http1.1", url]
    command += ["-d", json.dumps({"datapointId": "x" * 20_000}), "-w", "%{http_code}\n", "-o", "/dev/null"]
    for _ in range(10):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("401\n", "")


def test_a_body_is_not_read_before_the_token(face: Face) -> None:
    """The announced body never comes, and the refusal does not wait for it."""
    host, port = face.addresses.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as raw:
        raw.sendall(
            b"POST /v1/indexes/plain:search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_the_client_sends_its_token_with_every_kind_of_call(face: Face, token: Make, wire: str) -> None:
    with Client(getattr(face.addresses, wire), token=token("write:plain")) as client:
        assert client.search("plain", datapoint_id="id-1", k=1)[0].id == "id-1"
        assert len(client.search_batch("plain", datapoint_ids=["id-1", "id-2"], k=1)) == 2
        assert [index.name for index in client.indexes()] == ["indexes/plain"]
        assert client.read("plain", ["id-1"])[0].id == "id-1"
        assert client.remove("plain", ["nobody"]).count == 0
        found = list(client.search_stream("plain", datapoint_ids=["id-1", "id-2"], k=1))
        assert [each[0].id for each in found] == ["id-1", "id-2"]  # type: ignore[index]
        with pytest.raises(PermissionDenied, match="admin"):
            client.delete_index("plain", force=True)
    with Client(getattr(face.addresses, wire)) as stranger:
        assert stranger.ready()
        with pytest.raises(Unauthenticated):
            stranger.search("plain", datapoint_id="id-1")


def test_the_command_line_takes_the_token_from_the_environment(face: Face, folder: Path, token: Make) -> None:
    asked = ("indexes", "--server", face.addresses.grpc, "--json")
    done = earshot(folder, *asked, EARSHOT_TOKEN=token("read:plain"))
    assert [index["name"] for index in json.loads(done.stdout)] == ["indexes/plain"]
    refused = earshot(folder, *asked, EARSHOT_TOKEN="")
    assert refused.returncode == 1
    assert "Authorization: Bearer" in refused.stderr


def test_a_scope_on_one_index_says_nothing_of_another(channel: grpc.Channel, token: Make) -> None:
    ids: Any = channel.unary_unary("/earshot.v1.DatapointService/ReadDatapoints")
    request = datapoint_service_pb2.ReadDatapointsRequest(index="shows", ids=["x"])
    with pytest.raises(grpc.RpcError) as caught:
        ids(request.SerializeToString(), metadata=tuple(bearer(token("admin:plain")).items()))
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
