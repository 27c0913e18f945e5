from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.server.hot.cost import LEAST, MAX_REMEMBERED, Cost, Costs


def seconds(units: int, fixed: float = 1e-4, each: float = 2e-5) -> float:
    return fixed + each * units


def test_nothing_is_cheap_before_anything_is_known() -> None:
    assert Cost(1e-3).room == 0


def test_it_learns_the_fixed_part_and_that_of_each_query() -> None:
    cost = Cost(1e-3)
    for units in (1, 3, 8, 2, 20, 5) * 20:
        cost.note(seconds(units), units)
    assert cost.seconds(64) == pytest.approx(seconds(64), rel=0.05)
    assert cost.room == pytest.approx(45, abs=3)


def test_from_equal_batches_it_promises_no_more_than_was_seen() -> None:
    cost = Cost(1e-3)
    for _ in range(50):
        cost.note(seconds(4), 4)
    assert cost.seconds(8) == pytest.approx(2 * seconds(4))


def test_what_was_learned_from_many_sizes_is_kept_through_equal_ones() -> None:
    cost = Cost(1e-3)
    for units in (1, 64, 8) * 20:
        cost.note(seconds(units), units)
    for _ in range(100):
        cost.note(seconds(1), 1)
    assert cost.seconds(64) == pytest.approx(seconds(64), rel=0.2)


def test_one_batch_that_was_held_up_does_not_make_all_look_dear() -> None:
    cost = Cost(1e-3)
    for _ in range(50):
        cost.note(5e-5, 1)
    cost.note(0.2, 1)
    assert cost.seconds(1) < 1.5e-4


def test_what_became_dear_is_known_for_it_after_a_few() -> None:
    cost = Cost(1e-3)
    for _ in range(50):
        cost.note(5e-5, 1)
    for _ in range(5):
        cost.note(0.05, 1)
    assert cost.room == 0


@given(st.lists(st.tuples(st.floats(1e-7, 10), st.integers(1, 1000)), min_size=1))
def test_any_history_leaves_more_queries_dearer_and_none_for_nothing(history) -> None:
    cost = Cost(1e-3)
    for took, units in history:
        cost.note(took, units)
    assert 0 <= cost.seconds(1) <= cost.seconds(2) <= cost.seconds(1000)
    room = cost.room
    assert room == 0 or cost.seconds(room) <= 1e-3 * 1.0001
    assert cost.seconds((room or LEAST - 1) + 1) >= 1e-3 * 0.9999


def test_costs_are_kept_by_key_and_bounded() -> None:
    costs: Costs[int] = Costs(1e-3)
    assert costs.of(1) is costs.of(1) is not costs.of(2)
    known = costs.of(1)
    for key in range(MAX_REMEMBERED + 1):
        costs.of(key)
    assert costs.of(1) is not known
    known = costs.of(1)
    costs.clear()
    assert costs.of(1) is not known
