"""The OpenAPI page, made from the same types that decode requests, with examples that run on the demo."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from . import index_messages, messages, update_messages

__all__ = ["DESCRIPTION", "add_schemas", "answers", "body"]

DESCRIPTION = """Vector search with measured recall: ScaNN as a service.

`score` is always higher for closer; `distance` is the index's own measure. An error is
`{"error": {"code", "status", "message", "field"}}` everywhere.
"""

REF = "#/components/schemas/{name}"

EXAMPLES: dict[type, dict[str, Any]] = {
    messages.SearchRequest: {
        "text": {"value": {"text": "why does my sourdough collapse", "neighborCount": 5}},
        "in one language, recent": {
            "value": {
                "text": "Brot ohne Hefe",
                "restricts": [{"namespace": "language", "allowList": ["de"]}],
                "numericRestricts": [{"namespace": "year", "valueInt": 2025, "op": "GREATER_EQUAL"}],
            }
        },
        "every passage, not each episode once": {
            "value": {"text": "heat pumps in old houses", "perCrowdingAttributeNeighborCount": 0}
        },
    },
    messages.BatchSearchRequest: {
        "texts": {"value": {"texts": ["sourdough that collapses", "a comet lander"], "neighborCount": 3}}
    },
    update_messages.UpsertDatapointsRequest: {
        "a text": {
            "value": {
                "datapoints": [
                    {
                        "datapointId": "my-episode",
                        "text": "Why sourdough starters smell of apples",
                        "restricts": [{"namespace": "language", "allowList": ["en"]}],
                        "embeddingMetadata": {"title": "Apples"},
                    }
                ],
                "requestId": "any-name-that-makes-a-retry-safe",
            }
        },
        "other metadata for one that is there": {
            "value": {
                "datapoints": [{"datapointId": "my-episode", "embeddingMetadata": {"title": "Pears"}}],
                "updateMask": "embeddingMetadata",
            }
        },
    },
    update_messages.RemoveDatapointsRequest: {"by id": {"value": {"datapointIds": ["my-episode"]}}},
    index_messages.Empty: {"nothing to say": {"value": {}}},
    index_messages.Index: {"a larger tree": {"value": {"config": {"targetRecall": 0.97, "shards": 2}}}},
    index_messages.RebuildIndexRequest: {"the same sources again": {"value": {}}},
    index_messages.RollbackIndexRequest: {"to the version before": {"value": {}}},
    index_messages.WaitOperationRequest: {"for two seconds": {"value": {"timeout": "2s"}}},
    messages.ReadDatapointsRequest: {"by id": {"value": {"ids": ["selle-et-quai-001"]}}},
}

TYPES = (
    messages.SearchRequest,
    messages.SearchResponse,
    messages.BatchSearchRequest,
    messages.BatchSearchResponse,
    messages.ReadDatapointsRequest,
    messages.ReadDatapointsResponse,
    update_messages.UpsertDatapointsRequest,
    update_messages.UpsertDatapointsResponse,
    update_messages.RemoveDatapointsRequest,
    update_messages.RemoveDatapointsResponse,
    index_messages.Empty,
    index_messages.Index,
    index_messages.ListIndexesResponse,
    index_messages.ListIndexVersionsResponse,
    index_messages.ListOperationsResponse,
    index_messages.Operation,
    index_messages.RebuildIndexRequest,
    index_messages.RollbackIndexRequest,
    index_messages.WaitOperationRequest,
)

ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "status": {"type": "string", "description": "The gRPC status, such as INVALID_ARGUMENT."},
                "message": {"type": "string"},
                "field": {"type": "string"},
                "details": {
                    "type": "array",
                    "items": {"type": "object"},
                    "description": "A google.rpc.RetryInfo where it is known when to try again.",
                },
            },
            "required": ["code", "status", "message"],
        }
    },
    "required": ["error"],
}


def body(kind: type) -> dict[str, Any]:
    """What FastAPI shall say of the request's body."""
    content = {"schema": {"$ref": REF.format(name=kind.__name__)}, "examples": EXAMPLES[kind]}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def answers(kind: type) -> dict[int | str, dict[str, Any]]:
    """What FastAPI shall say of the answers: the type, or the one shape of errors."""
    schema = {"$ref": REF.format(name=kind.__name__)}
    error = {"$ref": REF.format(name="Error")}
    return {
        200: {"description": "OK", "content": {"application/json": {"schema": schema}}},
        "default": {"description": "Error", "content": {"application/json": {"schema": error}}},
    }


def add_schemas(app: FastAPI) -> None:
    """Puts the components that `body` and `answers` refer to into the application's schema."""
    _, components = msgspec.json.schema_components(TYPES, ref_template=REF)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generate()
        ours = schema.setdefault("components", {})
        ours.setdefault("schemas", {}).update(components, Error=ERROR_SCHEMA)
        # Some servers ask for a token and some do not; the page has a field for it either way.
        ours["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        schema["security"] = [{}, {"token": []}]
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)  # ours are 400, in the one shape
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
