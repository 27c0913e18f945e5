"""Recall of a served index as its datapoints change, with no rebuild. Short of it: test_short_recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earshot.client import Client
from earshot.index import Index, Recall, Store
from earshot.index.points import recall_of
from tests.servers import serving

DIMENSION, COUNT, TARGET = 24, 8000, 0.95
CENTRES = np.random.default_rng(3).standard_normal((120, DIMENSION))
OLD, NEW = CENTRES[:60], CENTRES[60:]

Floats = NDArray[np.float32]


def draw(count: int, centres: NDArray[np.float64], seed: int) -> Floats:
    dice = np.random.default_rng(seed)
    points = centres[dice.integers(0, len(centres), count)] + 0.5 * dice.standard_normal((count, DIMENSION))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def recall(client: Client, questions: Floats) -> Recall:
    found = client.search_batch("mine", vectors=questions, k=10)
    truth = client.search_batch("mine", vectors=questions, k=10, target_recall=1)
    pairs = zip(found, truth, strict=True)
    return recall_of(np.array([len({h.id for h in f} & {h.id for h in t}) for f, t in pairs]), 10)


def upsert(client: Client, names: list[str], vectors: Floats) -> None:
    points = [{"id": name, "vector": vector} for name, vector in zip(names, vectors, strict=True)]
    assert not client.upsert("mine", points).errors


def test_recall_holds_while_a_third_changes_and_new_topics_come(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", Index.build(draw(COUNT, OLD, 1), tuning_queries=draw(500, OLD, 9)))
    changed = [str(row) for row in np.random.default_rng(4).permutation(COUNT)[: 3 * COUNT // 10]]
    with serving(tmp_path / "data", EARSHOT_COMPACT_UPDATES="0") as server, Client(server.grpc) as client:
        assert recall(client, draw(400, OLD, 5)).high >= TARGET
        upsert(client, changed[:2000], draw(2000, OLD, 2))
        client.remove("mine", changed[2000:])
        assert recall(client, draw(400, OLD, 6)).high >= TARGET
        upsert(client, [f"new-{n}" for n in range(5000)], draw(5000, NEW, 7))
        for topics in (OLD, NEW):
            assert recall(client, draw(400, topics, 8)).high >= TARGET
        assert client.get_index("mine").datapoint_count == COUNT - 400 + 5000
    assert store.current("mine") == "v000001"
