"""What may be offered to whom."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from earshot.errors import InvalidArgument
from earshot.server.auth import Grant, TokenFile, check_exposure, is_loopback
from earshot.server.settings import Settings, load_settings


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("no-such-host.invalid", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def public(tmp_path: Path, **more: object) -> Settings:
    return load_settings(data_dir=tmp_path, host="0.0.0.0", **more)


def test_a_public_address_for_everybody_is_refused_and_what_to_do_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_exposure(public(tmp_path))
    for way in ("earshot tokens create", "--tls-client-ca", "--insecure"):
        assert way in caught.value.message
    check_exposure(load_settings(data_dir=tmp_path))


def test_a_token_client_certificates_or_a_word_will_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check_exposure(public(tmp_path, insecure=True))
        assert "everybody" in caplog.text
        check_exposure(public(tmp_path, tls_certificate=tmp_path, tls_client_ca=tmp_path))
        caplog.clear()
        TokenFile(tmp_path / "tokens.json").create([Grant.parse("read")])
        check_exposure(public(tmp_path, tls_certificate=tmp_path))
        assert caplog.text == ""
        check_exposure(public(tmp_path))
        assert "unencrypted" in caplog.text


def test_a_file_without_a_token_left_does_not_count(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.revoke(file.create([Grant.parse("read")]).token.id)
    with pytest.raises(InvalidArgument):
        check_exposure(public(tmp_path))


def test_an_address_of_data_has_no_tokens_unless_told_where(tmp_path: Path) -> None:
    assert load_settings(data_dir="s3://bucket/x").tokens_path is None
    named = tmp_path / "mine.json"
    assert load_settings(data_dir="s3://bucket/x", tokens_file=named).tokens_path == named
    assert load_settings(data_dir=tmp_path).tokens_path == tmp_path / "tokens.json"
