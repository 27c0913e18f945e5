"""Upserts and removes through real servers, by gRPC and HTTP: durable and seen when answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from earshot.client import Client
from earshot.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Index, Store
from tests.server.conftest import COUNT, DIMENSIONS
from tests.servers import Server, serving


def copied(data_dir: Path, folder: Path) -> Path:
    """The indexes of this folder's tests once more, to be changed, and one without a version."""
    shutil.copytree(data_dir, folder)
    Store(folder).create("fresh", {"dimensions": 3, "distance_measure": "COSINE_DISTANCE"})
    return folder


@pytest.fixture(scope="module", params=["portable", "direct"])
def live(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    folder = copied(data_dir, tmp_path_factory.mktemp("live") / "data")
    with serving(folder, "--transport", request.param) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture(scope="module")
def clients(live: Server) -> Iterator[list[Client]]:
    """One of gRPC and one of HTTP."""
    with Client(live.grpc) as first, Client(live.http) as second:
        yield [first, second]


def vector(seed: int, dimension: int = DIMENSIONS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)


def test_what_was_answered_is_seen_by_the_next_search(clients: list[Client]) -> None:
    for number, client in enumerate(clients):
        name = f"new-{number}"
        mine = 10 + vector(number)
        done = client.upsert(
            "plain",
            [
                {
                    "id": name,
                    "vector": mine,
                    "crowding_tag": "t",
                    "metadata": {"n": number, "deep": {"ü": [1, 2.5, None]}},
                    "restricts": {"language": ["de", "fr"], "year": 2020 + number},
                }
            ],
        )
        assert (done.count, done.errors) == (1, {})
        for asking in clients:
            found = asking.search("plain", vector=mine, k=3, return_full_datapoint=True)
            assert found[0].id == name
            assert found.sequence == done.sequence
            assert found[0].metadata == {"n": number, "deep": {"ü": [1, 2.5, None]}}
            assert found[0].restricts == {"language": ["de", "fr"], "year": 2020 + number}
            np.testing.assert_array_equal(found[0].vector, mine)
            assert asking.search("plain", vector=mine, where={"year": 2020 + number})[0].id == name
            assert asking.search_batch("plain", vectors=[mine, mine])[1][0].id == name
            (stored,) = asking.read("plain", [name])
            assert stored.crowding_tag == "t"
            told = asking.search("plain", vector=mine, explain=True)
            assert "fresh" in [step.name for step in told.explanation.steps]  # type: ignore[union-attr]
        gone = client.remove("plain", [name, "was-never-there"])
        assert gone.count == 1
        assert gone.sequence > done.sequence
        assert name not in [hit.id for hit in client.search("plain", vector=mine, k=COUNT)]
        with pytest.raises(NotFound, match=name):
            client.read("plain", [name])


def test_a_whole_datapoint_replaces_all_and_a_mask_only_its_parts(
    live: Server, clients: list[Client]
) -> None:
    client = clients[0]
    whole = {"id": "a", "vector": vector(1), "crowding_tag": "t", "metadata": {"x": 1}, "restricts": {"n": 7}}
    client.upsert("plain", [whole])
    client.upsert("plain", [{"id": "a", "metadata": {"y": 2}}], update_mask=["embedding_metadata"])
    (stored,) = client.read("plain", ["a"])
    assert (stored.metadata, stored.restricts, stored.crowding_tag) == ({"y": 2}, {"n": 7}, "t")
    client.upsert("plain", [{"id": "a"}], update_mask=["all_restricts"])
    (stored,) = client.read("plain", ["a"])
    assert (stored.metadata, stored.restricts) == ({"y": 2}, {})
    np.testing.assert_array_equal(stored.vector, vector(1))
    client.upsert("plain", [{"id": "a", "vector": vector(2)}])
    (stored,) = client.read("plain", ["a"])
    assert (stored.metadata, stored.restricts, stored.crowding_tag) == ({}, {}, None)
    client.upsert("plain", [{"id": "id-3", "metadata": {"z": 1}}], update_mask=["embedding_metadata"])
    (stored,) = client.read("plain", ["id-3"])
    assert (stored.metadata, stored.crowding_tag) == ({"z": 1}, "tag-3")
    with pytest.raises(InvalidArgument, match="update_mask names 'restricts'"):
        client.upsert("plain", [whole], update_mask=["restricts"])


def test_bad_datapoints_are_told_by_position_and_the_others_are_written(
    live: Server, clients: list[Client]
) -> None:
    for number, client in enumerate(clients):
        points: list[dict[str, Any]] = [
            {"id": f"good-{number}", "vector": vector(1)},
            {"id": "short", "vector": vector(1)[:3]},
            {"id": "nan", "vector": np.full(DIMENSIONS, np.nan)},
            {"id": "", "vector": vector(1)},
            {"id": "nothing"},
            {"id": "text", "text": "an index of vectors has no model"},
            {"id": f"also-good-{number}", "vector": vector(2)},
        ]
        done = client.upsert("plain", points)
        assert done.count == 2
        assert {place: type(error) for place, error in done.errors.items()} == {
            1: InvalidArgument,
            2: InvalidArgument,
            3: InvalidArgument,
            4: InvalidArgument,
            5: FailedPrecondition,
        }
        assert "dimension 8" in done.errors[1].message
        assert len(client.read("plain", [f"good-{number}", f"also-good-{number}"])) == 2
        missing = client.upsert("plain", [{"id": "nobody"}], update_mask=["embedding_metadata"])
        assert isinstance(missing.errors[0], NotFound)
        assert (missing.count, missing.sequence) == (0, 0)


def test_text_is_embedded_by_the_model_of_the_index(clients: list[Client]) -> None:
    client = clients[1]
    done = client.upsert("shows", [{"id": "bees", "text": "Keeping bees on the roof of a house in town"}])
    assert done.errors == {}
    assert client.search("shows", "urban beekeeping", k=1)[0].id == "bees"


def test_a_request_that_is_sent_again_writes_nothing_twice(clients: list[Client]) -> None:
    client = clients[0]
    first = client.upsert("plain", [{"id": "once", "vector": vector(1)}], request_id="once")
    client.remove("plain", ["once"])
    again = client.upsert("plain", [{"id": "once", "vector": vector(1)}], request_id="once")
    assert again.sequence == first.sequence
    with pytest.raises(NotFound):
        client.read("plain", ["once"])


def test_a_search_can_demand_to_see_an_update(clients: list[Client]) -> None:
    for client in clients:
        done = client.upsert("plain", [{"id": "a", "vector": vector(1)}])
        assert client.search("plain", vector=vector(1), min_sequence=done.sequence).sequence >= done.sequence
        with pytest.raises(Aborted, match="min_sequence"):
            client.search("plain", vector=vector(1), min_sequence=done.sequence + 1_000, timeout=0.5)


def test_an_index_without_a_version_is_filled_by_updates(clients: list[Client]) -> None:
    client = clients[0]
    assert list(client.search("fresh", vector=[1, 0, 0])) == []
    client.upsert("fresh", ({"id": str(n), "vector": vector(n, 3)} for n in range(2500)))
    found = client.search("fresh", vector=vector(7, 3), k=5)
    assert found[0].id == "7"
    assert client.get_index("fresh").datapoint_count == 2500


def test_a_new_version_is_served_with_the_updates_after_it(live: Server, clients: list[Client]) -> None:
    client = clients[0]
    mine = 10 + vector(1)
    client.upsert("plain", [{"id": "kept", "vector": mine}])
    client.remove("plain", ["id-1"])
    rebuilt = Index.build(
        np.stack([vector(n) for n in range(60)]),
        [f"id-{n}" for n in range(60)],
        distance_measure="SQUARED_L2_DISTANCE",
    )
    Store(live.data_dir).publish("plain", rebuilt)
    for _ in range(200):
        found = client.search("plain", vector=mine, k=100)
        assert found[0].id == "kept"
        assert "id-1" not in [hit.id for hit in found]
        if found.index_version.endswith("v000002"):
            break
    assert {f"id-{n}" for n in range(60)} - {"id-1"} | {"kept"} <= {hit.id for hit in found}
    client.upsert("plain", [{"id": "later", "vector": mine}])
    assert {hit.id for hit in client.search("plain", vector=mine, k=2)} == {"kept", "later"}


def test_updates_outlive_the_server_and_a_second_one_follows(data_dir: Path, tmp_path: Path) -> None:
    folder = copied(data_dir, tmp_path / "data")
    expected = {f"n-{n}" for n in range(100)} | {f"id-{n}" for n in range(COUNT)}
    with serving(folder) as first, Client(first.grpc) as client:
        client.upsert("plain", [{"id": f"n-{n}", "vector": vector(n)} for n in range(100)])
        client.remove("plain", ["n-5", "id-7"])
        expected -= {"n-5", "id-7"}
        with serving(folder) as second, Client(second.grpc) as other:
            ids = {hit.id for hit in other.search("plain", vector=vector(0), k=500)}
            assert ids == expected
            later = client.upsert("plain", [{"id": "b", "vector": 9 + vector(1)}])
            found = other.search("plain", vector=9 + vector(1), k=1, min_sequence=later.sequence)
            assert found[0].id == "b"
            with pytest.raises(Aborted, match="journal"):
                other.upsert("plain", [{"id": "c", "vector": vector(1)}])
    with serving(folder) as again, Client(again.grpc) as client:
        ids = {hit.id for hit in client.search("plain", vector=vector(0), k=500)}
        assert ids == expected | {"b"}
        client.upsert("plain", [{"id": "c", "vector": vector(1)}])  # the lock of the first is gone


def test_plain_http_as_google_writes_it(live: Server) -> None:
    answer = httpx.post(
        f"{live.http}/v1/indexes/plain/datapoints:upsert",
        json={
            "datapoints": [
                {
                    "datapointId": "a",
                    "featureVector": [1.0] * DIMENSIONS,
                    "restricts": [{"namespace": "c", "allowList": ["x"], "denyList": ["y"]}],
                    "numericRestricts": [{"namespace": "n", "valueInt": "5"}],
                },
                {"datapointId": "b", "featureVector": [1.0]},
            ]
        },
    )
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["upsertedCount"] == 1
    assert told["errors"][0]["position"] == 1
    assert told["errors"][0]["datapointId"] == "b"
    assert told["errors"][0]["status"]["code"] == 3
    patched = httpx.post(
        f"{live.http}/v1/indexes/plain/datapoints:upsert",
        json={
            "datapoints": [{"datapointId": "a", "embeddingMetadata": {"k": 1}}],
            "updateMask": "embeddingMetadata",
        },
    )
    assert patched.json()["upsertedCount"] == 1, patched.text
    removed = httpx.post(f"{live.http}/v1/indexes/plain/datapoints:remove", json={"datapointIds": ["a"]})
    assert removed.json()["removedCount"] == 1
    bodies: list[dict[str, Any]] = [{"datapoints": []}, {"datapoints": [{"id": "a"}]}, {"datapoints": 7}]
    for wrong in bodies:
        assert httpx.post(f"{live.http}/v1/indexes/plain/datapoints:upsert", json=wrong).status_code == 400
