"""Spans as a collector receives them: ours, a small gRPC server on loopback."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from earshot.v1 import search_service_pb2, search_service_pb2_grpc
from tests.servers import environment, serving

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector(grpc.GenericRpcHandler):
    """Receives what an exporter sends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str] = {}
        self._lock = threading.Lock()

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._export)

    def _export(self, data: bytes, context: Any) -> bytes:
        request = ExportTraceServiceRequest.FromString(data)
        with self._lock:
            for resource in request.resource_spans:
                self.resource = {each.key: each.value.string_value for each in resource.resource.attributes}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return b""

    def roots(self) -> list[Span]:
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def wait_for(self, count: int) -> None:
        give_up = time.monotonic() + 20
        while len(self.roots()) < count:
            assert time.monotonic() < give_up, self.spans
            time.sleep(0.05)


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((collector,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield collector, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def attributes(span: Span) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "string_value")
        for each in span.attributes
    }


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_a_search_is_a_span_of_the_callers_trace_with_a_child_for_each_stage(
    data_dir: Path, collector: tuple[Collector, str], transport: str
) -> None:
    received, endpoint = collector
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    channel: Any
    with serving(data_dir, "--transport", transport, **traced) as server:
        headers = {"traceparent": TRACEPARENT, "x-request-id": "over-http"}
        body = {"text": "bread that does not rise"}
        assert httpx.post(f"{server.http}/v1/indexes/shows:search", json=body, headers=headers).is_success
        with grpc.insecure_channel(server.grpc) as channel:
            stub = search_service_pb2_grpc.SearchServiceStub(channel)
            request = search_service_pb2.SearchRequest(index="plain", datapoint_id="id-3")
            stub.Search(request, metadata=(("traceparent", TRACEPARENT),))
            with pytest.raises(grpc.RpcError):
                stub.Search(search_service_pb2.SearchRequest(index="none", datapoint_id="x"))
        received.wait_for(3)
    assert received.resource["service.name"] == "earshot"
    by_text, by_id, failed = received.roots()
    for root in (by_text, by_id):
        assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    assert failed.trace_id.hex() != TRACE
    assert attributes(failed)["rpc.grpc.status_code"] == 5
    told = attributes(by_text)
    assert (told["rpc.method"], told["earshot.index"]) == ("Search", "shows")
    assert (told["earshot.request_id"], told["http.response.status_code"]) == ("over-http", 200)
    assert "bread" not in str(told)
    children = [span for span in received.spans if span.parent_span_id == by_text.span_id]
    assert {"queue", "embed", "engine", "encode"} == {child.name for child in children}
    for child in children:
        assert by_text.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= by_text.end_time_unix_nano
    assert abs(by_text.start_time_unix_nano / 1e9 - time.time()) < 60


def test_spans_that_wait_are_sent_when_the_server_ends(
    data_dir: Path, collector: tuple[Collector, str]
) -> None:
    received, endpoint = collector
    late = {"EARSHOT_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    with serving(data_dir, **late) as server:
        assert httpx.get(f"{server.http}/v1/indexes").is_success
        assert received.roots() == []
    assert [root.name for root in received.roots()] == ["ListIndexes"]


def test_without_an_endpoint_opentelemetry_is_not_even_loaded() -> None:
    code = (
        "import sys\n"
        "from earshot.server.settings import load_settings\n"
        "from earshot.server.telemetry import telemetry_for\n"
        "telemetry_for(load_settings())\n"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(Path()))


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_an_endpoint_without_the_packages_names_the_extra(data_dir: Path, transport: str) -> None:
    code = (
        "import sys\n"
        "sys.modules['opentelemetry.sdk.trace'] = None\n"
        f"sys.argv = ['earshot', 'serve', '--transport', '{transport}', '--port', '0', '--grpc-port', '0']\n"
        "from earshot.cli.main import run\n"
        "run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(data_dir, EARSHOT_OTLP_ENDPOINT="http://127.0.0.1:1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "earshot[otel]" in done.stderr
    assert "Traceback" not in done.stderr
