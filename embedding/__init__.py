"""Text in, vectors out: embedding models, and the caches that keep a text from being embedded twice."""

from .base import Advance, Embedder, Vectors, check_texts
from .cache import EmbeddingCache, embed_cached
from .models import DEFAULT_MODEL, MODELS, Precision, Report, load_embedder
from .queries import cached_queries

__all__ = [
    "DEFAULT_MODEL",
    "MODELS",
    "Advance",
    "Embedder",
    "EmbeddingCache",
    "Precision",
    "Report",
    "Vectors",
    "cached_queries",
    "check_texts",
    "embed_cached",
    "load_embedder",
]
