"""The models of the served indexes, each loaded once, on first use, and shared by all requests."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earshot.embedding import Embedder, load_embedder
from earshot.errors import FailedPrecondition

__all__ = ["Embedders"]


class Embedders:
    """Embedders by what a version's manifest says of its model."""

    def __init__(self, cache_dir: Path, *, threads: int | None = None) -> None:
        self._cache_dir = cache_dir
        self._threads = threads
        self._loaded: dict[tuple[str, str], Embedder] = {}
        self._loading = threading.Lock()

    def get(self, model: Mapping[str, Any]) -> Embedder:
        """The embedder whose vectors are comparable with those of the version.

        Raises FailedPrecondition where the model here is not the one that made the index.
        """
        key = (model["name"], model["precision"])
        embedder = self._loaded.get(key)
        if embedder is None:
            with self._loading:
                embedder = self._loaded.get(key) or load_embedder(
                    key[0], precision=key[1], cache_dir=self._cache_dir, threads=self._threads
                )
                self._loaded[key] = embedder
        if embedder.digest != model["digest"]:
            raise FailedPrecondition(
                f"the index was made with {key[0]} {model['digest'][:12]}, here is {embedder.digest[:12]}, "
                "and their vectors cannot be compared: rebuild the index",
                field="text",
            )
        return embedder
