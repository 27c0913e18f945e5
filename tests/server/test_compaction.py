"""A server compacts by itself: no failed query, no lost update, and a journal that does not grow for ever."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from earshot.client import Client
from earshot.index import Index, Store
from earshot.index.journal import Remove, open_journal
from earshot.server.compactor import Compactor
from earshot.server.registry import Registry
from earshot.server.settings import load_settings
from tests.servers import Server, serving

DIMENSION = 8


def vector(seed: int) -> list[float]:
    found: list[float] = np.random.default_rng(seed).standard_normal(DIMENSION).tolist()
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = Store(tmp_path / "data")
    store.create("mine")
    vectors = np.array([vector(row) for row in range(200)], np.float32)
    store.publish("mine", Index.build(vectors, distance_measure="COSINE_DISTANCE"))
    return tmp_path / "data"


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("transport", ["portable", pytest.param("direct", marks=pytest.mark.slow)])
def test_many_updates_become_a_version_while_all_goes_on(transport, data):
    """Written, searched and read all the while; each answer is right at each moment."""
    store, wrong, stop = Store(data), [], threading.Event()

    def look(server: Server) -> None:
        with Client(server.http) as client:
            while not stop.is_set():
                try:
                    newest = written[-1] if written else 0
                    (found,) = client.search("mine", vector=vector(newest), k=1)
                    if found.id != f"{newest}":
                        wrong.append((newest, found.id))
                except Exception as error:  # noqa: BLE001
                    wrong.append(error)

    written: list[int] = []
    with serving(data, "--transport", transport, EARSHOT_COMPACT_UPDATES="100") as server:
        looking = threading.Thread(target=look, args=(server,))
        looking.start()
        with Client(server.http) as client:
            number = 200
            while store.current("mine") == "v000001":
                client.upsert("mine", [{"id": f"{number}", "vector": vector(number)}])
                written.append(number)
                number += 1
            last = client.remove("mine", ["3"])
        stop.set()
        looking.join()
        assert not wrong
        with Client(server.http) as client:
            until(lambda: client.search("mine", vector=vector(0), k=1).index_version.endswith("v000002"))
            assert len(client.read("mine", [f"{number}" for number in written])) == len(written)
            assert last
    manifest = store.manifest("mine")
    assert manifest.sequence_number >= 100
    with closing(open_journal(store.journal_file("mine"), "mine", read_only=True)) as journal:
        assert journal.last() == len(written) + 1


def test_a_journal_is_trimmed_by_the_server_that_owns_it(data):
    store = Store(data)
    with serving(data, EARSHOT_COMPACT_UPDATES="50") as server, Client(server.http) as client:
        number = 200
        while store.current("mine") == "v000001":
            client.upsert("mine", [{"id": f"{number}", "vector": vector(number)}])
            number += 1
        with store.writer_lock("mine", timeout=30):  # the compaction is at its end
            store.prune("mine", keep=1)
        with closing(open_journal(store.journal_file("mine"), "mine", read_only=True)) as journal:
            until(lambda: journal.status().trimmed > 0)
            assert journal.status().trimmed <= store.oldest_sequence("mine")
    with serving(data) as server, Client(server.http) as client:
        assert len(client.read("mine", [f"{each}" for each in range(200, number)])) == number - 200


def test_what_fails_is_tried_again_ever_more_rarely(data: Path) -> None:
    registry = Registry(Store(data), poll_seconds=None)
    registry.start()
    compactor = Compactor(registry, load_settings(data_dir=str(data), compact_updates=1))
    everything = [Remove(str(row)) for row in range(200)]
    try:
        registry.feed("mine").write(everything, request_id=None, timeout=10)
        for failures, pause in enumerate((300, 600), 1):
            compactor.look()
            assert compactor.runs["mine", "failed"] == failures
            assert "every datapoint of mine was removed" in compactor.problems["mine"]
            assert compactor._not_before["mine"] - time.monotonic() == pytest.approx(pause, abs=10)
            compactor.look()
            assert compactor.runs["mine", "failed"] == failures
            compactor._not_before.clear()
    finally:
        registry.stop()


def test_what_another_worker_has_just_compacted_is_not_compacted_again(data: Path) -> None:
    store = Store(data)
    one, other = (Registry(store, poll_seconds=3600, shared=True) for _ in range(2))
    settings = load_settings(data_dir=str(data), compact_updates=1)
    try:
        for registry in (one, other):
            registry.refresh()
        one.feed("mine").write([Remove("7")], request_id=None, timeout=10)
        other.get("mine")
        first, second = Compactor(one, settings), Compactor(other, settings)
        assert first.reason("mine") == second.reason("mine") == "1 updates since version v000001"
        first.look()
        assert second.reason("mine") is not None  # it has not looked for versions since
        second.look()
        assert (dict(first.runs), dict(second.runs)) == ({("mine", "ok"): 1}, {})
        assert store.current("mine") == "v000002"
    finally:
        for registry in (one, other):
            registry.stop()
