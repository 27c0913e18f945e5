"""Fixtures shared by all tests; each folder keeps its own beside its tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from earshot.embedding import load_embedder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; tests that need it skip, visibly, where it is absent."""
    folder = Path(os.environ.get("EARSHOT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set EARSHOT_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the model lies ready."""
    folder = tmp_path_factory.mktemp("model-cache")
    load_embedder(cache_dir=folder)
    return folder
