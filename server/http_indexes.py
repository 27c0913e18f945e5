"""The HTTP routes of IndexService and Operations, by Google's transcoding rules."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from msgspec.structs import replace

from . import index_messages as messages
from .http_body import Reply, read_body
from .names import index_name, operation_name
from .openapi import answers, body
from .service import Service

__all__ = ["index_routes"]

PageSize = Annotated[
    int, Query(alias="pageSize", description="At most so many; 0 means 100, and 1,000 is the most.")
]
PageToken = Annotated[str, Query(alias="pageToken", description="From an earlier answer.")]
Etag = Annotated[str, Query(description="What a Get said: deletes that and nothing newer.")]
Force = Annotated[bool, Query(description="In place of the etag: deletes whatever there is.")]


def index_routes(app: FastAPI, service: Service, reply: Reply, write: Reply, max_bytes: int) -> None:
    """Adds them to `app`; `write` is for what may take long."""
    _reading(app, service, reply)
    _changing(app, service, write, max_bytes)
    _jobs(app, service, write, max_bytes)
    _operations(app, service, reply, write, max_bytes)


def _reading(app: FastAPI, service: Service, reply: Reply) -> None:
    @app.get("/v1/indexes", tags=["indexes"], responses=answers(messages.ListIndexesResponse))
    async def list_indexes(page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """All indexes, by name."""
        return await reply(lambda: service.indexes.list(page_size, page_token))

    @app.get("/v1/indexes/{index}", tags=["indexes"], responses=answers(messages.Index))
    async def get_index(index: str) -> Response:
        """One index: what serves, and in `config` what was asked."""
        return await reply(lambda: service.indexes.get(index))

    @app.get(
        "/v1/indexes/{index}/versions",
        tags=["indexes"],
        responses=answers(messages.ListIndexVersionsResponse),
    )
    async def list_index_versions(
        index: str, page_size: PageSize = 0, page_token: PageToken = ""
    ) -> Response:
        """The versions of one index, newest first."""
        return await reply(lambda: service.indexes.versions(index, page_size, page_token))


def _changing(app: FastAPI, service: Service, write: Reply, max_bytes: int) -> None:
    @app.post(
        "/v1/indexes",
        tags=["indexes"],
        openapi_extra=body(messages.Index),
        responses=answers(messages.Index),
    )
    async def create_index(
        request: Request,
        index_id: Annotated[
            str,
            Query(
                alias="indexId", description="A lower-case letter, then up to 62 letters, digits and hyphens."
            ),
        ],
    ) -> Response:
        """Make an index without a version; only `config` is taken."""
        asked = messages.CreateIndexRequest(index_id, await read_body(request, messages.Index, max_bytes))
        return await write(lambda: service.indexes.create(asked))

    @app.patch(
        "/v1/indexes/{index}",
        tags=["indexes"],
        openapi_extra=body(messages.Index),
        responses=answers(messages.Index),
    )
    async def update_index(
        request: Request,
        index: str,
        update_mask: Annotated[
            str,
            Query(alias="updateMask", description="Such as `config.shards`; empty: what is set in `config`."),
        ] = "",
    ) -> Response:
        """Change what was asked of an index; an `etag` in the body must be the present one."""
        new = replace(await read_body(request, messages.Index, max_bytes), name=index_name(index))
        mask = [_snake(path) for path in update_mask.split(",") if path]
        return await write(lambda: service.indexes.update(messages.UpdateIndexRequest(new, mask)))

    @app.delete("/v1/indexes/{index}", tags=["indexes"], responses=answers(messages.Empty))
    async def delete_index(index: str, etag: Etag = "", force: Force = False) -> Response:
        """Remove an index with all its versions; searches that run finish."""
        asked = messages.DeleteIndexRequest(index, etag, force)
        return await write(lambda: service.indexes.delete(asked))


def _jobs(app: FastAPI, service: Service, write: Reply, max_bytes: int) -> None:
    @app.post(
        "/v1/indexes/{index}:rebuild",
        tags=["indexes"],
        openapi_extra=body(messages.RebuildIndexRequest),
        responses=answers(messages.Operation),
    )
    async def rebuild_index(index: str, request: Request) -> Response:
        """Read sources and build a version, in a process of its own; the operation tells how it goes."""
        asked = replace(await read_body(request, messages.RebuildIndexRequest, max_bytes), name=index)
        return await write(lambda: service.indexes.rebuild(asked))

    @app.post(
        "/v1/indexes/{index}:rollback",
        tags=["indexes"],
        openapi_extra=body(messages.RollbackIndexRequest),
        responses=answers(messages.Index),
    )
    async def rollback_index(index: str, request: Request) -> Response:
        """Make another version current, the newest whole one before by default."""
        asked = replace(await read_body(request, messages.RollbackIndexRequest, max_bytes), name=index)
        return await write(lambda: service.indexes.rollback(asked))


def _operations(app: FastAPI, service: Service, reply: Reply, write: Reply, max_bytes: int) -> None:
    path = "/v1/indexes/{index}/operations/{operation}"

    @app.get(
        "/v1/indexes/{index}/operations",
        tags=["operations"],
        responses=answers(messages.ListOperationsResponse),
    )
    async def list_operations(index: str, page_size: PageSize = 0, page_token: PageToken = "") -> Response:
        """The rebuilds of one index, newest first."""
        return await write(lambda: service.indexes.operations(index, page_size, page_token))

    @app.get(path, tags=["operations"], responses=answers(messages.Operation))
    async def get_operation(index: str, operation: str) -> Response:
        """How far a rebuild has come, or what came of it."""
        return await write(lambda: service.indexes.operation(operation_name(index, operation)))

    @app.delete(path, tags=["operations"], responses=answers(messages.Empty))
    async def delete_operation(index: str, operation: str) -> Response:
        """Forget a rebuild that has ended."""
        return await reply(lambda: service.indexes.delete_operation(operation_name(index, operation)))

    @app.post(
        f"{path}:cancel",
        tags=["operations"],
        openapi_extra=body(messages.Empty),
        responses=answers(messages.Empty),
    )
    async def cancel_operation(index: str, operation: str, request: Request) -> Response:
        """End a rebuild that still runs; what it embedded is kept."""
        await read_body(request, messages.Empty, max_bytes)
        return await write(lambda: service.indexes.cancel(operation_name(index, operation)))

    @app.post(
        f"{path}:wait",
        tags=["operations"],
        openapi_extra=body(messages.WaitOperationRequest),
        responses=answers(messages.Operation),
    )
    async def wait_operation(index: str, operation: str, request: Request) -> Response:
        """How far a rebuild has come when it has ended, or after a few seconds at most."""
        asked = await read_body(request, messages.WaitOperationRequest, max_bytes)
        return await write(lambda: service.indexes.wait(operation_name(index, operation), asked.seconds()))


def _snake(path: str) -> str:
    """`config.target_recall` from `config.targetRecall`, as a mask is written in JSON."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in path)
