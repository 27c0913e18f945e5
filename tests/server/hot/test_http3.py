"""HTTP/3 on the hot port: the same service as over HTTP/2, for a client of QUIC."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from earshot.errors import Unavailable
from earshot.server.auth import Grant, TokenFile
from earshot.server.envoy import running_envoy
from earshot.server.envoy.configuration import has_http3
from earshot.server.settings import Settings
from earshot.v1 import datapoint_pb2, search_service_pb2
from tests.certificates import Files

from .conftest import Face, serving_face, settings_for
from .http3_client import GRPC, Answer, frame, http3

SEARCH = "/earshot.v1.SearchService/Search"
STREAM_SEARCH = "/earshot.v1.SearchService/StreamSearch"
WATCH = "/grpc.health.v1.Health/Watch"


def tls(data_dir: Path, files: Files, **more: object) -> Settings:
    return settings_for(data_dir, tls_certificate=files.server, tls_key=files.server_key, **more)


def request(vector: np.ndarray, index: str = "plain") -> bytes:
    """A search by this vector, on the wire."""
    packed = datapoint_pb2.Vector(float32=vector.astype("<f4").tobytes())
    return search_service_pb2.SearchRequest(index=index, vector=packed).SerializeToString()


def no_traceback(log: str) -> None:
    for wrong in ("Traceback", "InvalidStateError", "never retrieved", "never awaited", " ERROR "):
        assert wrong not in log, log


@pytest.fixture(scope="module")
def secure(data_dir: Path, files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    log_file = tmp_path_factory.mktemp("http3") / "log"
    with serving_face("envoy", tls(data_dir, files, log_level="debug"), log_file) as face:
        yield face
    no_traceback(face.log())


@pytest.fixture
def over_http2(secure: Face, files: Files) -> Iterator[Any]:
    credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
    with grpc.secure_channel(secure.addresses.grpc.removeprefix("grpcs://"), credentials) as channel:
        yield channel


def test_search_finds_the_same_over_http_3_and_2(
    secure: Face, files: Files, over_http2: Any, vectors: np.ndarray
) -> None:
    async def ask() -> list[Answer]:
        async with http3(secure.addresses.http, files.ca) as client:
            return await asyncio.gather(*(client.call(SEARCH, request(vector)) for vector in vectors))

    for answer, vector in zip(asyncio.run(ask()), vectors, strict=True):
        assert (answer.status, answer.trailers["grpc-status"]) == (200, "0")
        (found,) = map(search_service_pb2.SearchResponse.FromString, answer.messages)
        other = search_service_pb2.SearchResponse.FromString(over_http2.unary_unary(SEARCH)(request(vector)))
        for timed in (found, other):
            timed.ClearField("search_duration")
        assert found == other
        assert len(found.neighbors) == 10


def test_json_and_errors_are_the_same_over_http_3_and_1(secure: Face, files: Files) -> None:
    bodies = (b'{"vector": {"values": [1,2,3,4,5,6,7,8]}}', b'{"vector": {"values": [1]}}', b"{", b"")
    path = "/v1/indexes/plain:search"

    async def ask() -> list[Answer]:
        async with http3(secure.addresses.http, files.ca) as client:
            return [await client.ask("POST", path, body) for body in bodies]

    with httpx.Client(verify=ssl.create_default_context(cafile=files.ca)) as client:
        for answer, body in zip(asyncio.run(ask()), bodies, strict=True):
            other = client.post(secure.addresses.http + path, content=body)
            assert answer.status == other.status_code
            same = [json.loads(text) for text in (answer.body, other.content)]
            for found in same:
                found.pop("searchDuration", None)
            assert same[0] == same[1]
            assert answer.blocks[0]["content-type"] == other.headers["content-type"]


def test_errors_of_grpc_come_over_http_3(secure: Face, files: Files, vectors: np.ndarray) -> None:
    async def ask() -> tuple[Answer, Answer, Answer]:
        async with http3(secure.addresses.http, files.ca) as client:
            return (
                await client.call(SEARCH, request(vectors[0], "nowhere")),
                await client.call("/earshot.v1.SearchService/Nothing", b""),
                await client.call(SEARCH, request(vectors[0]), **{"grpc-timeout": "1n"}),
            )

    statuses = [answer.trailers["grpc-status"] for answer in asyncio.run(ask())]
    codes = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert statuses == [str(code.value[0]) for code in codes]


def test_a_stream_is_answered_while_it_is_open(secure: Face, files: Files, vectors: np.ndarray) -> None:
    async def ask() -> Answer:
        async with http3(secure.addresses.http, files.ca) as client:
            stream, answer = client.begin("POST", STREAM_SEARCH, GRPC)
            for count, vector in enumerate(vectors[:5], 1):
                client.write(stream, frame(request(vector)), end=False)
                assert len(await answer.has(count)) == count
            client.write(stream, b"", end=True)
            return await answer.end()

    answer = asyncio.run(ask())
    assert answer.trailers["grpc-status"] == "0"
    found = [search_service_pb2.StreamSearchResponse.FromString(each) for each in answer.messages]
    assert [each.response.neighbors[0].datapoint.datapoint_id for each in found] == [
        f"id-{row}" for row in range(5)
    ]


def test_streams_given_up_and_clients_that_vanish_are_let_go(
    secure: Face, files: Files, vectors: np.ndarray
) -> None:
    async def trouble() -> None:
        before = secure.log().count("a client vanished")
        for _ in range(10):
            async with http3(secure.addresses.http, files.ca) as client:
                answers = []
                for _ in range(2):
                    stream, answer = client.begin("POST", STREAM_SEARCH, GRPC)
                    client.write(stream, frame(request(vectors[0])), end=False)
                    answers.append(answer)
                for answer in answers:
                    await answer.has(1)
                client.give_up(stream)  # the other's connection is closed
        async with asyncio.timeout(30):
            while secure.log().count("a client vanished") < before + 20:
                await asyncio.sleep(0.05)

    asyncio.run(trouble())
    no_traceback(secure.log())


def test_calls_given_up_at_any_time_leave_the_connection_well(
    secure: Face, files: Files, vectors: np.ndarray
) -> None:
    async def trouble() -> None:
        async with http3(secure.addresses.http, files.ca) as client:
            for number in range(200):
                stream, _ = client.begin("POST", SEARCH, GRPC)
                client.write(stream, frame(request(vectors[0])), end=True)
                await asyncio.sleep(0.0002 * (number % 20))
                client.give_up(stream)
            assert (await client.call(SEARCH, request(vectors[0]))).trailers["grpc-status"] == "0"

    asyncio.run(trouble())
    no_traceback(secure.log())


def test_a_large_message_arrives_and_a_larger_one_is_refused(secure: Face, files: Files) -> None:
    path = "/v1/indexes/plain:search"

    async def ask() -> tuple[Answer, Answer]:
        async with http3(secure.addresses.http, files.ca) as client:
            vector = b'{"vector": {"values": [1,2,3,4,5,6,7,8]}' + b" " * (4 << 20) + b"}"
            return await client.ask("POST", path, vector), await client.ask("POST", path, b" " * (17 << 20))

    fits, does_not = asyncio.run(ask())
    assert fits.status == 200
    assert does_not.status == 400
    assert "max_message_bytes" in json.loads(does_not.body)["error"]["message"]


def test_who_comes_otherwise_is_told_of_it(secure: Face, files: Files) -> None:
    context = ssl.create_default_context(cafile=files.ca)
    port = secure.addresses.http.rpartition(":")[2]
    told = httpx.get(f"{secure.addresses.http}/healthz", verify=context).headers["alt-svc"]
    assert told.startswith(f'h3=":{port}"')


def test_a_drain_lets_calls_over_http_3_finish(
    data_dir: Path, files: Files, tmp_path: Path, vectors: np.ndarray
) -> None:
    async def drain(log: Any) -> tuple[Answer, Answer]:
        serving = running_envoy(tls(data_dir, files), log_to=log)
        addresses = await serving.__aenter__()
        async with http3(addresses.http, files.ca) as client:
            stream, searching = client.begin("POST", STREAM_SEARCH, GRPC)
            client.write(stream, frame(request(vectors[0])), end=False)
            watch, watching = client.begin("POST", WATCH, GRPC)
            client.write(watch, frame(b""), end=True)
            await searching.has(1)
            await watching.has(1)
            ending = asyncio.create_task(serving.__aexit__(None, None, None))
            assert await watching.has(2) == [b"\x08\x01", b"\x08\x02"]  # SERVING, NOT_SERVING
            for vector in vectors[1:20]:
                await asyncio.sleep(0.1)  # beyond the notice, and the port is closed
                client.write(stream, frame(request(vector)), end=False)
            client.write(stream, b"", end=True)
            await asyncio.gather(searching.end(), watching.end())
            await asyncio.wait_for(ending, 60)
        return searching, watching

    with (tmp_path / "log").open("w") as log:
        searching, watching = asyncio.run(drain(log))
    assert len(searching.messages) == 20
    assert searching.trailers["grpc-status"] == watching.trailers["grpc-status"] == "0"
    no_traceback((tmp_path / "log").read_text())


@pytest.mark.parametrize("why", ["http3", "tls_client_ca", "workers"])
def test_there_is_none_where_it_is_off_or_would_not_be_safe(data_dir: Path, files: Files, why: str) -> None:
    values: dict[str, object] = {"http3": False, "tls_client_ca": files.ca, "workers": 2}
    assert not has_http3(tls(data_dir, files, **{why: values[why]}))
    assert has_http3(tls(data_dir, files))
    assert not has_http3(settings_for(data_dir))


def test_mutual_tls_cannot_be_gone_around(data_dir: Path, files: Files, tmp_path: Path) -> None:
    with serving_face("envoy", tls(data_dir, files, tls_client_ca=files.ca), tmp_path / "log") as face:
        host, port = face.addresses.http.removeprefix("https://").split(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((host, int(port)))  # nobody else has it
        context = ssl.create_default_context(cafile=files.ca)
        context.load_cert_chain(files.client, files.client_key)
        assert "alt-svc" not in httpx.get(f"{face.addresses.http}/healthz", verify=context).headers


def test_tokens_are_asked_for(data_dir: Path, files: Files, tmp_path: Path, vectors: np.ndarray) -> None:
    tokens = tmp_path / "tokens.json"
    TokenFile(tokens).create([Grant.parse("admin")])

    async def ask(face: Face) -> tuple[Answer, Answer]:
        async with http3(face.addresses.http, files.ca) as client:
            search = await client.call(SEARCH, request(vectors[0]))
            return search, await client.ask("GET", "/v1/indexes")

    with serving_face("envoy", tls(data_dir, files, tokens_file=tokens), tmp_path / "log") as face:
        search, listed = asyncio.run(ask(face))
    assert search.trailers["grpc-status"] == str(grpc.StatusCode.UNAUTHENTICATED.value[0])
    assert listed.status == 401


def test_a_port_that_somebody_uses_over_udp_is_named(data_dir: Path, files: Files) -> None:
    async def start(port: int) -> None:
        async with running_envoy(tls(data_dir, files).model_copy(update={"port": port})):
            pass

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"{port} on 127.0.0.1 .*--no-http3"):
            asyncio.run(start(port))


def test_the_client_of_these_tests_knows_a_message_in_pieces() -> None:
    assert Answer(body=frame(b"one") + frame(b"two")[:6]).messages == [b"one"]
