"""Questions of another kind than the index was tuned on: the server notices, tells it, and compacts."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from earshot.client import Client
from earshot.index import Index, ScannParameters, Store
from tests.servers import Server, serving

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


def test_recall_that_fell_short_is_noticed_told_and_compacted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store(data)
    store.create("mine")
    near = CENTRES[np.arange(6000) % 60] + 0.05 * DICE.standard_normal((6000, DIMENSION)).astype(np.float32)
    index = Index.build(
        near,
        tuning_queries=near[:300] + np.float32(0.01),
        target_recall=0.9,
        engine=ScannParameters(leaves=60),
        distance_measure="SQUARED_L2_DISTANCE",
    )
    store.publish("mine", index)
    asked = [1.5 * DICE.standard_normal(DIMENSION) for _ in range(32)]
    assert index.measure_recall(np.array(asked, np.float32)).high < 0.9
    with serving(data) as server, Client(server.http) as client:
        client.upsert("mine", [{"id": "new", "vector": asked[0]}])
        deadline = time.monotonic() + 90
        seen: dict[str, Any] = {}
        while store.current("mine") == "v000001":
            client.search_batch("mine", vectors=asked, k=10)
            if not seen and told(server).get("status") == "short":
                seen = told(server)
                low, value, high = (metric(server, f"live_recall{end}") for end in ("_low", "", "_high"))
                assert low <= value <= high < 0.9
            assert time.monotonic() < deadline, server.log()
            time.sleep(0.1)
        assert seen["target"] == 0.9
        assert seen["high"] < 0.9
        assert "is short of its recall 0.9" in server.log()
        assert "compacting index mine: real queries find" in server.log()
        assert client.read("mine", ["new"])[0].id == "new"
