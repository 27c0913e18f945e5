"""config.json: what an index was asked to be. A version says in its manifest what it became."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from earshot.errors import InvalidArgument

from .assembly import MAX_SHARDS
from .distance import DistanceMeasure, FeatureNorm, choice
from .engines import ENGINES
from .planner import check_recall, check_whole
from .vectors import MAX_DIMENSIONS


class IndexConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for; None leaves it to the job, or to the version that serves.

    Attributes:
        dimensions: Of every vector; fixed once said.
        model: The embedding model; fixed once said. None where vectors come from outside, or where the
            job's own model shall do.
        distance_measure: As in `Index.build`, from the next version on, like the next three.
        feature_norm: As in `Index.build`.
        engine: "auto" or a name of an engine.
        shards: As in `Index.build`.
        target_recall: Of the next build, and at once of searches that name none.
        per_crowding_attribute_neighbor_count: At once of searches that say nothing; 0 sets no limit.
    """

    dimensions: int | None = None
    model: str | None = None
    distance_measure: DistanceMeasure | None = None
    feature_norm: FeatureNorm | None = None
    engine: str | None = None
    shards: int | None = None
    target_recall: float | None = None
    per_crowding_attribute_neighbor_count: int | None = None


FIXED = ("dimensions", "model")


def checked_config(fields: Mapping[str, Any]) -> IndexConfig:
    """A config from fields of which any may be None.

    Raises:
        InvalidArgument: An unknown field, or a value that no index can have; the message says what can.
    """
    unknown = fields.keys() - set(IndexConfig.__struct_fields__)
    if unknown:
        raise InvalidArgument(
            f"config has no field {min(unknown)!r}; it has {', '.join(IndexConfig.__struct_fields__)}",
            field="config",
        )
    given = {name: value for name, value in fields.items() if value is not None}
    for name, check in _CHECKS.items():
        if name in given:
            given[name] = check(given[name])
    return IndexConfig(**given)


def _whole(name: str, low: int, high: int) -> Any:
    def check(value: Any) -> int:
        check_whole(name, value, low, high)
        return int(value)

    return check


def _recall(value: Any) -> float:
    check_recall(value)
    return float(value)


def _engine(value: Any) -> str:
    if value != "auto" and value not in ENGINES:
        known = ", ".join(["auto", *sorted(ENGINES)])
        raise InvalidArgument(f"engine is {value!r}; it must be one of {known}", field="engine")
    return str(value)


_CHECKS: dict[str, Any] = {
    "dimensions": _whole("dimensions", 1, MAX_DIMENSIONS),
    "shards": _whole("shards", 1, MAX_SHARDS),
    "per_crowding_attribute_neighbor_count": _whole("per_crowding_attribute_neighbor_count", 0, 1 << 31),
    "target_recall": _recall,
    "distance_measure": lambda value: choice(DistanceMeasure, value, field="distance_measure"),
    "feature_norm": lambda value: choice(FeatureNorm, value, field="feature_norm"),
    "engine": _engine,
}
