"""Filters that keep recall and speed: which datapoints pass, and the cheapest way to the nearest of those."""

from .datapoints import Collected, collect
from .plan import FilterTuning, Plan
from .restricts import NumericRestrict, Operator, Restrict, TokenRestrict
from .search import Filters
from .where import Where, as_where

__all__ = [
    "Collected",
    "FilterTuning",
    "Filters",
    "NumericRestrict",
    "Operator",
    "Plan",
    "Restrict",
    "TokenRestrict",
    "Where",
    "as_where",
    "collect",
]
