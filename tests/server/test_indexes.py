"""Indexes are made, changed, rolled back, rebuilt and removed by callers, over HTTP, on both transports."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from earshot.index import Index, Store
from tests.server.hot.conftest import Face, serving_face, settings_for
from tests.servers import write_feed

DIMENSIONS = 8
EPISODES = [
    ("bread", "The loaf that collapsed", "Why sourdough falls flat in the oven."),
    ("grid", "Fifty hertz", "How the power grid keeps its frequency."),
    ("choir", "Going flat", "Why choirs sink in pitch during a concert."),
]


class Api:
    """The API of one server; what fails is for the test to look at."""

    def __init__(self, face: Face, folder: Path) -> None:
        self.face = face
        self.folder = folder
        self.sources = folder / "allowed"
        self._http = httpx.Client(base_url=f"{face.addresses.http}/v1", timeout=60)

    def __call__(self, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
        return self._http.request(method, path, json=body, params=params)

    def close(self) -> None:
        self._http.close()

    def good(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        reply = self(method, path, body, **params)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def refused(self, status: str, method: str, path: str, body: Any = None, **params: Any) -> str:
        reply = self(method, path, body, **params)
        error = reply.json()["error"]
        assert (error["status"], error["code"]) == (status, reply.status_code), reply.text
        return str(error["message"])

    def ended(self, operation: Any) -> Any:
        while not operation.get("done"):
            operation = self.good("POST", f"/{operation['name']}:wait", {"timeout": "5s"})
        return operation

    def publish(self, name: str, vectors: np.ndarray) -> None:
        store = Store(self.folder / "data")
        store.publish(name, Index.build(vectors, [f"id-{row}" for row in range(len(vectors))]))

    def serves(self, name: str, version: str) -> None:
        for _ in range(400):
            if self.good("GET", f"/indexes/{name}")["currentVersion"].endswith(version):
                return
            time.sleep(0.01)
        raise AssertionError(f"{version} was not served")


@pytest.fixture(scope="module", params=["portable", "direct"])
def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("indexes")
    sources = folder / "allowed"
    sources.mkdir()
    write_feed(sources / "feed.xml", EPISODES)
    write_feed(folder / "secret.xml", EPISODES)
    (sources / "link.xml").symlink_to(folder / "secret.xml")
    settings = settings_for(folder / "data", cache_dir=model_cache, rebuild_sources=[str(sources)])
    with serving_face(request.param, settings, folder / "server.log") as face:
        api = Api(face, folder)
        yield api
        api.close()
    assert "Traceback" not in face.log()


VECTORS = np.random.default_rng(3).standard_normal((40, DIMENSIONS)).astype(np.float32)


def test_an_index_is_made_published_changed_rolled_back_and_removed(api: Api) -> None:
    config = {"dimensions": DIMENSIONS, "distanceMeasure": "SQUARED_L2_DISTANCE", "targetRecall": 0.9}
    made = api.good("POST", "/indexes", {"config": config}, indexId="life")
    assert made["name"] == "indexes/life"
    assert (made["currentVersion"], made["dimensions"], made["config"]) == ("", DIMENSIONS, config)
    assert made["problem"] == ""  # it takes datapoints without a version
    empty = api.good("POST", "/indexes/life:search", {"vector": {"values": [0.0] * DIMENSIONS}})
    assert empty["neighbors"] == []
    api.publish("life", VECTORS)
    api.publish("life", VECTORS[:30])
    api.serves("life", "v000002")

    back = api.good("POST", "/indexes/life:rollback", {})
    assert (back["currentVersion"], back["datapointCount"]) == ("indexes/life/versions/v000001", 40)
    found = api.good("POST", "/indexes/life:search", {"datapointId": "id-39"})
    assert found["indexVersion"] == "indexes/life/versions/v000001"
    forth = api.good("POST", "/indexes/life:rollback", {"version": "indexes/life/versions/v000002"})
    assert forth["currentVersion"].endswith("v000002")

    changed = api.good(
        "PATCH", "/indexes/life", {"config": {"shards": 2, "engine": "exact"}}, updateMask="config.shards"
    )
    assert changed["config"] == {**config, "shards": 2}
    unsaid = api.good("PATCH", "/indexes/life", {}, updateMask="config.shards,config.targetRecall")
    assert unsaid["config"] == {
        "dimensions": DIMENSIONS,
        "distanceMeasure": "SQUARED_L2_DISTANCE",
    }
    assert "etag" in api.refused("INVALID_ARGUMENT", "DELETE", "/indexes/life")
    assert "was changed" in api.refused("ABORTED", "DELETE", "/indexes/life", etag=made["etag"])
    assert api.good("DELETE", "/indexes/life", etag=unsaid["etag"]) == {}
    api.refused("NOT_FOUND", "POST", "/indexes/life:search", {"datapointId": "id-1"})
    assert "life" not in [index["name"] for index in api.good("GET", "/indexes")["indexes"]]


def mapped(part: str) -> list[str]:
    """What this process, or a child of it, still maps of the files with this in their path."""
    children = [file.read_text() for file in Path("/proc/self/task").glob("*/children")]
    found = []
    for process in ["self", *"".join(children).split()]:
        with suppress(OSError):
            lines = Path(f"/proc/{process}/maps").read_text().splitlines()
            found += [line for line in lines if part in line]
    return found


def goes(part: str) -> None:
    for _ in range(200):
        gc.collect()
        if not mapped(part):
            return
        time.sleep(0.02)
    raise AssertionError(mapped(part))


def test_the_files_of_a_replaced_or_removed_index_are_let_go_of(api: Api) -> None:
    def search() -> None:
        for vector in VECTORS[:20].tolist():
            api.good("POST", "/indexes/vanishing:search", {"vector": {"values": vector}})

    api.good("POST", "/indexes", {"config": {"dimensions": DIMENSIONS}}, indexId="vanishing")
    api.publish("vanishing", VECTORS)
    api.serves("vanishing", "v000001")
    search()
    assert mapped("/vanishing/versions/v000001/")
    api.publish("vanishing", VECTORS)
    api.serves("vanishing", "v000002")
    goes("/vanishing/versions/v000001/")
    search()
    assert mapped("/vanishing/versions/v000002/")
    api.good("DELETE", "/indexes/vanishing", force=True)
    goes("vanishing")


def test_crowding_and_recall_of_the_config_hold_at_once(api: Api) -> None:
    api.good("POST", "/indexes", {}, indexId="tags")
    store = Store(api.folder / "data")
    vectors = np.random.default_rng(3).standard_normal((3000, DIMENSIONS)).astype(np.float32)
    index = Index.build(
        vectors,
        [f"id-{row}" for row in range(3000)],
        crowding_tags=[f"tag-{row % 3}" for row in range(3000)],
        target_recall=0.95,
        engine="scann",
    )
    store.publish("tags", index)
    api.serves("tags", "v000001")

    def neighbors(**body: Any) -> int:
        body = {"datapointId": "id-1", "neighborCount": 9, **body}
        return len(api.good("POST", "/indexes/tags:search", body)["neighbors"])

    assert neighbors() == 9
    changed = api.good(
        "PATCH",
        "/indexes/tags",
        {"config": {"perCrowdingAttributeNeighborCount": 1, "targetRecall": 0.8}},
    )
    assert changed["targetRecall"] == 0.8
    assert neighbors() == 3
    assert neighbors(perCrowdingAttributeNeighborCount=0) == 9
    said = api.good("POST", "/indexes/tags:search", {"datapointId": "id-1", "explain": True})
    assert said["explanation"]["targetRecall"] == 0.8
    # No approximate search was measured to find everything, so that is left to the next build.
    unmeasured = api.good("PATCH", "/indexes/tags", {"config": {"targetRecall": 1.0}})
    assert (unmeasured["targetRecall"], unmeasured["config"]["targetRecall"]) == (0.95, 1.0)
    api.good("DELETE", "/indexes/tags", force=True)


@pytest.mark.parametrize(
    ("config", "status", "said"),
    [
        ({"dimensions": 0}, "INVALID_ARGUMENT", "dimensions is 0"),
        ({"dimensions": "many"}, "INVALID_ARGUMENT", "dimensions"),
        ({"model": "no-such-model"}, "INVALID_ARGUMENT", "there is no model 'no-such-model'"),
        ({"model": "all-MiniLM-L6-v2", "dimensions": 5}, "INVALID_ARGUMENT", "have 384"),
        ({"distanceMeasure": "MILES"}, "INVALID_ARGUMENT", "MILES"),
        ({"engine": "steam"}, "INVALID_ARGUMENT", "engine is 'steam'"),
        ({"colour": "red"}, "INVALID_ARGUMENT", "colour"),
    ],
)
def test_what_no_index_can_be_is_refused(api: Api, config: Any, status: str, said: str) -> None:
    assert said in api.refused(status, "POST", "/indexes", {"config": config}, indexId="never")
    api.refused("NOT_FOUND", "GET", "/indexes/never")


def test_names_masks_and_times_that_cannot_be_are_refused(api: Api) -> None:
    there = api.good("POST", "/indexes", {}, indexId="there")
    assert "no version yet" in there["problem"]
    search = {"vector": {"values": [0.0] * DIMENSIONS}}
    assert "no version yet" in api.refused("FAILED_PRECONDITION", "POST", "/indexes/there:search", search)
    api.refused("ALREADY_EXISTS", "POST", "/indexes", {}, indexId="there")
    assert "a name is" in api.refused("INVALID_ARGUMENT", "POST", "/indexes", {}, indexId="../etc")
    assert "indexId" in api.refused("INVALID_ARGUMENT", "POST", "/indexes", {})
    assert "may have config.dimensions" in api.refused(
        "INVALID_ARGUMENT", "PATCH", "/indexes/there", {}, updateMask="name"
    )
    api.refused("NOT_FOUND", "PATCH", "/indexes/nowhere", {"config": {"shards": 2}})
    api.refused("NOT_FOUND", "DELETE", "/indexes/nowhere", force=True)
    api.refused("FAILED_PRECONDITION", "POST", "/indexes/there:rollback", {})
    api.refused("NOT_FOUND", "GET", "/indexes/there/operations/20260101T000000-abcdef01")
    api.refused("INVALID_ARGUMENT", "GET", "/indexes/there/operations/a.b")
    api.refused("NOT_FOUND", "POST", "/indexes/there/operations/20260101T000000-abcdef01:cancel", {})
    api.refused("NOT_FOUND", "GET", "/indexes/nowhere/operations")
    api.good("DELETE", "/indexes/there", force=True)


def test_a_rebuild_is_followed_to_its_end_and_served(api: Api) -> None:
    api.good("POST", "/indexes", {"config": {"model": "all-MiniLM-L6-v2"}}, indexId="shows")
    started = time.monotonic()
    order = {"sources": [str(api.sources / "feed.xml")]}
    operation = api.good("POST", "/indexes/shows:rebuild", order)
    assert time.monotonic() - started < 5
    assert operation["metadata"]["index"] == "indexes/shows"
    assert "done" not in operation
    # One at a time, and nobody takes the index away from under it.
    assert operation["name"] in api.refused("ABORTED", "POST", "/indexes/shows:rebuild", order)
    assert operation["name"] in api.refused("ABORTED", "DELETE", "/indexes/shows", force=True)
    assert "still runs" in api.refused("FAILED_PRECONDITION", "DELETE", f"/{operation['name']}")
    done = api.ended(operation)
    assert "error" not in done, done
    assert done["response"]["indexVersion"] == "indexes/shows/versions/v000001"
    assert (done["response"]["documents"], done["response"]["published"]) == (3, True)
    found = api.good("POST", "/indexes/shows:search", {"text": "choirs sink in pitch", "neighborCount": 1})
    assert found["neighbors"][0]["datapoint"]["datapointId"] == "choir"
    # Without sources the same ones are read again, and nothing has changed.
    again = api.ended(api.good("POST", "/indexes/shows:rebuild", {}))
    assert again["response"]["published"] is False
    listed = api.good("GET", "/indexes/shows/operations", pageSize=1)
    assert [each["name"] for each in listed["operations"]] == [again["name"]]
    rest = api.good("GET", "/indexes/shows/operations", pageToken=listed["nextPageToken"])
    assert [each["name"] for each in rest["operations"]] == [operation["name"]]
    assert api.good("DELETE", f"/{operation['name']}") == {}
    api.refused("NOT_FOUND", "GET", f"/{operation['name']}")


def test_a_rebuild_that_is_cancelled_leaves_what_was_there_and_the_next_one_works(api: Api) -> None:
    operation = api.good("POST", "/indexes/shows:rebuild", {"force": True})
    assert api.good("POST", f"/{operation['name']}:cancel", {}) == {}
    done = api.good("GET", f"/{operation['name']}")
    assert (done["done"], done["error"]["code"]) == (True, 1)
    assert api.good("POST", f"/{operation['name']}:cancel", {}) == {}  # nothing to do any more
    assert api.good("GET", "/indexes/shows")["currentVersion"].endswith("v000001")
    done = api.ended(api.good("POST", "/indexes/shows:rebuild", {"force": True, "keep": 1}))
    assert done["response"]["indexVersion"].endswith("v000002")
    versions = api.good("GET", "/indexes/shows/versions")["versions"]
    assert [version["name"][-7:] for version in versions] == ["v000002"]


def test_a_rebuild_that_fails_says_why(api: Api) -> None:
    operation = api.good("POST", "/indexes/shows:rebuild", {"sources": [str(api.sources / "nosuch.xml")]})
    done = api.ended(operation)
    assert done["error"]["code"] == 5
    assert "nosuch.xml" in done["error"]["message"]


@pytest.mark.parametrize(
    "source", ["secret.xml", "allowed/../secret.xml", "allowed/link.xml", "http://127.0.0.1/feed.xml", ""]
)
def test_the_server_reads_no_source_that_its_operator_did_not_allow(api: Api, source: str) -> None:
    named = source if "://" in source else str(api.folder / source)
    path = "/indexes/shows:rebuild"
    assert "rebuild_sources" in api.refused("PERMISSION_DENIED", "POST", path, {"sources": [named]})
    api.refused("PERMISSION_DENIED", "POST", path, {"transcripts": [named]})


def test_what_no_rebuild_can_be_told_is_refused(api: Api) -> None:
    assert api.refused("INVALID_ARGUMENT", "POST", "/indexes/shows:rebuild", {"maxBad": "some"})
    assert api.refused("INVALID_ARGUMENT", "POST", "/indexes/shows:rebuild", {"fields": ["x=y"]})
