"""Updates beside a version: visible at once, searched with it as one index."""

from .empty import empty_index
from .index import LiveIndex
from .recall import RecallWatch
from .sealing import Seal, Sealer

__all__ = ["LiveIndex", "RecallWatch", "Seal", "Sealer", "empty_index"]
