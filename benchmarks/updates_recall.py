"""Recall of a served index as its datapoints change: a part of `benchmarks.updates`.

In turn: the index as it was built, up to 30 % of its datapoints overwritten with others of the same topics,
10 % removed, and as many datapoints as 10 % of it of topics that the version never saw; all that without a
rebuild. Then questions of the new topics alone come until the server finds enough of their neighbors, or has
tuned the index on them. After each, questions that were not asked before are asked at the index's own target
and exactly.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np

from earshot.client import Client
from earshot.index.distance import Floats
from earshot.index.points import recall_of

from .service import synthetic

K = 10
NEW = 1_000_003
"""Topics."""
PATIENCE_SECONDS = 900


def _measured(client: Client, index: str, questions: Floats) -> dict[str, Any]:
    asked = client.search_batch(index, vectors=questions, k=K)
    truth = client.search_batch(index, vectors=questions, k=K, target_recall=1.0)
    hits = [
        len({hit.id for hit in found} & {hit.id for hit in true})
        for found, true in zip(asked, truth, strict=True)
    ]
    recall = recall_of(np.array(hits), K)
    return {"recall": recall.value, "low": recall.low, "high": recall.high}


def _seen(address: str, index: str) -> dict[str, Any]:
    """What the server knows of the recall of real searches."""
    with urllib.request.urlopen(f"http://{address}/readyz") as answer:
        seen: dict[str, Any] = json.load(answer).get("recall", {}).get(index, {})
    return seen


def _until_made_good(client: Client, address: str, index: str) -> str:
    """Ask until the server says that as much is found as was promised; what it did."""
    before, began, noticed = client.get_index(index).current_version, time.perf_counter(), 0.0
    turn = 0
    while True:
        client.search_batch(index, vectors=synthetic(64, 1000 + turn, NEW), k=K)
        turn += 1
        seconds = time.perf_counter() - began
        seen = _seen(address, index)
        is_new = client.get_index(index).current_version != before
        if not noticed and seen.get("status") == "short":
            noticed = seconds
        if is_new:
            return f"noticed after {noticed:.0f} s, tuned after {seconds:.0f} s"
        if seen.get("status") == "ok" and turn > 17 * 512 // 64 and seen["value"] >= seen["target"]:
            return "nothing to do"
        if seconds > PATIENCE_SECONDS:
            return "not made good"
        time.sleep(0.02)


def recall_under_updates(address: str, index: str, target: float) -> Iterator[dict[str, Any]]:
    """A row for each state of the index, whose datapoints are "0", "1", … of the old topics.

    Args:
        address: Of a server that does not compact by itself.
        index: Its name there.
        target: The recall that it was built for.
    """
    old, new = synthetic(1000, 11), synthetic(1000, 12, NEW)
    with Client(address, timeout=600) as client:
        count = client.get_index(index).datapoint_count

        def row(state: str, topics: str, questions: Floats) -> dict[str, Any]:
            measured = _measured(client, index, questions)
            return {"state": state, "questions": topics, "target": target} | measured

        def write(ids: list[str], vectors: Floats) -> None:
            points = [{"id": name, "vector": vector} for name, vector in zip(ids, vectors, strict=True)]
            assert not client.upsert(index, points).errors

        yield row("as built", "old", old)
        order = np.random.default_rng(13).permutation(count)
        tenth = count // 10
        for turn in range(3):
            names = [str(datapoint) for datapoint in order[turn * tenth : (turn + 1) * tenth].tolist()]
            write(names, synthetic(tenth, 20 + turn))
            yield row(f"{turn + 1}0 % overwritten", "old", old)
        client.remove(index, [str(datapoint) for datapoint in order[3 * tenth : 4 * tenth].tolist()])
        yield row("and 10 % removed", "old", old)
        write([f"new-{i}" for i in range(tenth)], synthetic(tenth, 30, NEW))
        for topics, questions in (("new", new), ("old", old)):
            yield row("and 10 % of new topics", topics, questions)


def recall_made_good(address: str, index: str, target: float) -> Iterator[dict[str, Any]]:
    """What a server that may compact does when questions of the new topics alone come; two rows.

    Args:
        address: Of one whose gRPC and HTTP share a port.
        index: Its name there, in the state that `recall_under_updates` leaves.
        target: The recall that it was built for.
    """
    with Client(address, timeout=600) as client:
        done = _until_made_good(client, address, index)
        for topics, seed, of in (("new", 14, NEW), ("old", 15, 0)):
            measured = _measured(client, index, synthetic(1000, seed, of))
            yield {"state": done, "questions": topics, "target": target} | measured
