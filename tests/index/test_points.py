from __future__ import annotations

import msgspec
import numpy as np
import pytest

from earshot.index.points import OperatingPoint, Recall, cost_model, pareto, smoothed

LEAVES, CANDIDATES = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 64), (15, 25, 40, 65, 100)


def cost(leaves: int, candidates: int) -> float:
    """As ScaNN's was seen to be: something for every query, for every leaf, and for every candidate."""
    return 0.02 + 0.004 * leaves + 0.0003 * candidates


def measured(seed: int, *, disturbed: float) -> list[OperatingPoint]:
    generator = np.random.default_rng(seed)
    points = []
    for leaves in LEAVES:
        for candidates in CANDIDATES:
            noise = 1 + generator.exponential(0.03) + (generator.random() < disturbed) * 0.8
            recall = 1 - 0.3 / leaves
            points.append(
                OperatingPoint(
                    10, leaves, candidates, Recall(recall, recall, recall), cost(leaves, candidates) * noise
                )
            )
    return points


@pytest.mark.parametrize("seed", range(5))
def test_a_cost_is_known_better_than_one_measurement_tells(seed) -> None:
    points = measured(seed, disturbed=0.1)
    cost_of = cost_model(points)
    wrong = [cost_of(p.leaves, p.candidates) / cost(p.leaves, p.candidates) - 1 for p in points]
    # All are a little dearer than undisturbed, which changes no order.
    assert np.ptp(wrong) < 0.12
    assert max(p.cost / cost(p.leaves, p.candidates) for p in points) > 1.5


def test_a_cheap_point_that_was_disturbed_is_chosen_all_the_same() -> None:
    points = measured(0, disturbed=0)
    place = next(i for i, p in enumerate(points) if (p.leaves, p.candidates) == (6, 15))
    points[place] = msgspec.structs.replace(points[place], cost=2 * points[place].cost)
    chosen, misled = (
        min((p for p in pareto(each) if p.recall.low >= 0.95), key=lambda p: p.cost)
        for each in (smoothed(points), points)
    )
    assert (chosen.leaves, chosen.candidates) == (6, 15)
    assert (misled.leaves, misled.candidates) == (6, 25)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_few_points_keep_their_costs(count) -> None:
    points = measured(1, disturbed=0)[:: len(LEAVES) * len(CANDIDATES) // count][:count]
    for point, same in zip(points, smoothed(points), strict=True):
        assert same.cost == pytest.approx(point.cost, rel=0.1)
        assert same.recall == point.recall


def test_no_cost_is_nothing_however_far_it_lies_from_what_was_measured() -> None:
    cost_of = cost_model(measured(2, disturbed=0.1))
    assert min(cost_of(leaves, size) for leaves in (1, 500) for size in (10, 5000)) > 0
