"""An index that holds nothing yet: what stands in a version's place before there is one."""

from __future__ import annotations

import numpy as np

from ..attributes import Attributes
from ..distance import DistanceMeasure, FeatureNorm, is_scaled, seen_by_engines
from ..engines import ExactEngine
from ..ids import Ids
from ..index import Index
from ..manifest import EngineEntry, Manifest
from ..shard import Shard
from ..tuning import OperatingPoint, Recall, Tuning

__all__ = ["empty_index"]


def empty_index(
    dimension: int, measure: DistanceMeasure, norm: FeatureNorm, target_recall: float = 0.95
) -> Index:
    """An index of no datapoints, to be filled by updates."""
    vectors = np.empty((0, dimension), np.float32)
    exact = ExactEngine(vectors, seen_by_engines(measure), np.empty(0, np.float32))
    norms = np.empty(0, np.float32) if is_scaled(measure, norm) else None
    shard = Shard(vectors, norms, exact, exact, Ids.build([], 0), Attributes.build(0, None, None))
    certain = OperatingPoint(10, 0, 0, Recall(1.0, 1.0, 1.0), 1.0)
    manifest = Manifest(
        count=0,
        dimension=dimension,
        distance_measure=measure,
        feature_norm=norm,
        engine=EngineEntry(exact.name, {}, "nothing has been built yet"),
        tuning=Tuning("nothing", 0, target_recall, [certain], certain),
    )
    return Index(shard, manifest)
