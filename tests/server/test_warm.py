"""What is asked of a version before it serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earshot.errors import DataLoss
from earshot.index import Index, Store
from earshot.index.live import LiveIndex
from earshot.server import messages
from earshot.server.embedders import Embedders
from earshot.server.feed import Feed
from earshot.server.registry import Registry
from earshot.server.service import Service
from earshot.server.warm import Recent

DIMENSIONS = 4


def build(dimensions: int = DIMENSIONS) -> Index:
    vectors = np.random.default_rng(0).standard_normal((30, dimensions), dtype=np.float32)
    return Index.build(vectors, metadata=[{"row": row} for row in range(30)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.create("warm")
    store.publish("warm", build())
    return store


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    registry = Registry(store, poll_seconds=3600)
    registry.start()
    yield registry
    registry.stop()


def test_a_new_version_has_answered_recent_searches_before_it_serves(
    store: Store, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(registry, Embedders(tmp_path))
    query = [0.5, 0.25, 0.125, 1.0]
    service.search(
        messages.SearchRequest(index="warm", vector=messages.Vector(values=query), neighbor_count=7)
    )
    asked: list[tuple[str, Any, int]] = []
    search = LiveIndex.search

    def spy(self: LiveIndex, queries: Any, k: int, **options: Any) -> Any:
        serving = registry.peek("warm")
        assert serving is not None
        asked.append((serving.version, np.asarray(queries).tolist(), k))
        return search(self, queries, k, **options)

    monkeypatch.setattr(LiveIndex, "search", spy)
    store.publish("warm", build())
    registry.refresh()
    now = registry.peek("warm")
    assert now is not None
    assert now.version == "v000002"
    assert {version for version, *_ in asked} == {"v000001"}  # the old one still served
    assert ("v000001", [query], 7) in asked


def test_what_the_new_version_cannot_answer_keeps_nobody_from_serving_it(
    store: Store, registry: Registry, tmp_path: Path
) -> None:
    service = Service(registry, Embedders(tmp_path))
    vector = messages.Vector(values=[1.0] * DIMENSIONS)
    service.search(messages.SearchRequest(index="warm", vector=vector))
    store.publish("warm", build(DIMENSIONS + 1))
    registry.refresh()
    assert registry.problems == {}
    assert registry.manifest("warm").dimension == DIMENSIONS + 1


def test_a_sample_is_small_however_much_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("earshot.server.warm.time.monotonic", lambda: now)
    recent = Recent()
    for _ in range(500):
        for _ in range(3):
            recent.note(np.ones((1000, DIMENSIONS), np.float32), 10, {})
        now += 1.0
    assert sum(len(queries) for queries, *_ in recent._kept) <= 32 * 16


def test_a_version_that_cannot_take_over_is_told_and_the_old_one_serves_on(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise DataLoss("entry 7 is missing")

    monkeypatch.setattr(Feed, "take", lost)
    store.publish("warm", build())
    registry.refresh()
    assert "entry 7 is missing" in registry.problems["warm"]
    assert registry.get("warm").version == "v000001"
