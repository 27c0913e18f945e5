"""Calibration counts as found what is found, however products are rounded."""

from __future__ import annotations

import numpy as np
import pytest

from earshot.index.distance import DistanceMeasure
from earshot.index.filters.calibrate import _leaves, _Trial
from earshot.index.filters.inverted import as_bitmap
from earshot.index.filters.leaves import Work
from earshot.index.filters.partition import Lift, Partition
from earshot.index.filters.passing import Passing


@pytest.mark.parametrize(
    "measure", [DistanceMeasure.DOT_PRODUCT_DISTANCE, DistanceMeasure.SQUARED_L2_DISTANCE]
)
def test_a_search_of_all_leaves_has_recall_one(measure):
    generator = np.random.default_rng(0)
    vectors = 3 * generator.standard_normal((6000, 96), np.float32)
    queries = generator.standard_normal((300, 96), np.float32)
    lift = Lift.of(vectors, measure)
    partition = Partition.build(vectors, lift, queries, 0)
    slots = np.flatnonzero(generator.random(6000) < 0.4).astype(np.uint32)
    passing = Passing(as_bitmap(slots), partition, vectors, lift)
    trial = _Trial.of(passing, lift.queries(queries), 10)
    assert (trial.hits(_leaves(partition, trial, 0.0, Work(), 64)) == 10).all()
    worse = trial.floor[:, np.newaxis] - np.float32(1e-3) * np.abs(trial.floor[:, np.newaxis])
    assert (trial.hits(np.repeat(worse, 10, axis=1)) == 0).all()
