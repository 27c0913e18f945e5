"""One table: what each method needs, by gRPC path. The protos' HTTP options lead to the same rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from earshot.client.http_transport import OPERATIONS
from earshot.v1 import datapoint_service_pb2, index_service_pb2, search_service_pb2

from .tokens import EVERY_INDEX, Scope

__all__ = ["FILES", "RULES", "Route", "Rule", "message_class", "route_of"]

FILES = (search_service_pb2, index_service_pb2, datapoint_service_pb2, operations_pb2)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method needs. `scope` None: nothing, it is open to all.

    `index` is the request's field that names the index, dotted where it lies deeper. None: the scope on any
    index will do, and the method shows no more than the caller may read. `*`: the scope on every index.
    `counted` are the fields whose entries count as a request each; `streams`: so do messages, not the call.
    """

    scope: Scope | None
    index: str | None = None
    counted: tuple[str, ...] = ()
    streams: bool = False


_SEARCH = "/earshot.v1.SearchService/"
_INDEX = "/earshot.v1.IndexService/"
_DATAPOINT = "/earshot.v1.DatapointService/"
_OPERATIONS = "/google.longrunning.Operations/"
_OPEN = Rule(None)

RULES: dict[str, Rule] = {
    f"{_SEARCH}Search": Rule(Scope.READ, "index"),
    f"{_SEARCH}BatchSearch": Rule(Scope.READ, "index", ("texts", "vectors", "datapoint_ids")),
    f"{_SEARCH}StreamSearch": Rule(Scope.READ, "index", streams=True),
    f"{_DATAPOINT}ReadDatapoints": Rule(Scope.READ, "index", ("ids",)),
    f"{_DATAPOINT}UpsertDatapoints": Rule(Scope.WRITE, "index", ("datapoints",)),
    f"{_DATAPOINT}RemoveDatapoints": Rule(Scope.WRITE, "index", ("datapoint_ids",)),
    f"{_INDEX}GetIndex": Rule(Scope.READ, "name"),
    f"{_INDEX}ListIndexes": Rule(Scope.READ),
    f"{_INDEX}ListIndexVersions": Rule(Scope.READ, "parent"),
    f"{_INDEX}CreateIndex": Rule(Scope.ADMIN, EVERY_INDEX),  # it is none of anybody's yet
    f"{_INDEX}UpdateIndex": Rule(Scope.ADMIN, "index.name"),
    f"{_INDEX}DeleteIndex": Rule(Scope.ADMIN, "name"),
    f"{_INDEX}RebuildIndex": Rule(Scope.ADMIN, "name"),
    f"{_INDEX}RollbackIndex": Rule(Scope.ADMIN, "name"),
    f"{_OPERATIONS}ListOperations": Rule(Scope.READ, "name"),
    f"{_OPERATIONS}GetOperation": Rule(Scope.READ, "name"),
    f"{_OPERATIONS}WaitOperation": Rule(Scope.READ, "name"),
    f"{_OPERATIONS}CancelOperation": Rule(Scope.ADMIN, "name"),
    f"{_OPERATIONS}DeleteOperation": Rule(Scope.ADMIN, "name"),
    # Orchestrators ask for the health of a server without knowing its users; what the schema says stands in
    # the public protos. Neither names an index.
    "/grpc.health.v1.Health/Check": _OPEN,
    "/grpc.health.v1.Health/List": _OPEN,
    "/grpc.health.v1.Health/Watch": _OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _OPEN,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OPEN,
}

# What has a path of its own only over HTTP. `/readyz` tells names and problems to those who may know them.
_HTTP_ONLY = {
    "/": _OPEN,
    "/healthz": _OPEN,
    "/readyz": _OPEN,
    "/docs": _OPEN,
    "/openapi.json": _OPEN,
    "/metrics": Rule(Scope.READ, EVERY_INDEX),  # they name all indexes
}
_HTTP_ASSETS = "/static-offline-docs/"


class Route(NamedTuple):
    """What an HTTP request asks for: its rule, None where there is nothing, and the index its path names."""

    rule: Rule | None
    resource: str | None = None


def route_of(verb: str, path: str) -> Route:
    """The rule of an HTTP request."""
    if (rule := _HTTP_ONLY.get(path)) is not None:
        return Route(rule)
    if path.startswith(_HTTP_ASSETS):
        return Route(_OPEN)
    for pattern, rule in _patterns().get(verb, ()):
        if (match := pattern.fullmatch(path)) is not None:
            return Route(rule, match.groupdict().get("index"))
    return Route(None)


@cache
def message_class(path: str) -> type[Message]:
    """The request's class of a method of ours."""
    return GetMessageClass(_methods()[path].input_type)


@cache
def _methods() -> dict[str, MethodDescriptor]:
    return {
        f"/{service.full_name}/{method.name}": method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


@cache
def _patterns() -> dict[str, list[tuple[re.Pattern[str], Rule]]]:
    found: dict[str, list[tuple[re.Pattern[str], Rule]]] = {}
    for path, method in _methods().items():
        for verb, template in _bindings(method):
            pattern = _pattern(template, RULES[path].index)
            found.setdefault(verb.upper(), []).append((pattern, RULES[path]))
    return found


def _bindings(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """Verb and path template of each way to a method over HTTP."""
    if method.full_name in OPERATIONS:
        yield OPERATIONS[method.full_name][:2]
    elif method.GetOptions().HasExtension(annotations_pb2.http):
        option = method.GetOptions().Extensions[annotations_pb2.http]
        for binding in (option, *option.additional_bindings):
            verb = binding.WhichOneof("pattern")
            yield verb, getattr(binding, verb)


def _pattern(template: str, index: str | None) -> re.Pattern[str]:
    """A path template such as `/v1/{name=indexes/*}`; the field that names the index is captured."""
    parts = re.split(r"\{([^}=]+)=([^}]+)\}", template)
    expression = ""
    for literal, field, inner in zip(parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True):
        segments = re.escape(inner).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
        expression += re.escape(literal) + (f"(?P<index>{segments})" if field == index else segments)
    return re.compile(expression)
