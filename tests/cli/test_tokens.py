"""`earshot tokens` as an operator uses it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from earshot.cli.main import app
from earshot.errors import EarshotError, FailedPrecondition, InvalidArgument
from tests.servers import earshot


def tokens(data_dir: Path | str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["tokens", *arguments, "--data-dir", str(data_dir)])


def test_a_token_alone_goes_to_standard_output_so_that_a_script_can_keep_it(tmp_path: Path) -> None:
    done = earshot(tmp_path, "tokens", "create", "--scope", "read:podcasts")
    assert done.returncode == 0
    assert re.fullmatch(r"earshot_[\w-]{43}\n", done.stdout)
    assert done.stdout.strip() not in done.stderr
    assert "earshot tokens revoke" in done.stderr


def test_what_was_created_is_listed_and_gone_when_revoked(tmp_path: Path) -> None:
    made = tokens(
        tmp_path, "create", "--scope", "read", "--scope", "write:a", "--note", "ci", "--expires", "90d",
        "--rate", "5", "--burst", "9", "--json",
    )  # fmt: skip
    created = json.loads(made.stdout)
    listed = json.loads(tokens(tmp_path, "list", "--json").stdout)
    assert listed == [{key: value for key, value in created.items() if key != "token"}]
    assert (listed[0]["scopes"], listed[0]["rate"], listed[0]["burst"]) == (["read:*", "write:a"], 5.0, 9)
    lifetime = datetime.fromisoformat(listed[0]["expires"]) - datetime.fromisoformat(listed[0]["created"])
    assert abs(lifetime.total_seconds() - 90 * 86400) < 60
    table = tokens(tmp_path, "list").stdout
    assert created["id"] in table
    assert created["token"] not in table
    assert tokens(tmp_path, "revoke", created["id"][:6]).stdout == f"revoked {created['id']} (ci)\n"
    assert "no tokens" in tokens(tmp_path, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["create", "--scope", "own"], InvalidArgument, "scope 'own' is none"),
        (["create", "--expires", "soon"], InvalidArgument, "expires 'soon'"),
        (["create", "--expires", "2020-01-31"], InvalidArgument, "has passed"),
        (["create", "--rate", "-1"], InvalidArgument, "requests_per_second is -1.0"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, arguments: list[str], kind: type[EarshotError], message: str
) -> None:
    done = tokens(tmp_path, *arguments)
    assert type(done.exception) is kind
    assert message in str(done.exception)


def test_data_at_an_address_needs_a_file_that_is_named(tmp_path: Path) -> None:
    assert type(tokens("memory://x", "list").exception) is FailedPrecondition
    assert tokens("memory://x", "create", "--tokens-file", str(tmp_path / "t.json")).exit_code == 0
    assert (tmp_path / "t.json").exists()


def test_a_public_address_without_tokens_is_refused_by_the_command(tmp_path: Path) -> None:
    for transport in ("portable", "direct"):
        done = earshot(tmp_path, "serve", "--host", "0.0.0.0", "--transport", transport)
        assert done.returncode == 2
        assert "earshot tokens create" in done.stderr
        assert "Traceback" not in done.stderr
