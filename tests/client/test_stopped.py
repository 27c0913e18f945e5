"""What a client makes of a server that stops before it has begun with a call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from earshot.client import Client, Retry
from earshot.errors import Unavailable
from earshot.v1 import search_service_pb2


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that cancels the first calls, as grpcio does when it is told to stop."""
    left = [request.param]

    def search(asked: bytes, context: grpc.ServicerContext) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            context.cancel()
        answer = search_service_pb2.SearchResponse(index_version="indexes/plain/versions/v000001")
        return answer.SerializeToString()

    server = grpc.server(ThreadPoolExecutor(1))
    methods: dict[str, Any] = {"Search": grpc.unary_unary_rpc_method_handler(search)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("earshot.v1.SearchService", methods)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("service", [2], indirect=True)
def test_a_search_cancelled_by_the_server_is_asked_again(service: str) -> None:
    with Client(service, retry=Retry(attempts=3, initial_seconds=0.01)) as client:
        assert client.search("plain", vector=[1.0]).index_version.endswith("v000001")


@pytest.mark.parametrize("service", [1], indirect=True)
def test_it_is_unavailable_where_it_may_not_be(service: str) -> None:
    once = Retry(attempts=1)
    with Client(service, retry=once) as client, pytest.raises(Unavailable, match="stopped before it began"):
        client.search("plain", vector=[1.0])
