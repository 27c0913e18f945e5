"""What a running server writes into its log, on both transports."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from earshot.errors import NotFound, ResourceExhausted
from earshot.server.logs import configure_logging
from earshot.server.settings import load_settings
from earshot.server.telemetry import CallRecord, current
from earshot.server.telemetry.call_log import CallLog
from tests.servers import Server, serving

TEXT = "a secret question about bread"
VECTOR = [0.12345678] * 8


def ask(server: Server) -> None:
    """A search by text, one by vector, and two that fail, each with a request id of its own."""
    for request_id, index, body in (
        ("by-text", "shows", {"text": TEXT}),
        ("by-vector", "plain", {"vector": {"values": VECTOR}}),
        ("not-there", "none", {"text": TEXT}),
        ("too-short", "plain", {"vector": {"values": VECTOR[:3]}}),
    ):
        url = f"{server.http}/v1/indexes/{index}:search"
        httpx.post(url, json=body, headers={"x-request-id": request_id})


def calls(server: Server) -> dict[str, dict[str, Any]]:
    """The entries about calls, by request id; every line of the log must be JSON."""
    time.sleep(0.1)
    entries = [json.loads(line) for line in server.log().splitlines()]
    assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
    return {entry["request_id"]: entry for entry in entries if entry["logger"] == "earshot.request"}


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_at_debug_every_call_is_a_line_of_json_without_vectors_and_texts(
    data_dir: Path, transport: str
) -> None:
    options = ("--transport", transport, "--log-format", "json", "--log-level", "debug")
    with serving(data_dir, *options) as server:
        ask(server)
        seen = calls(server)
        assert TEXT not in server.log()
        assert str(VECTOR[0]) not in server.log()
    assert {name: entry["code"] for name, entry in seen.items()} == {
        "by-text": "OK",
        "by-vector": "OK",
        "not-there": "NOT_FOUND",
        "too-short": "INVALID_ARGUMENT",
    }
    found = seen["by-text"]
    assert (found["level"], found["protocol"], found["method"]) == ("debug", "http", "Search")
    assert (found["index"], found["version"]) == ("shows", "v000001")
    assert 0 < found["embed_seconds"] + found["engine_seconds"] < found["seconds"]
    assert "none" in seen["not-there"]["error"]
    assert "index" not in seen["not-there"]


@pytest.mark.parametrize("transport", ["portable", "direct"])
def test_slow_calls_are_told_and_texts_only_where_the_operator_wants_them(
    data_dir: Path, transport: str
) -> None:
    asked = {"EARSHOT_LOG_FORMAT": "json", "EARSHOT_LOG_SLOW_SECONDS": "0", "EARSHOT_LOG_QUERIES": "true"}
    with serving(data_dir, "--transport", transport, **asked) as server:
        ask(server)
        seen = calls(server)
    assert (seen["by-text"]["message"], seen["by-text"]["level"]) == ("Search slow", "warning")
    assert seen["by-text"]["text"] == TEXT
    assert "text" not in seen["by-vector"]


def ended(call_log: CallLog, error: Exception | None = None, **fields: Any) -> None:
    record = CallRecord("grpc", "Search", {b"x-request-id": b"an-id"})
    for name, value in fields.items():
        setattr(record, name, value)
    record.__exit__(type(error) if error else None, error, None)
    call_log.ended(record, 0.01)


def test_quick_calls_are_silent_failures_are_not(caplog: pytest.LogCaptureFixture) -> None:
    call_log = CallLog(slow_seconds=1, with_text=False)
    with caplog.at_level(logging.INFO, "earshot.request"):
        ended(call_log)
        assert caplog.records == []
        ended(call_log, NotFound("no such index"))
        ended(call_log, ResourceExhausted("too many"))
        ended(call_log, RuntimeError("a bug"))
    told = [(entry.levelname, entry.getMessage()) for entry in caplog.records]
    assert told == [
        ("INFO", "Search NOT_FOUND"),
        ("WARNING", "Search RESOURCE_EXHAUSTED"),
        ("WARNING", "Search INTERNAL"),
    ]


def test_a_flood_of_refusals_is_counted_not_written(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    call_log = CallLog(slow_seconds=1, with_text=False)
    with caplog.at_level(logging.INFO, "earshot.request"):
        for _ in range(5_000):
            ended(call_log, ResourceExhausted("too many"))
        assert len(caplog.records) == 20
        now = 101.0
        ended(call_log, ResourceExhausted("too many"))
    told: Any = caplog.records[-1]
    assert told.call["left_out"] == 4_980


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_entry_is_one_line_and_names_the_call_it_is_about(
    log_format: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging.getLogger("earshot"), "level", logging.NOTSET)
    configure_logging(load_settings(log_format=log_format))
    with current(CallRecord("http", "Search", {b"x-request-id": b"what-they-sent"})):
        logging.getLogger("earshot.test").warning("two\nlines")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "what-they-sent" in line
    if log_format == "json":
        assert json.loads(line)["message"] == "two\nlines"
