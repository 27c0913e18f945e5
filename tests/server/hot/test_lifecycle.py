"""How the direct server and Envoy's start, change versions and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from earshot.errors import Unavailable
from earshot.index import Index, Store
from earshot.server.direct import run as direct
from earshot.server.envoy.configuration import NOTICE_SECONDS
from earshot.server.transports import running_with
from earshot.v1 import datapoint_pb2, search_service_pb2

from .conftest import serving_face, settings_for

NOTICES = {"envoy": NOTICE_SECONDS, "direct": direct.NOTICE_SECONDS}
SEARCH = "/earshot.v1.SearchService/Search"
DIMENSIONS = 4

SUPERVISOR = """
    import sys, logging
    from earshot.server import load_settings, serve_with
    settings = load_settings(data_dir=sys.argv[1], transport=sys.argv[2], port=0, poll_seconds=0.05)
    serve_with(settings, ready=lambda addresses: print(addresses.grpc, flush=True))
    print("drained", flush=True)
"""


def publish(data_dir: Path, marker: str) -> str:
    store = Store(data_dir)
    if "swapped" not in store.indexes():
        store.create("swapped")
    vectors = np.random.default_rng(0).standard_normal((40, DIMENSIONS), dtype=np.float32)
    return store.publish("swapped", Index.build(vectors, [f"{marker}-{row}" for row in range(40)]))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    publish(tmp_path / "data", "old")
    return tmp_path / "data"


@pytest.fixture(params=["envoy", "direct"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def supervised(data_dir: Path, transport: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with (data_dir.parent / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SUPERVISOR), data_dir, transport],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Load:
    """Clients in threads that search until told to stop, and what they were answered."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._address = address
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        vector = datapoint_pb2.Vector(float32=np.ones(DIMENSIONS, "<f4").tobytes())
        data = search_service_pb2.SearchRequest(index="swapped", vector=vector).SerializeToString()
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel: Any
        with grpc.insecure_channel(self._address, options=options) as channel:
            while not self._stopping.is_set():
                try:
                    answer = channel.unary_unary(SEARCH)(data, timeout=10)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code().name}: {error.details()}")
                    return
                found = search_service_pb2.SearchResponse.FromString(answer)
                self.answers.append(found.neighbors[0].datapoint.datapoint_id.split("-")[0])

    def wait_for(self, marker: str) -> None:
        give_up = time.monotonic() + 20
        while not self.answers or self.answers[-1] != marker:
            assert time.monotonic() < give_up
            assert not self.failures
            time.sleep(0.01)


def test_a_new_version_is_swapped_in_under_load_without_a_failure(data_dir: Path, transport: str) -> None:
    log_file = data_dir.parent / "log"
    with serving_face(transport, settings_for(data_dir), log_file) as face, Load(face.addresses.grpc) as load:
        load.wait_for("old")
        publish(data_dir, "new")
        load.wait_for("new")
    assert load.failures == []
    assert "Traceback" not in log_file.read_text()


def test_a_version_that_cannot_be_opened_leaves_the_old_one_serving(data_dir: Path, transport: str) -> None:
    with serving_face(transport, settings_for(data_dir), data_dir.parent / "log") as face:
        with Load(face.addresses.grpc) as load:
            load.wait_for("old")
            version = publish(data_dir, "new")
            broken = data_dir / "indexes" / "swapped" / "versions" / version
            # Cut before the server looks, or just after it looked: either way it serves one of the two. It
            # maps what it opens, so another file takes the place; one that shrinks takes its pages away.
            for file in broken.rglob("*.npy"):
                cut = file.with_name("cut")
                cut.write_bytes(b"cut")
                cut.replace(file)
            time.sleep(0.5)
            assert load.failures == []
        assert httpx.get(f"{face.addresses.http}/readyz").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_under_load_and_no_accepted_request_fails(
    supervised: tuple[subprocess.Popen[str], str], number: signal.Signals, data_dir: Path
) -> None:
    process, address = supervised
    with Load(address) as load:
        load.wait_for("old")
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "drained\n"
    # What comes after the port closed is refused; nothing that was accepted may be lost.
    assert all("connect" in failure.lower() for failure in load.failures), load.failures
    assert "Traceback" not in (data_dir.parent / "log").read_text()


def test_a_quiet_moment_does_not_end_the_drain_before_its_notice(
    supervised: tuple[subprocess.Popen[str], str], transport: str
) -> None:
    process, _ = supervised
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert time.monotonic() - began >= NOTICES[transport]


def test_a_connection_that_asks_nothing_is_told_to_leave_before_it_is_closed(
    supervised: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = supervised
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        connection.recv(9)  # it is accepted
        process.send_signal(signal.SIGTERM)
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    assert bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) in received, received  # the header of a GOAWAY
    assert process.wait(60) == 0


def test_health_watchers_hear_of_the_drain_and_are_let_go(
    supervised: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = supervised
    channel: Any
    with grpc.insecure_channel(address) as channel:
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
        assert next(watching) == b"\x08\x01"  # SERVING
        process.send_signal(signal.SIGTERM)
        assert list(watching) == [b"\x08\x02"]  # NOT_SERVING, and the end
        assert process.wait(60) == 0


def test_the_server_ends_when_its_supervisor_is_killed(
    supervised: tuple[subprocess.Popen[str], str],
) -> None:
    process, address = supervised
    host, port = address.split(":")
    process.kill()
    give_up = time.monotonic() + 20
    while time.monotonic() < give_up:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its supervisor")


@pytest.mark.parametrize("transport", ["envoy"], indirect=True)
def test_a_supervisor_notices_that_the_server_died(
    supervised: tuple[subprocess.Popen[str], str], data_dir: Path
) -> None:
    process, _ = supervised
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(60) != 0
    assert "ended with code -9" in (data_dir.parent / "log").read_text()


def test_a_port_in_use_is_named(data_dir: Path, transport: str) -> None:
    async def start(port: int) -> None:
        async with running_with(
            settings_for(data_dir, transport=transport).model_copy(update={"port": port})
        ):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=str(port)):
            asyncio.run(start(port))


def test_settings_reach_the_server(data_dir: Path, transport: str) -> None:
    settings = settings_for(data_dir, max_message_bytes=2048)
    with serving_face(transport, settings, data_dir.parent / "log") as face:
        reply = httpx.post(f"{face.addresses.http}/v1/indexes/swapped:search", content=b" " * 4096)
        assert "2048" in json.loads(reply.content)["error"]["message"]
