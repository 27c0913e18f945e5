"""Several workers on the same ports, as an operator has them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from earshot.client import Client
from earshot.errors import NotFound
from earshot.index import Index, Store
from earshot.server.settings import load_settings
from earshot.server.worker import ENVIRONMENT
from tests.servers import Server, earshot, serving


@pytest.fixture
def folder(data_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "data"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(server: Server, index: str = "plain") -> str:
    """The version that answers a new connection; the kernel picks the worker by the connection."""
    reply = httpx.get(f"{server.http}/v1/indexes/{index}", timeout=20)
    assert reply.status_code == 200
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.grpc, options=options) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=20) == b"\x08\x01"
    version: str = reply.json()["currentVersion"]
    return version


def replaces_a_worker_that_dies(server: Server) -> None:
    before = children(server.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    give_up = time.monotonic() + 60
    while len(now := children(server.process.pid)) < 2 or before[0] in now:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert before[1] in now
    for _ in range(20):
        ask(server)
    assert "ended with code -9; another starts" in server.log()


def serves_a_new_version_everywhere(server: Server) -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 8), dtype=np.float32)
    version = Store(server.data_dir).publish("plain", Index.build(vectors, [str(row) for row in range(40)]))
    give_up, in_a_row = time.monotonic() + 60, 0
    while in_a_row < 15:  # of two workers, one in 2^15 times the same
        assert time.monotonic() < give_up
        in_a_row = in_a_row + 1 if ask(server).endswith(version) else 0


def takes_updates_that_every_worker_sees_at_once(server: Server) -> None:
    """Each client is a connection, and the kernel picks its worker."""
    with Client(server.grpc) as client:
        last = client.remove("plain", ["nobody"]).sequence  # another test may have written before the copy
    for number in range(30):
        name, vector = f"new-{number}", np.full(8, 100.0 + number)
        with Client(server.grpc) as writer, Client(server.http) as one, Client(server.grpc) as other:
            upserted = writer.upsert("plain", [{"id": name, "vector": vector}])
            assert upserted.sequence == last + 2 * number + 1
            assert one.search("plain", vector=vector, k=1)[0].id == name
            for hits in other.search_batch("plain", vectors=[vector, vector], k=1):
                assert hits[0].id == name
            assert one.remove("plain", [name]).count == 1
            assert other.search("plain", vector=vector, k=1)[0].id != name
            with pytest.raises(NotFound):
                writer.read("plain", [name])
    owners = re.findall(r"this process \((\d+)\) writes the journal of index plain", server.log())
    assert len(set(owners)) == 2


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_workers_are_replaced_take_up_new_versions_and_drain_together(transport: str, folder: Path) -> None:
    with serving(folder, "--transport", transport, "--workers", "2") as server:
        replaces_a_worker_that_dies(server)
        serves_a_new_version_everywhere(server)
        takes_updates_that_every_worker_sees_at_once(server)
        workers = children(server.process.pid)
    assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
    assert "Traceback" not in server.log()


@pytest.mark.slow
def test_workers_that_share_a_journal_in_postgres_all_take_updates(folder: Path, database: str) -> None:
    arguments = ("--transport", "direct", "--workers", "2")
    with serving(folder, *arguments, EARSHOT_JOURNAL=database) as server:
        for number in range(12):  # each client is a connection, so both workers write and both follow
            name, vector = f"new-{number}", np.full(8, 100.0 + number)
            with Client(server.grpc) as writer:
                written = writer.upsert("plain", [{"id": name, "vector": vector}])
            with Client(server.http) as reader:
                found = reader.search("plain", vector=vector, k=1, min_sequence=written.sequence)
            assert found[0].id == name
    owners = set(re.findall(r"this process \((\d+)\) writes the journal of index plain", server.log()))
    assert len(owners) == 2


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_a_port_that_somebody_uses_is_named(transport: str, folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        ports = ("--port", str(port), "--grpc-port", "0")
        done = earshot(folder, "serve", "--transport", transport, "--workers", "2", *ports)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_keeps_a_worker_from_starting_is_said_once_and_ends_the_server(folder: Path) -> None:
    (folder / "tokens.json").write_text("{")
    done = earshot(
        folder, "serve", "--transport", "portable", "--workers", "2", "--port", "0", "--grpc-port", "0"
    )
    assert done.returncode == 1
    assert done.stderr.count("is not a file of tokens") == 1
    assert "Traceback" not in done.stderr


def test_a_worker_whose_supervisor_ended_while_it_started_ends_too(folder: Path) -> None:
    settings = load_settings(data_dir=folder, transport="direct", workers=2, port=0)
    theirs, ours = os.pipe()
    told = {"settings": settings.model_dump(mode="json"), "pipe": theirs}
    with subprocess.Popen(
        [sys.executable, "-c", "from earshot.server.worker import main; main()"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, ENVIRONMENT: json.dumps(told)},
        pass_fds=(theirs,),
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        os.close(theirs)
        os.close(ours)
        assert process.stderr is not None
        log = process.stderr.read()
    assert process.returncode == 0, log
    assert b"serving index" in log
    assert b"Traceback" not in log
    assert b"BrokenPipe" not in log


def test_workers_outlive_no_supervisor(folder: Path) -> None:
    with serving(folder, "--transport", "portable", "--workers", "2") as server:
        workers = children(server.process.pid)
        server.process.kill()
        give_up = time.monotonic() + 60
        while any(Path(f"/proc/{pid}").exists() for pid in workers):
            assert time.monotonic() < give_up
            time.sleep(0.05)
