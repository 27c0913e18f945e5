"""Runs a sentence encoder with sentence-transformers on a GPU, in bfloat16 and in large batches.

Only where PyTorch is installed and finds a GPU (extra `torch`); nothing else of the house needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np

from .base import Advance, Vectors, check_texts

_BLOCK = 4096  # texts sorted by length together, so that little is padded
_BATCH = 512


class TorchEmbedder:
    """An `Embedder` over a model's folder as sentence-transformers reads it."""

    def __init__(
        self, folder: Path, *, model_id: str, digest: str, max_tokens: int, device: str = "cuda"
    ) -> None:
        torch = import_module("torch")
        sentence_transformers = import_module("sentence_transformers")
        self.model_id = model_id
        self.digest = digest
        self.max_tokens = max_tokens
        self._model = sentence_transformers.SentenceTransformer(str(folder), device=device).to(torch.bfloat16)
        self._model.max_seq_length = max_tokens
        self._one_at_a_time = threading.Lock()  # its tokenizer may not be shared, and the GPU is one
        self.dimensions: int = self._encode(["a"]).shape[1]

    def embed(self, texts: Sequence[str], *, progress: Advance | None = None) -> Vectors:
        """One unit vector a text, float32 (len(texts), dimensions). See `Embedder.embed`."""
        check_texts(texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), _BLOCK):
            block = list(texts[start : start + _BLOCK])
            found = self._encode(block)
            # Scaled here: bfloat16 would leave lengths off by a part in 256.
            vectors[start : start + len(block)] = found / np.linalg.norm(found, axis=1, keepdims=True)
            if progress:
                progress(len(block))
        return vectors

    def _encode(self, texts: list[str]) -> Vectors:
        with self._one_at_a_time:
            found = self._model.encode(
                texts, batch_size=_BATCH, convert_to_numpy=True, show_progress_bar=False
            )
        return cast(Vectors, np.asarray(found, np.float32))


def why_no_torch() -> str:
    """Why PyTorch cannot embed on a GPU here; empty where it can."""
    missing = [name for name in ("torch", "sentence_transformers") if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if not import_module("torch").cuda.is_available():
        return "PyTorch finds no GPU"
    return ""
