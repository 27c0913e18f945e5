"""Every method has a row, and every HTTP path leads to the row of its method."""

from __future__ import annotations

import pytest

from earshot.server.auth import RULES, Scope
from earshot.server.auth.admission import index_of
from earshot.server.auth.rules import FILES, _methods, message_class, route_of
from earshot.server.auth.tokens import EVERY_INDEX
from earshot.server.grpc_methods import METHODS, SERVICES
from tests.conftest import ROOT


def test_every_method_of_every_proto_has_a_row() -> None:
    protos = (ROOT / "proto").rglob("*_service.proto")
    assert {file.DESCRIPTOR.name for file in FILES} == {
        "google/longrunning/operations.proto",
        *(path.relative_to(ROOT / "proto").as_posix() for path in protos),
    }
    services = {service.full_name for file in FILES for service in file.DESCRIPTOR.services_by_name.values()}
    assert services == set(SERVICES)
    assert set(_methods()) <= set(RULES)


def test_every_method_that_is_served_has_a_row() -> None:
    assert set(METHODS) <= set(RULES)


def test_nothing_of_ours_is_open() -> None:
    assert [path for path in _methods() if RULES[path].scope is None] == []


@pytest.mark.parametrize("path", sorted(_methods()))
def test_the_fields_that_a_row_names_are_in_the_request(path: str) -> None:
    rule, message = RULES[path], message_class(path)()
    for field in rule.counted:
        assert len(getattr(message, field)) == 0
    value = message
    named = rule.index not in {None, EVERY_INDEX}
    for field in (rule.index or "").split(".") if named else ():
        value = getattr(value, field)
    assert value == "" or not named


@pytest.mark.parametrize(
    ("verb", "path", "method", "resource"),
    [
        ("POST", "/v1/indexes/p:search", "SearchService/Search", "indexes/p"),
        ("POST", "/v1/indexes/p:batchSearch", "SearchService/BatchSearch", "indexes/p"),
        ("POST", "/v1/indexes/p/datapoints:read", "DatapointService/ReadDatapoints", "indexes/p"),
        ("GET", "/v1/indexes", "IndexService/ListIndexes", None),
        ("GET", "/v1/indexes/p", "IndexService/GetIndex", "indexes/p"),
        ("GET", "/v1/indexes/p/versions", "IndexService/ListIndexVersions", "indexes/p"),
        ("POST", "/v1/indexes", "IndexService/CreateIndex", None),
        ("PATCH", "/v1/indexes/p", "IndexService/UpdateIndex", "indexes/p"),
        ("DELETE", "/v1/indexes/p", "IndexService/DeleteIndex", "indexes/p"),
        ("POST", "/v1/indexes/p:rebuild", "IndexService/RebuildIndex", "indexes/p"),
        ("POST", "/v1/indexes/p:rollback", "IndexService/RollbackIndex", "indexes/p"),
    ],
)
def test_an_http_path_has_the_row_of_its_method(
    verb: str, path: str, method: str, resource: str | None
) -> None:
    assert route_of(verb, path) == (RULES[f"/earshot.v1.{method}"], resource)


@pytest.mark.parametrize(
    ("verb", "rest", "method"),
    [
        ("GET", "/1", "GetOperation"),
        ("DELETE", "/1", "DeleteOperation"),
        ("POST", "/1:cancel", "CancelOperation"),
        ("POST", "/1:wait", "WaitOperation"),
    ],
)
def test_an_operation_belongs_to_its_index(verb: str, rest: str, method: str) -> None:
    route = route_of(verb, f"/v1/indexes/p/operations{rest}")
    assert tuple(route) == (RULES[f"/google.longrunning.Operations/{method}"], "indexes/p/operations/1")
    assert index_of(route.resource or "") == "p"


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/indexes/", "/v1/indexes/a/b:search", "/v1/indexes/:search/", "/docs/", "/Healthz"]
)
def test_a_path_that_is_nothing_has_no_row(path: str) -> None:
    assert route_of("POST", path).rule is None


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/openapi.json", "/static-offline-docs/x.js"]
)
def test_health_and_the_schema_are_open(path: str) -> None:
    rule = route_of("GET", path).rule
    assert rule is not None
    assert rule.scope is None


def test_metrics_want_the_right_to_read_everything() -> None:
    rule = route_of("GET", "/metrics").rule
    assert rule is not None
    assert (rule.scope, rule.index) == (Scope.READ, "*")
