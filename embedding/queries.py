"""Query texts repeat: the vectors of the last few thousand stay in memory."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from .base import Embedder, Vectors

if TYPE_CHECKING:
    from functools import _lru_cache_wrapper


def cached_queries(embedder: Embedder, *, capacity: int = 4096) -> _lru_cache_wrapper[Vectors]:
    """A function from one text to its read-only vector, shape (dimensions,), remembering the last `capacity`.

    Safe from several threads. It is a `functools.lru_cache`: `cache_info()` counts hits and misses. What
    `Embedder.embed` raises passes through and is not remembered.
    """

    @lru_cache(maxsize=capacity)
    def embed_query(text: str) -> Vectors:
        vector: Vectors = embedder.embed([text])[0]
        vector.flags.writeable = False
        return vector

    return embed_query
