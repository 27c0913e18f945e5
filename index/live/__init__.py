"""Updates beside a version: visible at once, searched with it as one index."""

from .empty import empty_index
from .index import LiveIndex

__all__ = ["LiveIndex", "empty_index"]
