"""The HTTP face: every method of the service as JSON, health, and the OpenAPI page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import metadata

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse

from earshot.errors import EarshotError, Internal, InvalidArgument, NotFound, Unimplemented, row_of

from . import messages, update_messages
from .auth import current
from .error_headers import error_headers
from .http_body import Reply, read_body
from .http_indexes import index_routes
from .json_codec import encode, error_body
from .limits import checked_size
from .openapi import DESCRIPTION, add_schemas, answers, body
from .service import Service
from .telemetry import CURRENT, Metrics, page_of_all, stage
from .workers import Workers

__all__ = ["http_app"]

log = logging.getLogger(__name__)


def http_app(
    service: Service,
    workers: Workers,
    metrics: Metrics,
    *,
    max_message_bytes: int,
    max_answer_bytes: int,
) -> FastAPI:
    """An ASGI application over `service`; `workers` do its work, what is above the limits is refused."""
    app = FastAPIOffline(
        title="Earshot", version=metadata.version("earshot"), description=DESCRIPTION, redoc_url=None
    )

    async def reply(call: Callable[[], msgspec.Struct]) -> Response:
        answer = checked_size(await workers.run(_answer, call), max_answer_bytes)
        return Response(answer, media_type="application/json")

    async def write(call: Callable[[], msgspec.Struct]) -> Response:
        return Response(await workers.write(_answer, call), media_type="application/json")

    _query_routes(app, service, reply, write, max_message_bytes)
    index_routes(app, service, reply, write, max_message_bytes)
    _health_routes(app, service)
    _metrics_route(app, metrics)
    _handle_errors(app)
    add_schemas(app)
    return app


def _answer(call: Callable[[], msgspec.Struct]) -> bytes:
    answer = call()
    with stage("encode"):
        return encode(answer)


def _query_routes(app: FastAPI, service: Service, reply: Reply, write: Reply, max_bytes: int) -> None:
    @app.post(
        "/v1/indexes/{index}:search",
        tags=["search"],
        openapi_extra=body(messages.SearchRequest),
        responses=answers(messages.SearchResponse),
    )
    async def search(index: str, request: Request) -> Response:
        """Search one index with text, a vector, or the vector of one of its datapoints."""
        asked = msgspec.structs.replace(
            await read_body(request, messages.SearchRequest, max_bytes), index=index
        )
        return await reply(lambda: service.search(asked))

    @app.post(
        "/v1/indexes/{index}:batchSearch",
        tags=["search"],
        openapi_extra=body(messages.BatchSearchRequest),
        responses=answers(messages.BatchSearchResponse),
    )
    async def batch_search(index: str, request: Request) -> Response:
        """Search one index with many texts, vectors or datapoints; all are answered, or none."""
        asked = await read_body(request, messages.BatchSearchRequest, max_bytes)
        return await reply(lambda: service.batch_search(msgspec.structs.replace(asked, index=index)))

    @app.post(
        "/v1/indexes/{index}/datapoints:read",
        tags=["datapoints"],
        openapi_extra=body(messages.ReadDatapointsRequest),
        responses=answers(messages.ReadDatapointsResponse),
    )
    async def read_datapoints(index: str, request: Request) -> Response:
        """Read datapoints by id, vectors included."""
        asked = msgspec.structs.replace(
            await read_body(request, messages.ReadDatapointsRequest, max_bytes), index=index
        )
        return await reply(lambda: service.read_datapoints(asked))

    @app.post(
        "/v1/indexes/{index}/datapoints:upsert",
        tags=["datapoints"],
        openapi_extra=body(update_messages.UpsertDatapointsRequest),
        responses=answers(update_messages.UpsertDatapointsResponse),
    )
    async def upsert_datapoints(index: str, request: Request) -> Response:
        """Write datapoints; durable, and seen by every search that begins after the answer."""
        asked = await read_body(request, update_messages.UpsertDatapointsRequest, max_bytes)
        return await write(lambda: service.updates.upsert(msgspec.structs.replace(asked, index=index)))

    @app.post(
        "/v1/indexes/{index}/datapoints:remove",
        tags=["datapoints"],
        openapi_extra=body(update_messages.RemoveDatapointsRequest),
        responses=answers(update_messages.RemoveDatapointsResponse),
    )
    async def remove_datapoints(index: str, request: Request) -> Response:
        """Remove datapoints by id."""
        asked = await read_body(request, update_messages.RemoveDatapointsRequest, max_bytes)
        return await write(lambda: service.updates.remove(msgspec.structs.replace(asked, index=index)))


def _health_routes(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        """Whoever opens the address in a browser finds what can be asked."""
        return RedirectResponse("/docs")

    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz() -> Response:
        """Every index is served: 200; one is not: 503. Problems of a newer version are listed either way."""
        problems = service.registry.problems
        serving = service.registry.names()
        broken = problems.keys() - set(serving)
        may_read = current().may_read  # others learn no names, and whether all is well
        content: dict[str, object] = {
            "status": "unavailable" if broken else "ok",
            "indexes": [name for name in serving if may_read(name)],
            "problems": {name: problem for name, problem in problems.items() if may_read(name)},
        }
        if recalls := {name: told for name, told in _recalls(service).items() if may_read(name)}:
            content["recall"] = recalls
        return Response(encode(content), status_code=503 if broken else 200, media_type="application/json")


def _recalls(service: Service) -> dict[str, dict[str, object]]:
    """What real queries were measured to find, by index, where enough were."""
    told: dict[str, dict[str, object]] = {}
    for name in service.registry.names():
        served = service.registry.peek(name)
        recall = None if served is None else served.index.watch.recall
        if served is not None and recall is not None:
            status = "short" if served.is_short else "ok"
            told[name] = {**msgspec.structs.asdict(recall), "target": served.promised, "status": status}
    return told


def _metrics_route(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def read_metrics(request: Request) -> Response:
        """Counts and times of everything, as Prometheus reads them."""
        page, content_type = await page_of_all(metrics, request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})


def _handle_errors(app: FastAPI) -> None:
    def answer(error: EarshotError, status: int | None = None) -> Response:
        if (record := CURRENT.get()) is not None:
            record.error = error
        return Response(
            error_body(error),
            status_code=status or row_of(error).http,
            headers=error_headers(error),
            media_type="application/json",
        )

    @app.exception_handler(EarshotError)
    async def of_ours(request: Request, error: EarshotError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def of_parameters(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return answer(InvalidArgument(f"{name} is {first['input']!r}: {first['msg']}", field=name))

    @app.exception_handler(HTTPException)
    async def of_routing(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if error.status_code == 404:
            return answer(NotFound(f"there is nothing at {path}; /docs lists what there is"))
        if error.status_code == 405:
            return answer(Unimplemented(f"{path} does not take {request.method}"), 405)
        return answer(InvalidArgument(str(error.detail)), error.status_code)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return answer(Internal("internal error; the server's log has the cause"))
