"""The metrics of several workers behind one port are one page, whichever worker is asked."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from earshot.index import Index, Store
from tests.servers import serving

from .test_metrics import Scrape


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_whichever_worker_is_asked_it_counts_for_all(tmp_path: Path, transport: str) -> None:
    store = Store(tmp_path / "data")
    store.create("numbers")
    store.publish("numbers", Index.build(np.eye(8, dtype=np.float32)))
    with serving(tmp_path / "data", "--transport", transport, "--workers", "2") as server:
        for _ in range(20):  # a connection each, which the kernel deals out
            httpx.get(f"{server.http}/v1/indexes/numbers")
        pages = [Scrape(server.http) for _ in range(6)]
        assert {page.get("earshot_requests_total", method="GetIndex") for page in pages} == {20}
        assert {page.get("earshot_request_duration_seconds_count", method="GetIndex") for page in pages} == {
            20
        }
        assert {page.get("earshot_index_datapoints", index="numbers") for page in pages} == {8}
        assert {page.get("earshot_version_loads_total", result="ok") for page in pages} == {2}
        assert "# TYPE earshot_requests_total counter" in httpx.get(f"{server.http}/metrics").text
