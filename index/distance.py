"""What "closer" means: the distance measures and feature norms an index can be built with.

Names and meanings are those of Google's Vector Search API; distances are the measure's own value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from earshot.errors import InvalidArgument

Floats = npt.NDArray[np.float32]
_Choice = TypeVar("_Choice", bound=StrEnum)


class DistanceMeasure(StrEnum):
    """How far a datapoint is from a query.

    | measure | value | closer is |
    |---|---|---|
    | DOT_PRODUCT_DISTANCE | q · x | higher |
    | COSINE_DISTANCE | 1 − cos(q, x), in [0, 2]; a zero vector has cosine 0 with everything | lower |
    | SQUARED_L2_DISTANCE | Σ (qᵢ − xᵢ)² | lower |
    | L1_DISTANCE | Σ |qᵢ − xᵢ| | lower |
    """

    DOT_PRODUCT_DISTANCE = "DOT_PRODUCT_DISTANCE"
    COSINE_DISTANCE = "COSINE_DISTANCE"
    SQUARED_L2_DISTANCE = "SQUARED_L2_DISTANCE"
    L1_DISTANCE = "L1_DISTANCE"

    @property
    def higher_is_closer(self) -> bool:
        """Whether the nearest neighbor has the highest value."""
        return self is DistanceMeasure.DOT_PRODUCT_DISTANCE

    def score_of(self, distances: Floats) -> Floats:
        """Scores, of which higher is always closer: dot product, cosine, or the negated distance."""
        match self:
            case DistanceMeasure.DOT_PRODUCT_DISTANCE:
                return distances
            case DistanceMeasure.COSINE_DISTANCE:
                return np.float32(1) - distances
            case _:
                return -distances


class FeatureNorm(StrEnum):
    """What is done to a vector, stored or asked for, before it is compared."""

    NONE = "NONE"
    UNIT_L2_NORM = "UNIT_L2_NORM"


def choice(kind: type[_Choice], value: Any, *, field: str) -> _Choice:
    """`value` as a member of `kind`.

    Raises:
        InvalidArgument: It is not one; the message lists them.
    """
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(kind)
        raise InvalidArgument(f"{field} is {value!r}; it must be one of {known}", field=field) from None


def seen_by_engines(measure: DistanceMeasure) -> DistanceMeasure:
    """Engines see cosine as the dot product of unit vectors."""
    if measure is DistanceMeasure.COSINE_DISTANCE:
        return DistanceMeasure.DOT_PRODUCT_DISTANCE
    return measure


def is_scaled(measure: DistanceMeasure, norm: FeatureNorm) -> bool:
    """Whether vectors are scaled to unit length before they are compared."""
    return measure is DistanceMeasure.COSINE_DISTANCE or norm is FeatureNorm.UNIT_L2_NORM


def between(measure: DistanceMeasure, queries: Floats, vectors: Floats) -> Floats:
    """The measure, as engines see it, of queries [dimension] or [m, dimension] and as many vectors
    [m, dimension]; float32 [m].

    Summed row by row in float64, so that copies of a vector get one and the same value.
    """
    wide, asked = vectors.astype(np.float64), queries.astype(np.float64)
    match measure:
        case DistanceMeasure.DOT_PRODUCT_DISTANCE:
            wide *= asked
        case DistanceMeasure.SQUARED_L2_DISTANCE:
            wide -= asked
            wide *= wide
        case _:
            wide -= asked
            np.abs(wide, out=wide)
    distances: Floats = wide.sum(axis=1).astype(np.float32)
    return distances
