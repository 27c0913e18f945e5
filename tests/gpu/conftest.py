"""Everything here runs on a real GPU, or is skipped with the reason why there is none."""

from __future__ import annotations

import pytest

from earshot.index.engines.gpus import Gpus, find_gpus
from tests.index.conftest import base, oracle, unseen

__all__ = ["base", "oracle", "unseen"]


@pytest.fixture(scope="session", autouse=True)
def gpus() -> Gpus:
    found, reason = find_gpus()
    if found is None:
        pytest.skip(f"no GPU: {reason}; run `make test-gpu` on a machine with one")
    return found
