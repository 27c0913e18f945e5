"""A server under load while versions come, go and break: no failed query, and the truth in /readyz."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from earshot.client import Client
from earshot.index import Index, Store
from earshot.index.files import replace_bytes
from tests.servers import serving

from .test_metrics import Scrape

SHAPE = (400, 16)


def build(seed: int) -> Index:
    vectors = np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)
    return Index.build(vectors, [f"{seed}-{row}" for row in range(SHAPE[0])])


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_new_versions_are_picked_up_without_a_failed_query(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("moving")
    store.publish("moving", build(1))
    query = np.ones(SHAPE[1], np.float32)
    with serving(Path(store.location)) as server:
        seen: dict[str, int] = {}
        failures: list[Exception] = []
        stop = threading.Event()

        def ask(target: str) -> None:
            with Client(target) as client:
                while not stop.is_set():
                    try:
                        found = client.search("moving", vector=query, k=5)
                    except Exception as error:  # noqa: BLE001 - any failure at all is what we look for
                        failures.append(error)
                        return
                    version = found.index_version.rpartition("/")[2]
                    assert {hit.id.partition("-")[0] for hit in found} == {str(int(version[1:]))}
                    seen[version] = seen.get(version, 0) + 1

        threads = [threading.Thread(target=ask, args=(target,)) for target in (server.grpc, server.http) * 2]
        for thread in threads:
            thread.start()
        for number in range(2, 6):
            version = store.publish("moving", build(number))
            wait_for(lambda version=version: version in seen or failures)
            store.prune("moving", keep=1)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert set(seen) >= {"v000002", "v000003", "v000004", "v000005"}
        assert "Traceback" not in server.log()


def test_a_broken_new_version_leaves_the_old_one_serving_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("careful")
    store.publish("careful", build(1))
    with serving(Path(store.location)) as server:
        assert httpx.get(f"{server.http}/readyz").json() == {
            "status": "ok",
            "indexes": ["careful"],
            "problems": {},
        }
        folder = Path(store.location) / "indexes" / "careful"
        store.publish("other" if "other" in store.indexes() else "careful", build(2))
        vectors = next((folder / "versions" / "v000002").rglob("*.npy"))
        content = bytearray(vectors.read_bytes())
        content[-1] ^= 1
        vectors.unlink()
        vectors.write_bytes(content)
        # Seen whole in between? Then say it again: a version that is current and was not opened yet.
        replace_bytes(folder / "CURRENT", b"v000001\n")
        wait_for(lambda: served(server.http).endswith("v000001"))
        replace_bytes(folder / "CURRENT", b"v000002\n")
        wait_for(lambda: httpx.get(f"{server.http}/readyz").json()["problems"])
        ready = httpx.get(f"{server.http}/readyz")
        assert ready.status_code == 200
        problem = ready.json()["problems"]["careful"]
        assert vectors.name in problem
        assert "v000001 goes on serving" in problem
        assert served(server.http).endswith("v000001")
        assert httpx.get(f"{server.http}/v1/indexes/careful").json()["problem"] == problem
        seen = Scrape(server.http)
        assert seen.get("earshot_index_problem", index="careful") == 1
        assert seen.get("earshot_version_loads_total", index="careful", result="failed") >= 1
        assert seen.get("earshot_index_info", index="careful", version="v000001") == 1
        assert f"ERROR earshot.server.registry: index careful v000002: {problem}" in server.log()


@pytest.mark.parametrize("is_emptied", [True, False])
def test_where_no_version_is_current_any_more_what_was_served_goes_on(
    is_emptied: bool, tmp_path: Path
) -> None:
    store = Store(tmp_path / "data")
    store.create("careful", {"dimensions": SHAPE[1]})
    store.publish("careful", build(1))
    with serving(Path(store.location)) as server:
        current = Path(store.location) / "indexes" / "careful" / "CURRENT"
        assert served(server.http).endswith("v000001")
        if is_emptied:
            current.write_bytes(b"")
        else:
            current.unlink()
        wait_for(lambda: httpx.get(f"{server.http}/readyz").json()["problems"])
        (problem,) = httpx.get(f"{server.http}/readyz").json()["problems"].values()
        assert "roll back to one; version v000001 goes on serving" in problem
        assert served(server.http).endswith("v000001")
        store.rollback("careful", "v000001")
        wait_for(lambda: not httpx.get(f"{server.http}/readyz").json()["problems"])
        assert served(server.http).endswith("v000001")


def test_an_index_that_cannot_be_opened_at_all_makes_the_server_unready(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("broken")
    store.publish("broken", build(1))
    (Path(store.location) / "indexes" / "broken" / "versions" / "v000001" / "_SUCCESS").unlink()
    with serving(Path(store.location)) as server:
        ready = httpx.get(f"{server.http}/readyz")
        assert ready.status_code == 503
        assert "_SUCCESS" in ready.json()["problems"]["broken"]
        reply = httpx.post(f"{server.http}/v1/indexes/broken:search", json={"datapointId": "1-1"})
        assert reply.status_code == 503
        assert "_SUCCESS" in reply.json()["error"]["message"]
        assert httpx.get(f"{server.http}/healthz").status_code == 200


def test_indexes_made_and_deleted_while_serving_come_and_go(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    with serving(Path(store.location)) as server:
        assert httpx.get(f"{server.http}/v1/indexes").json()["indexes"] == []
        store.create("late")
        store.publish("late", build(1))
        found = httpx.post(
            f"{server.http}/v1/indexes/late:search", json={"datapointId": "1-3", "neighborCount": 1}
        )
        assert found.status_code == 200
        store.delete("late")
        wait_for(lambda: httpx.get(f"{server.http}/v1/indexes/late").status_code == 404)


def served(http: str) -> str:
    return str(
        httpx.post(f"{http}/v1/indexes/careful:search", json={"vector": {"values": [1.0] * SHAPE[1]}}).json()[
            "indexVersion"
        ]
    )


def test_an_index_whose_model_is_not_here_answers_vectors_and_says_why_not_texts(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("foreign")
    model = {"name": "all-MiniLM-L6-v2", "precision": "int8", "digest": "0" * 64}
    store.publish("foreign", build(1), manifest_extra={"model": model})
    with serving(Path(store.location)) as server:
        search = f"{server.http}/v1/indexes/foreign:search"
        assert httpx.post(search, json={"datapointId": "1-3"}).status_code == 200
        reply = httpx.post(search, json={"text": "hello"})
        assert reply.status_code == 400
        assert "rebuild the index" in reply.json()["error"]["message"]
        assert "rebuild the index" in server.log()
