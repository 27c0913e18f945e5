"""Two workers' registries over one index: neither answers with less than the other acknowledged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from earshot.index import Index, Store
from earshot.index.journal import Put, Remove, turns_of
from earshot.server.embedders import Embedders
from earshot.server.index_service import IndexService
from earshot.server.registry import Registry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", Index.build(np.eye(4, dtype=np.float32)))
    return store


@pytest.fixture
def workers(store: Store) -> Iterator[tuple[Registry, Registry]]:
    """None of which looks by itself."""
    one, other = (Registry(store, poll_seconds=3600, shared=True) for _ in range(2))
    for registry in (one, other):
        registry.refresh()
    yield one, other
    for registry in (one, other):
        registry.stop()


def put(name: str) -> Put:
    return Put(name, np.full(4, 2.0, np.float32))


def test_who_is_behind_is_not_ready_and_catches_up(
    workers: tuple[Registry, Registry], tmp_path: Path
) -> None:
    one, other = workers
    assert one.feed("mine").write([put("a")], request_id=None, timeout=10) == 1
    assert one.ready("mine") is one.peek("mine")
    assert other.ready("mine") is None
    assert other.peek("mine") is not None
    assert len(other.get("mine").index) == 5
    assert other.ready("mine") is other.peek("mine")
    assert other.feed("mine").write([Remove("a"), put("b"), put("c")], request_id=None, timeout=10) == 4
    assert one.ready("mine") is None
    service = IndexService(one, Embedders(tmp_path), None)
    assert service.get("indexes/mine").datapoint_count == 6
    assert one.ready("mine") is not None


def test_a_new_version_holds_what_the_other_worker_acknowledged_meanwhile(
    store: Store, workers: tuple[Registry, Registry]
) -> None:
    one, other = workers
    one.feed("mine").write([put("a")], request_id=None, timeout=10)
    store.publish("mine", Index.build(np.eye(4, dtype=np.float32)))
    other.refresh()
    ready = other.ready("mine")
    assert ready is not None
    assert (ready.version, len(ready.index)) == ("v000002", 5)


def test_a_journal_that_ends_too_early_is_told_and_keeps_nobody_waiting(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.journal_file("mine")
    assert path is not None
    turns = turns_of(path)
    turns.reached = 7
    registry = Registry(store, poll_seconds=3600, shared=True)
    with caplog.at_level(logging.ERROR):
        registry.refresh()
    assert "updates up to 7 were acknowledged, and its journal ends at 0" in caplog.text
    assert registry.ready("mine") is not None
    assert registry.feed("mine").write([put("a")], request_id=None, timeout=10) == 1
    assert turns.reached == 1
    registry.stop()
    turns.close()


def test_who_serves_alone_shares_nothing(store: Store) -> None:
    registry = Registry(store, poll_seconds=3600)
    registry.refresh()
    assert registry.feed("mine").write([put("a")], request_id=None, timeout=10) == 1
    assert registry.ready("mine") is not None
    path = store.journal_file("mine")
    assert path is not None
    assert not path.with_suffix(".turns").exists()
    registry.stop()
