"""One server a transport, in an event loop beside the tests, so that the same tests hear all of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from earshot.server.direct import loop_factory, running_direct
from earshot.server.envoy import running_envoy
from earshot.server.run import Addresses, running
from earshot.server.settings import Settings, load_settings


@dataclass(frozen=True)
class Face:
    """A running server of one transport."""

    transport: str
    addresses: Addresses
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@contextlib.contextmanager
def serving_face(transport: str, settings: Settings, log_file: Path) -> Iterator[Face]:
    """A server of one transport, until the block ends; it must then drain."""
    factory = loop_factory() if transport == "direct" else None
    with log_file.open("w") as log, asyncio.Runner(loop_factory=factory) as runner:
        servers: dict[str, Any] = {
            "portable": lambda: running(settings),
            "envoy": lambda: running_envoy(settings, log_to=log),
            "direct": lambda: running_direct(settings),
        }
        server = servers[transport]()
        addresses = runner.run(server.__aenter__())
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            yield Face(transport, addresses, log_file)
        finally:
            leaving = asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop)
            try:
                leaving.result(60)
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()


def settings_for(data_dir: Path, **more: object) -> Settings:
    return load_settings(data_dir=data_dir, port=0, grpc_port=0, poll_seconds=0.05, **more)


@pytest.fixture(scope="session", params=["portable", "envoy", "direct"])
def face(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    log_file = tmp_path_factory.mktemp(request.param) / "server.log"
    with serving_face(request.param, settings_for(data_dir), log_file) as face:
        yield face
    assert "Traceback" not in face.log()
    assert "InvalidStateError" not in face.log()
    assert "never retrieved" not in face.log()


@pytest.fixture
def channel(face: Face) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(face.addresses.grpc, options=options) as channel:
        yield channel
