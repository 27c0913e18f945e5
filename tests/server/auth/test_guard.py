"""Who is let in, to what, how often, and how soon a change of the file is known."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.errors import (
    DataLoss,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unimplemented,
)
from earshot.server.auth import ANYBODY, RULES, Grant, Guard, Rule, Scope, TokenFile
from earshot.server.auth import guard as guard_module
from earshot.v1 import datapoint_pb2, search_service_pb2

SEARCH = "/earshot.v1.SearchService/Search"
BATCH = "/earshot.v1.SearchService/BatchSearch"
STREAM = "/earshot.v1.SearchService/StreamSearch"
LIST = "/earshot.v1.IndexService/ListIndexes"
UPSERT = "/earshot.v1.DatapointService/UpsertDatapoints"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "LOOK_SECONDS", 0.0)


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def make(file: TokenFile, *scopes: str, **more: object) -> dict[bytes, bytes]:
    """A new token, as headers."""
    secret = file.create([Grant.parse(scope) for scope in scopes], **more).secret  # type: ignore[arg-type]
    return {b"authorization": b"Bearer " + secret.encode()}


def search(index: str) -> bytes:
    return search_service_pb2.SearchRequest(index=index, text="x").SerializeToString()


def test_without_a_file_everybody_may_do_everything(file: TokenFile) -> None:
    assert Guard(None).admit(UPSERT, {}) is ANYBODY
    guard = Guard(file.path)
    assert guard.admit_http("GET", "/v1/indexes", {}) is ANYBODY
    assert ANYBODY.may_read("x")
    ANYBODY.check(b"not even a message")


def test_a_token_made_while_the_server_runs_is_asked_for_and_one_revoked_is_refused(file: TokenFile) -> None:
    guard = Guard(file.path)
    guard.admit(SEARCH, {})
    headers = make(file, "read")
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        guard.admit(SEARCH, {})
    guard.admit(SEARCH, headers)
    file.revoke(file.read()[0].id)
    with pytest.raises(Unauthenticated, match="not known here"):
        guard.admit(SEARCH, headers)


def test_a_file_that_goes_or_breaks_never_opens_the_door(file: TokenFile) -> None:
    guard = Guard(file.path)
    headers = make(file, "read")
    guard.admit(SEARCH, headers)
    for damage in (lambda: file.path.write_bytes(b"{"), file.path.unlink):
        damage()
        guard.admit(SEARCH, headers)
        with pytest.raises(Unauthenticated):
            guard.admit(SEARCH, {})


def test_a_file_that_is_broken_when_it_appears_lets_nobody_in(file: TokenFile) -> None:
    guard = Guard(file.path)
    guard.admit(SEARCH, {})
    file.path.write_bytes(b"{")
    with pytest.raises(Unauthenticated):
        guard.admit(SEARCH, {})
    with pytest.raises(DataLoss):
        Guard(file.path)


def test_an_empty_file_of_tokens_lets_nobody_in(file: TokenFile) -> None:
    make(file, "read")
    file.revoke(file.read()[0].id)
    with pytest.raises(Unauthenticated):
        Guard(file.path).admit(SEARCH, {})


@pytest.mark.parametrize(
    ("name", "form", "comes_in"),
    [
        ("authorization", "Bearer {}", True),
        ("authorization", "bearer  {} ", True),
        ("bearer", "{}", True),
        ("authorization", "Basic {}", False),
        ("authorization", "{}", False),
        ("authorization", "Bearer", False),
        ("authorization", "Bearer {}x", False),
        ("authorization", "Bearer ü", False),
        ("bearer", "", False),
        ("x-api-key", "{}", False),
    ],
)
def test_forms_in_which_a_token_is_sent(file: TokenFile, name: str, form: str, comes_in: bool) -> None:
    secret = file.create([Grant.parse("read")]).secret
    headers = {name.encode(): form.format(secret).encode()}
    guard = Guard(file.path)
    if comes_in:
        guard.admit(SEARCH, headers)
    else:
        with pytest.raises(Unauthenticated):
            guard.admit(SEARCH, headers)


def test_no_other_bytes_are_a_token(file: TokenFile) -> None:
    token = file.create([Grant.parse("admin")]).token
    guard = Guard(file.path)

    known = [token.id.encode(), token.sha256.encode(), bytes.fromhex(token.sha256)]

    @given(st.sampled_from(known) | st.binary(max_size=100))
    def stays_out(secret: bytes) -> None:
        with pytest.raises(Unauthenticated):
            guard.admit(SEARCH, {b"authorization": b"Bearer " + secret})

    stays_out()


def test_an_expired_token_says_so_and_when(file: TokenFile) -> None:
    headers = make(file, "read", expires=datetime.now(UTC) + timedelta(seconds=0.2))
    guard = Guard(file.path)
    guard.admit(SEARCH, headers)
    time.sleep(0.25)
    with pytest.raises(Unauthenticated, match=r"the token \w+ expired at 20"):
        guard.admit(SEARCH, headers)


@pytest.mark.parametrize(
    ("scopes", "needed", "allowed"),
    [
        (["read"], "read", True),
        (["read"], "write", False),
        (["write"], "read", True),
        (["write"], "admin", False),
        (["admin"], "write", True),
        (["read", "write:a"], "write", True),
        (["read", "write:b"], "write", False),
        (["admin:b"], "read", False),
    ],
)
def test_a_scope_includes_those_before_it_and_holds_where_it_was_granted(
    file: TokenFile, scopes: list[str], needed: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, SEARCH, Rule(Scope[needed.upper()], "index"))
    guard = Guard(file.path)
    headers = make(file, *scopes)

    def call() -> None:
        guard.admit(SEARCH, headers).check(search("indexes/a"))

    if allowed:
        call()
    else:
        with pytest.raises(PermissionDenied, match=f"lacks the scope {needed} on (index 'a'|any index)"):
            call()


def test_a_method_beyond_every_scope_of_the_caller_is_refused_before_the_message(file: TokenFile) -> None:
    headers = make(file, "read:a", note="ci")
    with pytest.raises(PermissionDenied, match=r"the token \w+ \(ci\) lacks the scope read on every index"):
        Guard(file.path).admit_http("GET", "/metrics", headers)


def test_the_index_is_checked_as_protobuf_reads_it(file: TokenFile) -> None:
    headers = make(file, "read:a")
    admission = Guard(file.path).admit(SEARCH, headers)
    admission.check(search("a"))
    admission.check(search("indexes/a"))
    for foreign in (search("b"), search("a") + search("b"), search(""), b""):
        with pytest.raises(PermissionDenied):
            admission.check(foreign)
    with pytest.raises(InvalidArgument):
        admission.check(b"\x0a\xff")


def test_over_http_the_path_decides_before_there_is_a_body(file: TokenFile) -> None:
    headers = make(file, "read:a")
    guard = Guard(file.path)
    guard.admit_http("POST", "/v1/indexes/a:search", headers)
    for path in ("/v1/indexes/b:search", "/v1/indexes/a:b:search"):
        with pytest.raises(PermissionDenied):
            guard.admit_http("POST", path, headers)


def test_what_has_no_rule_is_served_to_nobody(file: TokenFile) -> None:
    headers = make(file, "admin")
    guard = Guard(file.path)
    with pytest.raises(Unimplemented, match=r"/a\.B/C"):
        guard.admit("/a.B/C", headers)
    with pytest.raises(NotFound, match="/nowhere"):
        guard.admit_http("GET", "/nowhere", headers)
    with pytest.raises(Unauthenticated):
        guard.admit_http("GET", "/nowhere", {})


def test_health_is_open_and_tells_names_only_to_those_who_may_know_them(file: TokenFile) -> None:
    headers = make(file, "read:a")
    guard = Guard(file.path)
    guard.admit("/grpc.health.v1.Health/Check", {}).check(b"")
    nobody, wrong = (
        guard.admit_http("GET", "/readyz", given) for given in ({}, {b"authorization": b"Bearer x"})
    )
    known = guard.admit_http("GET", "/readyz", headers)
    assert [who.may_read("a") for who in (nobody, wrong, known)] == [False, False, True]
    assert not known.may_read("b")


def test_a_rate_counts_requests_and_the_queries_of_a_batch(file: TokenFile) -> None:
    headers = make(file, "read", requests_per_second=1.0, burst=3)
    guard = Guard(file.path)
    batch = search_service_pb2.BatchSearchRequest(
        index="a", vectors=[datapoint_pb2.Vector(values=[1.0])] * 12
    ).SerializeToString()
    guard.admit(BATCH, headers).check(batch)  # one of three is left in, and owes eleven more
    with pytest.raises(ResourceExhausted, match="may ask 1 times a second") as caught:
        guard.admit(SEARCH, headers)
    assert caught.value.retry_after == pytest.approx(10, abs=0.5)


def test_workers_divide_a_rate_among_them(file: TokenFile) -> None:
    headers = make(file, "read", requests_per_second=0.1, burst=10)
    guard = Guard(file.path, shares=4)
    for _ in range(3):  # a fourth of ten, rounded up
        guard.admit(SEARCH, headers)
    with pytest.raises(ResourceExhausted) as caught:
        guard.admit(SEARCH, headers)
    assert caught.value.retry_after == pytest.approx(40, abs=0.5)


def test_a_rate_outlives_a_change_of_another_token_and_not_of_its_own(file: TokenFile) -> None:
    headers = make(file, "read", requests_per_second=0.01, burst=1)
    guard = Guard(file.path)
    guard.admit(SEARCH, headers)
    make(file, "read")
    with pytest.raises(ResourceExhausted):
        guard.admit(SEARCH, headers)
    content = json.loads(file.path.read_bytes())
    content["tokens"][0]["burst"] = 2
    file.path.write_text(json.dumps(content))
    guard.admit(SEARCH, headers)


def test_of_a_stream_each_message_counts_and_is_checked(file: TokenFile) -> None:
    headers = make(file, "read:a", requests_per_second=0.01, burst=2)
    guard = Guard(file.path)
    admission = guard.admit(STREAM, headers)
    admission.check(search("a"))
    with pytest.raises(PermissionDenied):
        admission.check(search("b"))
    admission.check(search("a"))
    with pytest.raises(ResourceExhausted):
        admission.check(search("a"))


def test_a_stream_does_not_outlive_its_token(file: TokenFile) -> None:
    headers = make(file, "read")
    guard = Guard(file.path)
    admission = guard.admit(STREAM, headers)
    admission.check(search("a"))
    file.revoke(file.read()[0].id)
    with pytest.raises(Unauthenticated, match="revoked"):
        admission.check(search("a"))
