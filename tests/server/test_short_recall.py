"""Questions of another kind than the index was tuned on: the server notices, tells it, and makes it good."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from earshot.client import Client
from earshot.index import Index, ScannParameters, Store
from tests.servers import Server, earshot, serving

DIMENSION = 32
DICE = np.random.default_rng(3)
CENTRES = DICE.standard_normal((60, DIMENSION)).astype(np.float32)


def page(server: Server, path: str) -> str:
    with urllib.request.urlopen(f"{server.http}{path}") as answer:
        text: str = answer.read().decode()
    return text


def told(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page(server, "/readyz")).get("recall", {}).get("mine", {})
    return found


def metric(server: Server, name: str) -> float:
    line = rf'^earshot_index_{name}{{[^}}]*index="mine"[^}}]*}} (\S+)'
    found = re.search(line, page(server, "/metrics"), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An index tuned on questions that lie beside one of its centres."""
    store = Store(tmp_path / "data")
    store.create("mine")
    near = CENTRES[np.arange(6000) % 60] + 0.05 * DICE.standard_normal((6000, DIMENSION)).astype(np.float32)
    index = Index.build(
        near,
        tuning_queries=near[:300] + np.float32(0.01),
        target_recall=0.9,
        engine=ScannParameters(leaves=60),
        distance_measure="SQUARED_L2_DISTANCE",
    )
    assert index.measure_recall(questions(400)).high < 0.9
    store.publish("mine", index)
    return tmp_path / "data"


def questions(count: int) -> NDArray[np.float32]:
    """Between all centres."""
    return (1.5 * DICE.standard_normal((count, DIMENSION))).astype(np.float32)


def recall(client: Client) -> float:
    """Of questions that were not asked before."""
    asked = questions(300)
    found = client.search_batch("mine", vectors=asked, k=10)
    truth = client.search_batch("mine", vectors=asked, k=10, target_recall=1)
    pairs = zip(found, truth, strict=True)
    return sum(len({hit.id for hit in f} & {hit.id for hit in t}) for f, t in pairs) / (10 * len(asked))


@pytest.mark.parametrize("updates", [0, 1])
def test_recall_that_falls_short_is_noticed_told_and_made_good(data: Path, updates: int) -> None:
    store = Store(data)
    with serving(data) as server, Client(server.http) as client:
        client.upsert("mine", [{"id": f"new-{n}", "vector": questions(1)[0]} for n in range(updates)])
        assert recall(client) < 0.85
        deadline = time.monotonic() + 90
        seen: dict[str, Any] = {}
        shown = ""
        while client.get_index("mine").current_version.endswith("v000001"):
            client.search_batch("mine", vectors=questions(64), k=10)
            if not seen and told(server).get("status") == "short":
                seen = told(server)
                low, value, high = (metric(server, f"live_recall{end}") for end in ("_low", "", "_high"))
                assert low <= value <= high < metric(server, "target_recall") == 0.9
                shown = earshot(data, "top", "--once", "--interval", "0.1", "--server", server.http).stdout
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        assert (seen["target"], seen["high"] < 0.9) == (0.9, True)
        assert re.search(r"mine .* 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", shown), shown
        assert "is short of its recall 0.9" in server.log()
        assert "compacting index mine: real queries find" in server.log()
        assert client.get_index("mine").datapoint_count == 6000 + updates
        assert recall(client) >= 0.88
        assert told(server).get("status") != "short"
    assert store.current("mine") == "v000002"
    assert store.manifest("mine").source["tuning_queries"] == "a sample of real searches"
    assert store.manifest("mine").tuning.target_recall == 0.9


def test_recall_is_measured_of_a_target_that_was_set_after_the_build(data: Path) -> None:
    with serving(data) as server, Client(server.http) as client:
        client.update_index("mine", {"target_recall": 0.8})
        deadline = time.monotonic() + 90
        while not told(server):
            client.search_batch("mine", vectors=questions(64), k=10)
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        assert told(server)["target"] == metric(server, "target_recall") == 0.8


def test_queries_of_another_dimension_are_forgotten_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", Index.build(DICE.standard_normal((500, 8)).astype(np.float32)))
    with serving(tmp_path / "data") as server, Client(server.http) as client:
        client.search_batch("mine", vectors=DICE.standard_normal((64, 8)), k=10)
        store.publish("mine", Index.build(DICE.standard_normal((500, 12)).astype(np.float32)))
        deadline = time.monotonic() + 90
        while not client.get_index("mine").current_version.endswith("v000002"):
            assert time.monotonic() < deadline, server.log()
        while not told(server):
            client.search_batch("mine", vectors=DICE.standard_normal((64, 12)), k=10)
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.02)
        assert "Traceback" not in server.log()
        assert "ERROR" not in server.log()
