"""The estimate on which a queue says no."""

from __future__ import annotations

import time

import pytest

from earshot.server.pace import Pace


def test_nothing_is_too_slow_before_anything_was_seen() -> None:
    pace = Pace(2)
    assert pace.seconds(1000) == 0
    assert not pace.is_too_slow(1000, time.monotonic() + 1e-3)


def test_the_wait_is_what_is_ahead_at_the_pace_of_late_shared_by_the_slots() -> None:
    pace = Pace(2)
    pace.note(0.5, 50)
    assert pace.seconds(100) == pytest.approx(0.5)
    for _ in range(50):
        pace.note(0.05, 50)
    assert pace.seconds(100) == pytest.approx(0.05, rel=1e-3)


def test_one_slow_call_weighs_little_against_many() -> None:
    pace = Pace(1)
    pace.note(0.1, 1000)
    pace.note(0.1, 1)
    assert pace.seconds(1) < 0.01


def test_only_a_deadline_that_would_pass_in_the_queue_is_refused() -> None:
    pace = Pace(1)
    pace.note(1.0, 100)
    now = time.monotonic()
    assert pace.is_too_slow(100, now + 0.5)
    assert pace.is_too_slow(100, now + 1.5)  # it might just be in time, or just too late
    assert not pace.is_too_slow(100, now + 60)
    assert not pace.is_too_slow(100, None)
    assert not pace.is_too_slow(0, now + 0.001)
    assert not pace.is_too_slow(100, now - 1)
