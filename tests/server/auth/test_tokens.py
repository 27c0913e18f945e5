"""The file of tokens: what lies in it, who may read it, and that changes do not get lost."""

from __future__ import annotations

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from earshot.errors import DataLoss, EarshotError, InvalidArgument, NotFound
from earshot.server.auth import Grant, Scope, TokenFile


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "data" / "tokens.json")


def test_only_the_digest_is_kept_and_only_the_owner_may_read_it(file: TokenFile) -> None:
    secret, token = file.create([Grant(Scope.READ)], note="the dashboard")
    assert re.fullmatch(r"earshot_[A-Za-z0-9_-]{43}", secret)
    content = file.path.read_text()
    assert secret not in content
    assert secret.removeprefix("earshot_") not in content
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.read() == [token]
    assert token.sha256.startswith(token.id)


def test_the_mode_holds_whatever_the_umask_and_after_every_change(file: TokenFile) -> None:
    before = os.umask(0)
    try:
        file.create([Grant(Scope.READ)])
        file.create([Grant(Scope.READ)])
        file.revoke(file.read()[0].id)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in file.path.parent.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("read", Grant(Scope.READ)),
        ("write:podcasts", Grant(Scope.WRITE, "podcasts")),
        ("ADMIN:*", Grant(Scope.ADMIN)),
    ],
)
def test_scopes_are_written_as_words(text: str, grant: Grant) -> None:
    assert Grant.parse(text) == grant
    assert Grant.parse(str(grant)) == grant


@pytest.mark.parametrize("text", ["", "own", "read:", ":podcasts", "read write"])
def test_what_is_no_scope_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(repr(text))):
        Grant.parse(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grants": []}, "at least one scope"),
        ({"expires": datetime(2020, 1, 1, tzinfo=UTC)}, "has passed"),
        ({"requests_per_second": 0.0}, "requests_per_second is 0.0"),
        ({"requests_per_second": float("nan")}, "requests_per_second is nan"),
        ({"requests_per_second": float("inf")}, "requests_per_second is inf"),
        ({"requests_per_second": 1.0, "burst": 0}, "burst is 0"),
        ({"burst": 5}, "needs a rate"),
    ],
)
def test_values_out_of_range_are_named_and_nothing_is_written(
    file: TokenFile, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        file.create(**{"grants": [Grant(Scope.READ)], **values})
    assert not file.path.exists()


def test_a_token_is_revoked_by_the_start_of_its_id_where_that_is_enough(file: TokenFile) -> None:
    first, second = (file.create([Grant(Scope.READ)]).token for _ in range(2))
    with pytest.raises(NotFound, match="no token starts with 'zz'"):
        file.revoke("zz")
    with pytest.raises(NotFound):
        file.revoke("")
    assert file.revoke(first.id) == first
    assert file.read() == [second]


def test_everything_said_of_a_token_is_read_again(file: TokenFile) -> None:
    expires = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    grants = [Grant(Scope.READ), Grant(Scope.WRITE, "a")]
    made = file.create(grants, note="ü", expires=expires, requests_per_second=2.5, burst=7).token
    assert file.read() == [made]
    assert (made.grants, made.expires, made.requests_per_second, made.burst) == (grants, expires, 2.5, 7)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"tokens": [], "format": 2}',
        b'{"tokens": [{"id": "00", "sha256": "11", "grants": [], "created": "2026-01-01T00:00:00Z"}]}',
        b'{"tokens": [], "colour": "red"}',
    ],
)
def test_a_file_that_is_something_else_is_named_and_never_read_as_no_tokens(
    file: TokenFile, content: bytes
) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(content)
    with pytest.raises(DataLoss, match=r"tokens\.json"):
        file.read()
    with pytest.raises(DataLoss, match=r"tokens\.json"):
        file.create([Grant(Scope.READ)])
    assert file.path.read_bytes() == content


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EarshotError, match="cannot be written"):
        TokenFile(tmp_path / "file" / "tokens.json").create([Grant(Scope.READ)])


def test_tokens_made_at_once_are_all_there(file: TokenFile) -> None:
    with ThreadPoolExecutor(8) as pool:  # each takes the lock by a descriptor of its own, as processes do
        made = list(pool.map(lambda _: TokenFile(file.path).create([Grant(Scope.READ)]).token, range(40)))
    assert sorted(token.id for token in file.read()) == sorted(token.id for token in made)
