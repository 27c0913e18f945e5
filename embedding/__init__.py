"""Text in, vectors out: embedding models, and the caches that keep a text from being embedded twice."""

from .base import Embedder, check_texts
from .models import MODELS, load_embedder

__all__ = ["MODELS", "Embedder", "check_texts", "load_embedder"]
