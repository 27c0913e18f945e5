from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.server.hot.batch_size import BatchSize


def seconds(queries: int, overhead: float, each: float) -> float:
    return overhead + each * queries


@pytest.mark.parametrize("fits", [200, 1000, 5000])
def test_it_finds_the_size_that_just_fits(fits) -> None:
    size = BatchSize(0.1)
    each = 0.049 / fits
    for _ in range(2000):
        size.note(seconds(size.limit, 0.001, each), size.limit)
    assert 0.85 * fits <= size.limit <= 1.02 * fits


def test_one_batch_in_a_hundred_may_be_slow() -> None:
    generator = np.random.default_rng(1)
    size, slow = BatchSize(0.1), []
    for _ in range(20_000):
        took = seconds(size.limit, 0.001, 4e-5) * generator.lognormal(0, 0.2)
        slow.append(took > 0.05)
        size.note(took, size.limit)
    assert 0.003 <= np.mean(slow[5000:]) <= 0.02


def test_it_is_quick_where_much_fits_and_stays_in_bounds() -> None:
    size = BatchSize(1.0)
    for _ in range(30):
        size.note(0.001, size.limit)
    assert size.limit == 8192
    for _ in range(200):
        size.note(2.0, size.limit)
    assert size.limit == 64


def test_batches_far_from_full_teach_nothing_while_they_are_quick() -> None:
    size = BatchSize(0.1)
    for _ in range(1000):
        size.note(0.0001, 3)
    assert size.limit == 64


def test_it_follows_a_machine_that_becomes_slower() -> None:
    size = BatchSize(0.1)
    for _ in range(500):
        size.note(seconds(size.limit, 0, 1e-5), size.limit)
    before = size.limit
    for _ in range(50):
        size.note(seconds(size.limit, 0, 1e-4), size.limit)
    assert before > 4000
    assert size.limit <= 500


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 20_000))))
def test_any_history_leaves_a_size_in_bounds(history) -> None:
    size = BatchSize(0.05, smallest=8, largest=1000)
    for took, queries in history:
        size.note(took, queries)
        assert 8 <= size.limit <= 1000
