"""Vector files in: each becomes one mapped float32 matrix, with the ids and metadata that lie beside it."""

from .open import open_vectors
from .source import VectorSource

__all__ = ["VectorSource", "open_vectors"]
