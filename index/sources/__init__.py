"""Vector files in: each becomes one mapped float32 matrix, with the ids and metadata that lie beside it."""

from .open import FORMATS, open_vectors
from .source import VectorSource

VECTOR_FORMATS = frozenset(FORMATS)
"""Ends of file names that `open_vectors` knows."""

__all__ = ["VECTOR_FORMATS", "VectorSource", "open_vectors"]
