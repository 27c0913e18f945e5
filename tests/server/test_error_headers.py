"""When to try again, as each wire says it."""

from __future__ import annotations

import json

import pytest

from earshot.errors import ResourceExhausted
from earshot.server.error_headers import error_headers
from earshot.server.hot.framing import status_trailers
from earshot.server.json_codec import error_body


@pytest.mark.parametrize(
    ("seconds", "pushback", "header", "delay"),
    [(0.0401, b"41", "1", "0.040s"), (2, b"2000", "2", "2.000s")],
)
def test_seconds_are_rounded_up_where_only_whole_numbers_are_allowed(
    seconds: float, pushback: bytes, header: str, delay: str
) -> None:
    error = ResourceExhausted("slower", retry_after=seconds)
    assert dict(status_trailers(error))[b"grpc-retry-pushback-ms"] == pushback
    assert error_headers(error) == {"retry-after": header}
    assert json.loads(error_body(error))["error"]["details"][0]["retryDelay"] == delay


def test_nothing_is_said_where_nothing_is_known() -> None:
    error = ResourceExhausted("too large")
    assert [name for name, _ in status_trailers(error)] == [b"grpc-status", b"grpc-message"]
    assert error_headers(error) == {}
    assert "details" not in json.loads(error_body(error))["error"]
