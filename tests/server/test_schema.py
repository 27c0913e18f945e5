"""The OpenAPI schema is true: every example runs, and whatever it allows is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.core.result import Ok

from earshot.jobs import RebuildRequest, rebuild
from tests.conftest import ROOT
from tests.server.hot.conftest import Face, serving_face, settings_for

FEED = ROOT / "examples" / "podcasts" / "selle-et-quai" / "feed.xml"
CHECKS = [
    not_a_server_error,
    response_schema_conformance,
    content_type_conformance,
    status_code_conformance,
]
PARTS = 8  # of the slow test, so that each ends in its time


@pytest.fixture(scope="module", params=["portable", "direct"])
def face(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[Face]:
    """A server as the demo leaves it, with two versions of one index."""
    folder = tmp_path_factory.mktemp("schema")
    order = RebuildRequest(index="podcasts", sources=[FEED], force=True)
    for _ in range(2):
        rebuild(order, data_dir=folder / "data", cache_dir=model_cache, progress=lambda *_: None)
    asked = settings_for(folder / "data", cache_dir=model_cache)
    with serving_face(request.param, asked, folder / "server.log") as running:
        yield running
    assert "Traceback" not in running.log()


def schema_of(face: Face) -> dict[str, Any]:
    return dict(httpx.get(f"{face.addresses.http}/openapi.json").json())


def ended(face: Face, operation: str) -> None:
    url = f"{face.addresses.http}/v1/indexes/podcasts/operations/{operation}:wait"
    while not httpx.post(url, json={}, timeout=60).json().get("done"):
        pass


def test_every_example_runs(face: Face) -> None:
    operation, ran = "", 0
    for path, verbs in schema_of(face)["paths"].items():
        for verb, described in verbs.items():
            content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
            for name, example in content.get("examples", {}).items():
                url = face.addresses.http + path.format(index="podcasts", operation=operation)
                params = {"indexId": "mine"} if path == "/v1/indexes" else {}
                reply = httpx.request(verb, url, json=example["value"], params=params, timeout=60)
                assert reply.status_code == 200, (verb, path, name, reply.text)
                if path.endswith(":rebuild"):
                    operation = reply.json()["name"].rpartition("/")[2]
                    ended(face, operation)
                ran += 1
    assert ran >= 14


def fuzz(face: Face, examples: int, part: int = 0, parts: int = 1) -> None:
    """So many examples of every operation, or of one in `parts` of them."""
    schema = schemathesis.openapi.from_dict(schema_of(face))
    schema.config.update(base_url=face.addresses.http)
    found = list(schema.get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found) > 15
    for operation in operations[part::parts]:

        @settings(
            max_examples=examples,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            database=None,
        )
        @given(case=operation.as_strategy())
        def answered_as_described(case: schemathesis.Case) -> None:
            if "index" in case.path_parameters and len(str(case.path_parameters["index"])) % 2:
                case.path_parameters["index"] = "podcasts"
            if case.method == "DELETE":
                case.query.pop("force", None)  # the index is wanted by the other operations
            reply = case.call_and_validate(checks=CHECKS, timeout=30)
            assert "Traceback" not in reply.text
            assert ".py" not in reply.text

        answered_as_described()
    assert httpx.get(f"{face.addresses.http}/readyz").status_code == 200


def test_what_the_schema_allows_is_answered_as_it_says(face: Face) -> None:
    fuzz(face, 6)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_what_the_schema_allows_is_answered_as_it_says_many_times(face: Face, part: int) -> None:
    fuzz(face, 150, part, PARTS)
