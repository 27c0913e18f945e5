"""The rate: never more than the burst and what has come since."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.server.auth.bucket import Bucket


@given(
    st.floats(0.1, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=50),
)
def test_in_no_window_pass_more_than_burst_and_rate_allow(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    bucket = Bucket(per_second, burst)
    now, passed = 100.0, []
    for pause in pauses:
        now += pause / per_second
        if bucket.take(now) == 0:
            passed.append(now)
    for first, start in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - start) * per_second + 1e-3


@given(st.floats(0.1, 1000), st.integers(1, 50), st.integers(0, 500))
def test_who_waits_as_long_as_told_is_let_in(per_second: float, burst: int, owed: int) -> None:
    bucket = Bucket(per_second, burst)
    for _ in range(burst):
        assert bucket.take(1000.0) == 0
    bucket.owe(owed)
    wait = bucket.take(1000.0)
    assert wait == pytest.approx((1 + owed) / per_second)
    assert bucket.take(1000.0 + 0.99 * wait) > 0
    assert bucket.take(1000.0 + wait + 1e-6) == 0


def test_after_a_pause_there_is_the_burst_again_and_no_more() -> None:
    bucket = Bucket(10, 5)
    for start in (50.0, 1050.0):
        assert [bucket.take(start) == 0 for _ in range(7)] == [True] * 5 + [False] * 2
