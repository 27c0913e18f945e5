"""Which transport serves where nobody says."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from earshot.errors import FailedPrecondition
from earshot.server import hot, running_with
from earshot.server.settings import load_settings
from earshot.server.transports import settled


def test_hot_serves_where_it_runs_and_nobody_says() -> None:
    assert settled(load_settings()).transport == "hot"


@pytest.mark.parametrize("transport", ["hot", "portable"])
def test_what_is_said_holds(transport: str) -> None:
    assert settled(load_settings(transport=transport, grpc_port=0)).transport == transport


def test_who_gives_grpc_a_port_of_its_own_gets_two_ports(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert settled(load_settings(grpc_port=0)).transport == "portable"
    assert "the transport is portable: gRPC is given a port of its own" in caplog.text


def test_where_hot_cannot_run_portable_serves_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot() -> None:
        raise FailedPrecondition("libpython is not here")

    monkeypatch.setattr(hot, "embedding_environment", cannot)
    with caplog.at_level(logging.INFO):
        assert settled(load_settings()).transport == "portable"
    assert "the transport is portable: libpython is not here" in caplog.text


@pytest.mark.parametrize("ports", [{"port": 0}, {"port": 0, "grpc_port": 0}])
def test_metrics_name_the_transport_that_serves(ports: dict[str, int], tmp_path: Path) -> None:
    async def page() -> str:
        async with running_with(load_settings(data_dir=tmp_path / "data", **ports)) as addresses:
            assert (addresses.grpc in addresses.http) == (len(ports) == 1)
            async with httpx.AsyncClient(timeout=60) as client:
                return (await client.get(f"{addresses.http}/metrics")).text

    transport = "hot" if len(ports) == 1 else "portable"
    assert f'transport="{transport}"' in asyncio.run(page())
