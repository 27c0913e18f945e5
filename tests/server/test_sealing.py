"""Many updates: a process beside the server sets them in order, makes no noise, and ends with the server."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from earshot.client import Client
from earshot.index import Index, Store
from tests.servers import serving

DICE = np.random.default_rng(2)


def sealers(data_dir: Path) -> set[int]:
    """The processes that set rows in order for servers over a folder, which each has in its environment."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_sealer = b"index.live.sealing" in (folder / "cmdline").read_bytes()
            if is_sealer and str(data_dir).encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:  # it ended, or is another's
            continue
    return found


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("transport", ["direct", "portable"])
def test_it_is_there_when_wanted_and_ends_with_the_server(tmp_path: Path, transport: str) -> None:
    data_dir = tmp_path / "data"
    store = Store(data_dir)
    store.create("mine")
    vectors = DICE.standard_normal((300, 8), np.float32)
    store.publish("mine", Index.build(vectors, distance_measure="SQUARED_L2_DISTANCE"))
    fresh = DICE.standard_normal((5000, 8), np.float32)
    with serving(data_dir, "--transport", transport) as server:
        with Client(server.grpc) as client:
            client.search("mine", vector=fresh[0])
            assert not sealers(data_dir)
            client.upsert("mine", [{"id": f"new-{row}", "vector": fresh[row]} for row in range(5000)])
            wait_until(lambda: sealers(data_dir))
            for row in (0, 2500, 4999):
                assert client.search("mine", vector=fresh[row], k=1, target_recall=1)[0].id == f"new-{row}"
        server.process.send_signal(signal.SIGKILL if transport == "portable" else signal.SIGTERM)
        server.process.wait(60)
    wait_until(lambda: not sealers(data_dir))
    assert "done here" not in server.log()
    assert "Traceback" not in server.log()
