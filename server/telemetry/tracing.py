"""A span for each call and a child for each of its stages, sent by OTLP; extra `earshot[otel]`.

Spans are made when the call is over, from the times that its record holds, so a call costs nothing more
while it runs, and nothing at all where no endpoint is set. What this file does not say, such as sampling
and headers for the collector, is said by OpenTelemetry's own variables, `OTEL_*`.
"""

from __future__ import annotations

import os
import time
from importlib import metadata
from typing import TYPE_CHECKING

from earshot.errors import TABLE, FailedPrecondition

from .record import CallRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

__all__ = ["Tracing", "is_traced", "tracing_for"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE_NAME = "OTEL_SERVICE_NAME"

# What OpenTelemetry's conventions call an error of the server; the others are the caller's.
_ERRORS = frozenset({"DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN"})


def is_traced(endpoint: str) -> bool:
    """Whether traces go anywhere: to `endpoint`, or to that of OpenTelemetry's variables.

    Raises FailedPrecondition where they should and the packages for it are not installed.
    """
    if not endpoint and not any(os.environ.get(name) for name in ENDPOINTS):
        return False
    try:
        import opentelemetry.exporter.otlp.proto.grpc
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise FailedPrecondition(
            "an endpoint for traces is set, but OpenTelemetry's packages are not here: "
            "install earshot[otel], or unset otlp_endpoint and OTEL_EXPORTER_OTLP_ENDPOINT",
            field="otlp_endpoint",
        ) from error
    return True


def tracing_for(endpoint: str) -> Tracing | None:
    """Tracing where `is_traced`, else None. Raises as that."""
    if not is_traced(endpoint):
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint or None)))


class Tracing:
    """Makes spans of calls and gives them to `processor`."""

    def __init__(self, processor: SpanProcessor) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = _provider(processor)
        self._tracer = self._provider.get_tracer("earshot", metadata.version("earshot"))
        self._extract = TraceContextTextMapPropagator().extract
        self._server = SpanKind.SERVER
        self._status = Status, StatusCode

    def ended(self, record: CallRecord, seconds: float) -> None:
        """The spans of a call that is over."""
        from opentelemetry.trace import set_span_in_context

        carrier = {
            name: value.decode("latin-1")
            for name in ("traceparent", "tracestate")
            if (value := record.headers.get(name.encode())) is not None
        }
        epoch = time.time_ns() - int(1e9 * time.perf_counter())  # where the record's clock began
        span = self._tracer.start_span(
            record.method or "unknown",
            self._extract(carrier),
            self._server,
            self._attributes(record),
            start_time=epoch + int(1e9 * record.started),
        )
        if span.is_recording():
            if record.code in _ERRORS:
                status, code = self._status
                span.set_status(status(code.ERROR, record.error.message if record.error else None))
            within = set_span_in_context(span)
            for name, started, ended in record.stages:
                child = self._tracer.start_span(name, within, start_time=epoch + int(1e9 * started))
                child.end(epoch + int(1e9 * ended))
        span.end(epoch + int(1e9 * (record.started + seconds)))

    def close(self) -> None:
        """Sends what is waiting, for a few seconds at most."""
        self._provider.shutdown()

    @staticmethod
    def _attributes(record: CallRecord) -> dict[str, str | int]:
        row = TABLE.get(record.code)
        by_protocol: dict[str, str | int] = (
            {"http.response.status_code": row.http if row else 200}
            if record.protocol == "http"
            else {"rpc.grpc.status_code": row.grpc if row else int(record.code != "OK")}
        )
        return {
            "rpc.system": record.protocol,
            "rpc.method": record.method,
            "earshot.code": record.code,
            "earshot.index": record.index,
            "earshot.version": record.version,
            "earshot.queries": record.queries,
            "earshot.request_id": record.request_id,
            **by_protocol,
        }


def _provider(processor: SpanProcessor) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    said = {"service.version": metadata.version("earshot")}
    if SERVICE_NAME not in os.environ:
        said["service.name"] = "earshot"
    provider = TracerProvider(resource=Resource.create(dict(said)), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider
