"""The models of the served indexes, each loaded once, on first use, and shared by all requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from earshot.embedding import Embedder, Precision, Vectors, cached_queries, load_embedder
from earshot.errors import FailedPrecondition

__all__ = ["Embedders"]


class Embedders:
    """Embedders by what a version's manifest says of its model; each remembers its last texts."""

    def __init__(self, cache_dir: Path, *, threads: int | None = None) -> None:
        self._cache_dir = cache_dir
        self._threads = threads
        self._loaded: dict[tuple[str, Precision], tuple[Embedder, Callable[[str], Vectors]]] = {}
        self._loading = threading.Lock()

    def get(self, model: Mapping[str, Any]) -> Callable[[str], Vectors]:
        """From a text to its vector, float32 [dimension], comparable with those of the version.

        Raises FailedPrecondition where the model here is not the one that made the index.
        """
        key = (model["name"], model["precision"])
        embedder, embed = self._get(*key)
        if embedder.digest != model["digest"]:
            raise FailedPrecondition(
                f"the index was made with {key[0]} {model['digest'][:12]}, here is {embedder.digest[:12]}, "
                "and their vectors cannot be compared: rebuild the index",
                field="text",
            )
        return embed

    def load(self, name: str, precision: Precision = "int8") -> Embedder:
        """A model by name, as a job would make an index with it. Raises NotFound."""
        return self._get(name, precision)[0]

    def _get(self, name: str, precision: Precision) -> tuple[Embedder, Callable[[str], Vectors]]:
        key = (name, precision)
        loaded = self._loaded.get(key)
        if loaded is None:
            with self._loading:
                loaded = self._loaded.get(key) or self._load(*key)
                self._loaded[key] = loaded
        return loaded

    def _load(self, name: str, precision: Precision) -> tuple[Embedder, Callable[[str], Vectors]]:
        embedder = load_embedder(name, precision=precision, cache_dir=self._cache_dir, threads=self._threads)
        return embedder, cached_queries(embedder)
