"""The real model, converted once a session; and a toy one for what does not depend on meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from earshot.embedding import Advance, Embedder, Vectors, check_texts, load_embedder


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def int8(model_cache: Path) -> Embedder:
    return load_embedder(precision="int8", cache_dir=model_cache)


@pytest.fixture(scope="session")
def float32(model_cache: Path) -> Embedder:
    return load_embedder(precision="float32", cache_dir=model_cache)


class ToyEmbedder:
    """Unit vectors from a hash of the text; remembers what it was asked."""

    def __init__(self, digest: str = "aa" * 32, fail_after: int | None = None) -> None:
        self.model_id = "toy"
        self.digest = digest
        self.dimensions = 8
        self.max_tokens = 16
        self.asked: list[str] = []
        self._fail_after = fail_after

    def embed(self, texts: Sequence[str], *, progress: Advance | None = None) -> Vectors:
        check_texts(texts)
        if self._fail_after is not None and len(self.asked) + len(texts) > self._fail_after:
            raise KeyboardInterrupt
        self.asked += texts
        if progress:
            progress(len(texts))
        seeds = [hashlib.sha256((self.digest + text).encode()).digest() for text in texts]
        raw = np.array([np.frombuffer(seed[:8], np.uint8) for seed in seeds], np.float32).reshape(-1, 8) + 1
        return raw / np.linalg.norm(raw, axis=1, keepdims=True)


@pytest.fixture
def toy() -> type[ToyEmbedder]:
    return ToyEmbedder
