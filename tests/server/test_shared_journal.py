"""Two servers share an index by a journal in PostgreSQL: each takes updates, both show them."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np

from earshot.client import Client
from earshot.index import Index, Store
from earshot.jobs import CompactRequest, compact
from tests.servers import serving


def until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_takes_updates_and_both_show_them(tmp_path: Path, database: str) -> None:
    store = Store(tmp_path / "data")
    store.create("mine")
    store.publish("mine", Index.build(np.eye(4, dtype=np.float32)))
    with (
        serving(tmp_path / "data", EARSHOT_JOURNAL=database) as one,
        serving(tmp_path / "data", EARSHOT_JOURNAL=database) as two,
        Client(one.http) as first,
        Client(two.http) as second,
    ):

        def there(client: Client, name: str) -> bool:
            found = client.search("mine", vector=[1.0, 1, 1, 1], k=100)
            return name in [hit.id for hit in found]

        assert first.upsert("mine", [{"id": "a", "vector": [2.0, 2, 2, 2]}]).sequence == 1
        assert there(first, "a")
        until(lambda: there(second, "a"))
        assert second.remove("mine", ["a"]).sequence == 2
        assert not there(second, "a")
        until(lambda: not there(first, "a"))
        second.upsert("mine", [{"id": "b", "vector": [3.0, 3, 3, 3]}])
        report = compact(
            CompactRequest(index="mine", journal=database, keep=1),
            store=store,
            progress=lambda stage, done, total: None,
        )
        assert (report.sequence, report.trimmed) == (3, 3)
        for client in (first, second):
            until(lambda client=client: client.get_index("mine").current_version.endswith("v000002"))
            assert there(client, "b")
        assert first.upsert("mine", [{"id": "c", "vector": [4.0, 4, 4, 4]}]).sequence == 4
        until(lambda: there(second, "c"))
        assert "earshot_index_updates_waiting" in _metrics(one.http)


def _metrics(address: str) -> str:

    return httpx.get(f"{address}/metrics").text
