"""Updates beside a version: visible at once, searched with it as one index."""

from .empty import empty_index
from .index import LiveIndex
from .recall import RecallWatch

__all__ = ["LiveIndex", "RecallWatch", "empty_index"]
