"""The arithmetic of retries, and the values that set it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.client import Retry
from earshot.client.retry import Budget, check_timeout
from earshot.errors import DeadlineExceeded, InvalidArgument, Unavailable


@given(st.floats(0, 10), st.floats(0, 10), st.integers(1, 100))
def test_a_pause_never_exceeds_the_doubled_start_nor_the_most(
    initial: Any, extra: Any, failures: Any
) -> None:
    retry = Retry(attempts=5, initial_seconds=initial, max_seconds=initial + extra)
    assert 0 <= retry.pause_seconds(failures) <= min(initial * 2 ** (failures - 1), initial + extra)


def test_jitter_is_full_so_pauses_spread_over_the_whole_range() -> None:
    pauses = [Retry(initial_seconds=1.0, max_seconds=1.0).pause_seconds(1) for _ in range(1000)]
    assert min(pauses) < 0.1
    assert max(pauses) > 0.9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attempts": 0}, "attempts is 0; it must be 1 to 100"),
        ({"initial_seconds": -1}, "initial_seconds is -1"),
        ({"initial_seconds": 3, "max_seconds": 2}, "the first not above the second"),
        ({"max_seconds": math.inf}, "max_seconds inf"),
        ({"initial_seconds": math.nan}, "initial_seconds is nan"),
    ],
)
def test_values_out_of_range_are_named(values: Any, message: Any) -> None:
    with pytest.raises(InvalidArgument, match=message):
        Retry(**values)


def test_a_timeout_is_positive_or_none() -> None:
    assert check_timeout(None) is None
    assert check_timeout(0.5) == 0.5
    for wrong in (0, -1, math.nan):
        with pytest.raises(InvalidArgument, match="more than 0 seconds"):
            check_timeout(wrong)


def test_one_attempt_means_no_retry_and_the_message_does_not_count() -> None:
    with pytest.raises(Unavailable) as caught:
        Budget(Retry(attempts=1), None, "there").pause_after(Unavailable("no"), may_repeat=True)
    assert caught.value.message == "there is unavailable: no"


def test_without_a_timeout_there_is_always_time() -> None:
    budget = Budget(Retry(), None, "there")
    assert budget.remaining() is None
    with pytest.raises(DeadlineExceeded, match="there gave up: the server's own limit"):
        budget.pause_after(DeadlineExceeded("the server's own limit"), may_repeat=True)
