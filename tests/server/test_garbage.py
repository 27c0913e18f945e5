"""Garbage collections stop all threads: they have little to look at, and calls leave them nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LOADED = """
import gc, weakref
import earshot.server.run
from earshot.server.workers import spare_what_is_loaded

class Cycle:
    pass

before = len(gc.get_objects())
spare_what_is_loaded()
after = len(gc.get_objects())
made = Cycle()
made.itself = made
gone = weakref.ref(made)
del made
gc.collect()
print(before, after, gone() is None)
"""


def test_full_collections_pass_over_what_was_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    before, after, is_collected = done.stdout.split()
    assert int(after) < int(before) / 100
    assert is_collected == "True"


SERVES = """
import asyncio, contextlib, gc
from earshot.server.run import serve_until

@contextlib.asynccontextmanager
async def server():
    yield gc.get_freeze_count()

async def main():
    stop = asyncio.Event()
    stop.set()
    await serve_until(stop, server(), print)

asyncio.run(main())
"""


def test_a_process_that_serves_spares_what_is_loaded_before_it_opens_anything() -> None:
    done = subprocess.run([sys.executable, "-c", SERVES], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 10_000


CALLS = """
import asyncio, gc, sys
from collections import Counter
from pathlib import Path
import httpx
import numpy as np
from earshot.client import Client
from earshot.errors import EarshotError
from earshot.index import Index, Store
from earshot.server.direct import running_direct
from earshot.server.settings import load_settings

folder, vectors = Path(sys.argv[1]), np.eye(8, dtype=np.float32)
store = Store(folder)
store.create("v")
store.publish("v", Index.build(vectors, [str(row) for row in range(8)]))

def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except EarshotError:
        return
    raise AssertionError("it was not refused")

def calls(address):
    for url in (f"http://{address}", address):
        with Client(url) as client:
            client.search("v", vector=vectors[0], k=2)
            client.search("v", vector=vectors[0], k=2, explain=True)
            client.search_batch("v", vectors=vectors, k=2)
            client.upsert("v", [{"id": "new", "vector": vectors[1]}])
            client.remove("v", ["new"])
            client.read("v", ["1"])
            refused(client.read, "v", ["nobody"])
            refused(client.search, "v", vector=vectors[0][:3], k=2)
            refused(client.search, "w", vector=vectors[0], k=2)
    with httpx.Client(base_url=f"http://{address}") as client:
        client.get("/healthz").raise_for_status()
        assert client.post("/v1/indexes/v:search", content=b"{").status_code == 400

async def main():
    settings = load_settings(data_dir=folder, transport="direct", port=0)
    async with running_direct(settings) as addresses:
        await asyncio.to_thread(calls, addresses.grpc)  # what is made once
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        await asyncio.to_thread(calls, addresses.grpc)
        await asyncio.sleep(0.2)  # connections that are closed are lost
        gc.collect()
        left = [each for each in gc.garbage if type(each).__module__.startswith("earshot.server")]
        print(dict(Counter(type(each).__name__ for each in left)))

asyncio.run(main())
"""


def test_calls_leave_no_cycles_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS, str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"
