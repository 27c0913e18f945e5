"""A renewed certificate is served without a restart, by both transports, and one that cannot be is not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from pathlib import Path

import pytest

from earshot.client import Client, Retry, Tls
from earshot.errors import Unavailable
from earshot.server import renewal
from tests.certificates import Files, write_certificates
from tests.server.hot.conftest import Face, serving_face, settings_for


def shown(face: Face) -> list[str]:
    """The certificates that new connections are shown, by face."""
    addresses = {face.addresses.grpc, face.addresses.http}
    return [_shown(address.partition("://")[2]) for address in sorted(addresses)]


def _shown(address: str) -> str:
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10).strip()


def served(files: Files) -> str:
    """The first certificate of a file."""
    end = "-----END CERTIFICATE-----"
    return files.server.read_text().partition(end)[0] + end


def until(log: pytest.LogCaptureFixture, what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while what not in log.text:
        assert time.monotonic() < deadline, log.text
        time.sleep(0.1)


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_a_renewed_certificate_is_served_without_a_restart(
    transport: str, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "earshot.server.renewal")
    (tmp_path / "new").mkdir()
    files, renewed = write_certificates(tmp_path), write_certificates(tmp_path / "new")
    settings = settings_for(data_dir, tls_certificate=files.server, tls_key=files.server_key)
    before, after = served(files), served(renewed)
    with (
        serving_face(transport, settings, tmp_path / "log") as face,
        Client(face.addresses.grpc, tls=Tls(ca=files.ca), retry=Retry(attempts=1), timeout=10) as old,
    ):
        assert set(shown(face)) == {before}
        count = len(old.indexes())
        files.server.write_bytes(renewed.server.read_bytes())  # and its key is still that of the old one
        until(caplog, "those from before are served on")
        assert set(shown(face)) == {before}
        files.server_key.write_bytes(renewed.server_key.read_bytes())
        until(caplog, "the certificates were renewed")
        deadline = time.monotonic() + 10
        while set(shown(face)) != {after}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(old.indexes()) == count  # its connection is from before
        with Client(face.addresses.http, tls=Tls(ca=renewed.ca), retry=Retry(attempts=1), timeout=10) as new:
            assert len(new.indexes()) == count
        with (
            Client(face.addresses.http, tls=Tls(ca=files.ca), retry=Retry(attempts=1), timeout=10) as stale,
            pytest.raises(Unavailable),
        ):
            stale.indexes()
        files.server.unlink()
        time.sleep(2.5)
        assert set(shown(face)) == {after}
    assert "Traceback" not in face.log()


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_so_is_who_signed_the_clients(
    transport: str, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "earshot.server.renewal")
    (tmp_path / "new").mkdir()
    files, others = write_certificates(tmp_path), write_certificates(tmp_path / "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(files.ca.read_bytes())
    settings = settings_for(
        data_dir, tls_certificate=files.server, tls_key=files.server_key, tls_client_ca=trusted
    )

    def may_come(face: Face, own: Files, wire: str) -> bool:
        tls = Tls(ca=files.ca, certificate=own.client, key=own.client_key)
        target = getattr(face.addresses, wire)
        with Client(target, tls=tls, retry=Retry(attempts=1), timeout=10) as client:
            try:
                return bool(client.indexes())
            except Unavailable:
                return False

    with serving_face(transport, settings, tmp_path / "log") as face:
        for wire in ("grpc", "http"):
            assert may_come(face, files, wire)
            assert not may_come(face, others, wire)
        trusted.write_bytes(files.ca.read_bytes() + others.ca.read_bytes())
        until(caplog, "the certificates were renewed")
        deadline = time.monotonic() + 10
        for wire in ("grpc", "http"):
            while not may_come(face, others, wire):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert may_come(face, files, wire)
    assert "Traceback" not in face.log()


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_an_authority_that_is_taken_out_is_believed_no_longer(
    transport: str, data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "earshot.server.renewal")
    (tmp_path / "new").mkdir()
    files, others = write_certificates(tmp_path), write_certificates(tmp_path / "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(files.ca.read_bytes() + others.ca.read_bytes())
    settings = settings_for(
        data_dir, tls_certificate=files.server, tls_key=files.server_key, tls_client_ca=trusted
    )
    with serving_face(transport, settings, tmp_path / "log") as face, contextlib.ExitStack() as stack:

        def client(wire: str, own: Files) -> Client:
            tls = Tls(ca=files.ca, certificate=own.client, key=own.client_key)
            target = getattr(face.addresses, wire)
            return stack.enter_context(Client(target, tls=tls, retry=Retry(attempts=2), timeout=10))

        connected = {(wire, own): client(wire, own) for wire in ("grpc", "http") for own in (files, others)}
        for each in connected.values():
            assert each.indexes()
        trusted.write_bytes(files.ca.read_bytes())
        until(caplog, "the certificates were renewed")
        for wire in ("grpc", "http"):
            assert client(wire, files).indexes()
            with pytest.raises(Unavailable):
                client(wire, others).indexes()
        if transport == "direct":  # whoever was connected had to come anew
            time.sleep(1)
            for (_, own), each in connected.items():
                if own is files:
                    assert each.indexes()
                    continue
                with pytest.raises(Unavailable):
                    each.indexes()
    assert "Traceback" not in face.log()


@pytest.mark.anyio
async def test_files_that_change_while_they_are_taken_up_do_not_end_the_watching(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.02)
    (tmp_path / "new").mkdir()
    files, renewed = write_certificates(tmp_path), write_certificates(tmp_path / "new")
    settings = settings_for(data_dir, tls_certificate=files.server, tls_key=files.server_key)
    taken = []

    def take() -> None:
        taken.append(files.server.read_bytes())
        if len(taken) == 1:
            raise FileNotFoundError(files.server)

    watching = asyncio.create_task(renewal.when_renewed(settings, take))
    for turn in (1, 2):
        await asyncio.sleep(0.2)
        for mine, newer in ((files.server, renewed.server), (files.server_key, renewed.server_key)):
            mine.write_bytes(newer.read_bytes())
        deadline = time.monotonic() + 10
        while len(taken) < turn:
            assert time.monotonic() < deadline
            assert not watching.done()
            await asyncio.sleep(0.02)
    watching.cancel()
