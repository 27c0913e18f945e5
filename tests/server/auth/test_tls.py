"""TLS and mutual TLS, on both faces, with every client; certificates that cannot be are named before."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from earshot.client import Client, Retry, Tls
from earshot.errors import EarshotError, InvalidArgument, Unavailable
from earshot.server.tls import check_tls
from tests.certificates import Files
from tests.client.conftest import Blocking
from tests.server.hot.conftest import Face, serving_face, settings_for

ONCE = Retry(attempts=1)


@pytest.fixture(scope="module", params=["portable", "envoy", "direct"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def serving(transport: str, data_dir: Path, files: Files, log_file: Path, **more: object) -> Any:
    settings = settings_for(data_dir, tls_certificate=files.server, tls_key=files.server_key, **more)
    return serving_face(transport, settings, log_file)


@pytest.fixture(scope="module")
def face(
    transport: str, data_dir: Path, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    with serving(transport, data_dir, files, tmp_path_factory.mktemp(transport) / "log") as face:
        yield face
    assert "Traceback" not in face.log()


@pytest.fixture(scope="module")
def mutual(
    transport: str, data_dir: Path, files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    log_file = tmp_path_factory.mktemp(transport) / "mutual.log"
    with serving(transport, data_dir, files, log_file, tls_client_ca=files.ca) as face:
        yield face


def names(target: str, tls: Tls, *, is_async: bool = False) -> list[str]:
    """The indexes that a client of this target is told of."""
    if is_async:
        client = Blocking(target, tls=tls, retry=ONCE, timeout=10)
        try:
            return [index.name for index in client.indexes()]
        finally:
            client.stop()
    with Client(target, tls=tls, retry=ONCE, timeout=10) as blocking:
        return [index.name for index in blocking.indexes()]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_every_client_comes_in_over_tls(face: Face, files: Files, wire: str, is_async: bool) -> None:
    target = getattr(face.addresses, wire)
    assert target.startswith(("grpcs://", "https://"))
    assert names(target, Tls(ca=files.ca), is_async=is_async) == ["indexes/plain", "indexes/shows"]


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_server_whom_nobody_vouches_for_is_not_talked_to(face: Face, files: Files, wire: str) -> None:
    with pytest.raises(Unavailable, match=r"(?i)certificate.verify.failed"):
        names(getattr(face.addresses, wire), Tls(ca=files.other_ca))


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_nothing_is_spoken_in_plain_text(face: Face, wire: str) -> None:
    address = getattr(face.addresses, wire).partition("://")[2]
    with Client(address if wire == "grpc" else f"http://{address}", retry=ONCE, timeout=10) as client:
        with pytest.raises(EarshotError):
            client.indexes()
        assert not client.healthy()


def test_http_2_and_1_are_negotiated(face: Face, files: Files) -> None:
    host, port = face.addresses.http.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=files.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((host, int(port))) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == ("h2" if face.transport != "portable" else "http/1.1")
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")
    with httpx.Client(verify=ssl.create_default_context(cafile=files.ca)) as client:
        assert client.get(f"{face.addresses.http}/healthz").http_version == "HTTP/1.1"


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_mutual_tls_knows_its_clients(mutual: Face, files: Files, wire: str) -> None:
    target = getattr(mutual.addresses, wire)
    ours = Tls(ca=files.ca, certificate=files.client, key=files.client_key)
    assert names(target, ours) == ["indexes/plain", "indexes/shows"]
    with pytest.raises(Unavailable):
        names(target, Tls(ca=files.ca))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tls_key": "server_key"}, "tls_key is given without tls_certificate"),
        ({"tls_client_ca": "ca"}, "tls_client_ca is given without tls_certificate"),
        ({"tls_certificate": "server", "tls_key": "client_key"}, "the key belongs to another certificate"),
        ({"tls_certificate": "server_key", "tls_key": "server_key"}, "cannot be used"),
        ({"tls_certificate": "nowhere"}, "No such file"),
        (
            {"tls_certificate": "server", "tls_key": "server_key", "tls_client_ca": "nowhere"},
            "tls_client_ca .* cannot be used: No such file",
        ),
    ],
)
def test_what_cannot_be_served_is_named(
    tmp_path: Path, files: Files, given: dict[str, str], message: str
) -> None:
    paths = {name: getattr(files, value, tmp_path / "nowhere") for name, value in given.items()}
    with pytest.raises(InvalidArgument, match=message):
        check_tls(settings_for(tmp_path, **paths))


@pytest.mark.parametrize(
    ("tls", "message"),
    [
        (Tls(ca="/nowhere.pem"), "No such file"),
        (Tls(key="/some.key"), "a key without the certificate"),
        (Tls(certificate="/nowhere.pem", key="/nowhere.key"), "/nowhere.pem, /nowhere.key cannot be used"),
    ],
)
@pytest.mark.parametrize("target", ["grpcs://127.0.0.1:1", "https://127.0.0.1:1"])
def test_a_client_names_the_file_that_it_cannot_use(target: str, tls: Tls, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message), Client(target, tls=tls):
        pass


def test_tls_to_a_target_without_it_and_a_token_that_was_wrapped_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="write 'https://'"):
        Client("http://127.0.0.1:1", tls=Tls())
    with pytest.raises(InvalidArgument, match="token"):
        Client("127.0.0.1:1", token="earshot_abc\n")
