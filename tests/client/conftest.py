"""A small real server with both faces, over answers that a test may replace, and all four clients."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import grpc
import pytest
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from earshot.client import AsyncClient, Client
from earshot.errors import EarshotError, row_of
from earshot.server.error_headers import error_metadata
from earshot.server.json_codec import error_body
from earshot.v1 import datapoint_service_pb2, index_service_pb2, search_service_pb2

METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for file in (search_service_pb2, index_service_pb2, datapoint_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class FakeServer:
    """Answers `answers[method name](request)` over gRPC and HTTP, and keeps the requests in `asked`."""

    def __init__(self, grpc_port: int = 0, http_port: int = 0) -> None:
        self.answers: dict[str, Callable[[Any], Message]] = {}
        self.asked: list[Message] = []
        self.is_ready = True
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers((_GrpcFace(self),))
        self.grpc = f"127.0.0.1:{self._grpc.add_insecure_port(f'127.0.0.1:{grpc_port}')}"
        self._http = ThreadingHTTPServer(
            ("127.0.0.1", http_port), type("Handler", (_HttpFace,), {"fake": self})
        )
        self.http = f"http://127.0.0.1:{self._http.server_port}"

    def answer(self, name: str, request: Message) -> Message:
        self.asked.append(request)
        return self.answers[name](request)

    def start(self) -> None:
        self._grpc.start()
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._grpc.stop(None).wait()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class _GrpcFace(grpc.GenericRpcHandler):
    def __init__(self, fake: FakeServer) -> None:
        self._fake = fake

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        name = details.method.rpartition("/")[2]
        if name == "Check":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: b"\x08\x01" if self._fake.is_ready else b"\x08\x02"
            )

        def handle(request: Message, context: grpc.ServicerContext) -> Message:
            try:
                return self._fake.answer(name, request)
            except EarshotError as error:
                status = next(each for each in grpc.StatusCode if each.value[0] == row_of(error).grpc)
                context.set_trailing_metadata(tuple(error_metadata(error)))
                context.abort(status, error.message)

        return grpc.unary_unary_rpc_method_handler(
            handle,
            request_deserializer=GetMessageClass(METHODS[name].input_type).FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )


class _HttpFace(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet
    fake: FakeServer

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path in {"/healthz", "/readyz"}:
            self._reply(200 if self.fake.is_ready or url.path == "/healthz" else 503, {})
        else:
            self._answer("get", url.path, dict(parse_qsl(url.query)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer("post", self.path, json.loads(body))

    def _answer(self, verb: str, path: str, fields: dict[str, Any]) -> None:
        for name, method in METHODS.items():
            template = getattr(method.GetOptions().Extensions[annotations_pb2.http], verb)
            pattern = re.sub(r"\{(\w+)=indexes/\*\}", r"(?P<\1>indexes/[^/:]+)", template)
            if template and (found := re.fullmatch(pattern, path)):
                request = GetMessageClass(method.input_type)()
                json_format.ParseDict(
                    fields | {key: unquote(value) for key, value in found.groupdict().items()}, request
                )
                try:
                    self._reply(200, json_format.MessageToDict(self.fake.answer(name, request)))
                except EarshotError as error:
                    self._reply(row_of(error).http, json.loads(error_body(error)))
                return
        self._reply(404, {})

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except BrokenPipeError:  # a client whose deadline passed
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


class Blocking:
    """An `AsyncClient` driven like a `Client`, so that one test can be about all."""

    def __init__(self, target: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(target, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **options: self._runner.run(method(*args, **options))

    def stop(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


class Clients:
    """Makes clients of one kind and closes them at the end of the test."""

    def __init__(self, kind: str, stack: ExitStack) -> None:
        self.transport, self.is_async = kind.split()[0], kind.endswith("async")
        self._stack = stack

    def address(self, server: Any) -> str:
        address: str = getattr(server, self.transport)
        return address

    def nowhere(self, port: int) -> str:
        return f"http://127.0.0.1:{port}" if self.transport == "http" else f"127.0.0.1:{port}"

    def __call__(self, target: str, **options: Any) -> Any:
        if self.is_async:
            client = Blocking(target, **options)
            self._stack.callback(client.stop)
            return client
        return self._stack.enter_context(Client(target, **options))


@pytest.fixture(params=["grpc", "http", "grpc async", "http async"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(request.param, stack)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def client(clients: Clients, server: FakeServer) -> Any:
    return clients(clients.address(server))
