"""Which transport serves where nobody says."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from earshot.errors import FailedPrecondition
from earshot.server import running_with
from earshot.server.envoy import run as envoy
from earshot.server.settings import load_settings
from earshot.server.transports import settled


def test_the_direct_transport_serves_where_nobody_says() -> None:
    assert settled(load_settings()).transport == "direct"


@pytest.mark.parametrize("transport", ["direct", "envoy", "portable"])
def test_what_is_said_holds(transport: str) -> None:
    assert settled(load_settings(transport=transport, grpc_port=0)).transport == transport


def test_who_gives_grpc_a_port_of_its_own_gets_two_ports(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert settled(load_settings(grpc_port=0)).transport == "portable"
    assert "the transport is portable: gRPC is given a port of its own" in caplog.text


def test_who_asks_for_http3_gets_envoy_where_there_is_tls(caplog: pytest.LogCaptureFixture) -> None:
    certificate = Path("cert.pem")
    with caplog.at_level(logging.INFO):
        assert settled(load_settings(http3=True, tls_certificate=certificate)).transport == "envoy"
    assert "the transport is envoy: HTTP/3 was asked for" in caplog.text
    for asked in (
        {"http3": True},
        {"tls_certificate": certificate},
        {"http3": False, "tls_certificate": certificate},
    ):
        assert settled(load_settings(**asked)).transport == "direct"


def test_where_envoy_cannot_embed_python_another_transport_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(envoy, "get_envoy_environ", dict)

    async def start() -> None:
        async with running_with(load_settings(data_dir=tmp_path / "data", transport="envoy", port=0)):
            pass

    with pytest.raises(FailedPrecondition, match="libpython, which is not here: use the direct transport"):
        asyncio.run(start())


@pytest.mark.parametrize("ports", [{"port": 0}, {"port": 0, "grpc_port": 0}])
def test_metrics_name_the_transport_that_serves(ports: dict[str, int], tmp_path: Path) -> None:
    async def page() -> str:
        async with running_with(load_settings(data_dir=tmp_path / "data", **ports)) as addresses:
            assert (addresses.grpc in addresses.http) == (len(ports) == 1)
            async with httpx.AsyncClient(timeout=60) as client:
                return (await client.get(f"{addresses.http}/metrics")).text

    transport = "direct" if len(ports) == 1 else "portable"
    assert f'transport="{transport}"' in asyncio.run(page())
