"""Which paths reach the application: those that it can be given as text."""

from __future__ import annotations

import re
import subprocess
from urllib.parse import quote_from_bytes

import httpx
from hypothesis import example, given
from hypothesis import strategies as st

from earshot.server.envoy.paths import WELL_FORMED

from .conftest import Face

WELL = re.compile(WELL_FORMED, re.ASCII)


@example(b"\xed\xa0\x80")  # a surrogate
@example(b"\xc0\xaf")  # a slash, too long
@example(b"\xf4\x90\x80\x80")  # beyond the last character
@example(b"\xf4\x8f\xbf\xbf")
@given(st.binary(max_size=6) | st.text(max_size=4).map(lambda text: text.encode(errors="replace")))
def test_a_path_is_well_formed_where_python_can_decode_it(raw: bytes) -> None:
    try:
        raw.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    for encoded in (quote_from_bytes(raw, safe=""), quote_from_bytes(raw, safe="").lower()):
        assert (WELL.fullmatch(f"/v1/{encoded}") is not None) == is_text
        assert WELL.fullmatch(f"/v1/x?{encoded}") is not None


def test_a_path_that_is_no_text_is_refused_and_one_that_is_gets_through(face: Face) -> None:
    for path in ("%ff", "%00%ff%2e%2e", "%c3", "a%ed%a0%80"):
        command = ["curl", "-sS", "--max-time", "20", f"{face.addresses.http}/v1/indexes/{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert '"code": 4' in done.stdout or '"code":4' in done.stdout, done.stdout
    reply = httpx.get(f"{face.addresses.http}/v1/indexes/%C3%BC%F0%9F%8E%A7?x=%ff")
    assert reply.status_code == 404
    assert "ü🎧" in reply.json()["error"]["message"]
