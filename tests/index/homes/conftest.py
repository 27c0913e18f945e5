"""Homes that are no folder: fsspec's own memory, and a real S3 API on the loopback."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from earshot.index import Store
from earshot.index.homes import lease

SCHEMES = ("memory", "s3")


@pytest.fixture(params=SCHEMES)
def location(request: pytest.FixtureRequest) -> str:
    """A fresh address."""
    if request.param == "s3":
        request.getfixturevalue("s3_environment")
        return f"s3://earshot-tests/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def open_store(location: str, tmp_path: Path) -> Callable[..., Store]:
    """The store at that address, as a machine with a cache of its own sees it."""

    def store(machine: str = "here") -> Store:
        return Store(location, cache_dir=tmp_path / machine)

    return store


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    store = open_store()
    store.create("podcasts")
    return store


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """A lease of a fraction of a second, which processes elsewhere need not wait long to outlive."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.6)
    return 0.6


@pytest.fixture
def files(location: str) -> Callable[[], dict[str, bytes]]:
    """What lies at the address, by path below it."""

    def everything() -> dict[str, bytes]:
        filesystem, root = fsspec.core.url_to_fs(location, use_listings_cache=False)
        root = root.rstrip("/") + "/"
        return {path.split(root, 1)[1]: filesystem.cat_file(path) for path in filesystem.find(root)}

    return everything
