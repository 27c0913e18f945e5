"""Embedding on a GPU as far as it goes without one: a stand-in plays PyTorch and sentence-transformers.

`make test-gpu` runs the real ones.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from earshot.embedding import MODELS, Embedder, load_embedder, torch_embedder
from earshot.errors import DataLoss, InvalidArgument

NAME = "all-MiniLM-L6-v2"
TEXTS = ["bread", "trains at night", "mail servers and their keepers"]


class _Model:
    """Embeds by the letters of a text, and remembers how it was asked."""

    made: list[_Model]

    def __init__(self, folder: str, device: str) -> None:
        self.folder, self.device, self.dtype = Path(folder), device, "float32"
        self.batches: list[int] = []
        self.made.append(self)

    def to(self, dtype: str) -> _Model:
        self.dtype = dtype
        return self

    def encode(self, texts: list[str], *, batch_size: int, **how: Any) -> np.ndarray:
        assert how == {"convert_to_numpy": True, "show_progress_bar": False}
        self.batches.append(len(texts))
        return np.array([[text.count(letter) + 1 for letter in "abcdefgh"] for text in texts], np.float32)


@pytest.fixture
def pytorch(monkeypatch: pytest.MonkeyPatch) -> type[_Model]:
    torch: Any = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: True)
    torch.bfloat16 = "bfloat16"
    sentence_transformers: Any = types.ModuleType("sentence_transformers")
    sentence_transformers.SentenceTransformer = _Model
    _Model.made = []
    monkeypatch.setattr(torch_embedder, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "sentence_transformers", sentence_transformers)
    return _Model


def test_bfloat16_embeds_with_pytorch_on_the_gpu(pytorch, caplog, monkeypatch) -> None:
    with caplog.at_level(logging.INFO):
        embedder = load_embedder(precision="bfloat16")
    (model,) = pytorch.made
    assert (model.device, model.dtype, model.max_seq_length) == ("cuda", "bfloat16", embedder.max_tokens)
    assert (model.folder / "model.safetensors").exists()
    assert "embeds on the GPU, in bfloat16" in caplog.text
    assert embedder.digest == MODELS[NAME].digest("bfloat16") != MODELS[NAME].digest("float32")
    monkeypatch.setattr(torch_embedder, "_BLOCK", 2)
    done: list[int] = []
    vectors = embedder.embed(TEXTS, progress=done.append)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(vectors[2], embedder.embed(TEXTS[2:])[0])
    assert done == [2, 1]
    assert embedder.embed([]).shape == (0, 8)
    with pytest.raises(InvalidArgument, match="text is blank"):
        embedder.embed([" "])


def test_weights_that_are_not_the_published_ones_are_refused(pytorch, monkeypatch) -> None:
    monkeypatch.setitem(MODELS, NAME, dataclasses.replace(MODELS[NAME], weights_sha256="0" * 64))
    with pytest.raises(DataLoss, match=r"model\.safetensors .* is damaged"):
        load_embedder(precision="bfloat16")
    assert pytorch.made == []


@pytest.mark.parametrize("why", ["torch and sentence_transformers not installed", "PyTorch finds no GPU"])
def test_without_a_gpu_bfloat16_is_float32_and_says_so(
    why, model_cache: Path, float32: Embedder, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(torch_embedder, "why_no_torch", lambda: why)
    with caplog.at_level(logging.WARNING):
        embedder = load_embedder(precision="bfloat16", cache_dir=model_cache)
    assert f"float32 in the place of bfloat16: {why}" in caplog.text
    np.testing.assert_array_equal(embedder.embed(TEXTS), float32.embed(TEXTS))
    assert embedder.digest == MODELS[NAME].digest("bfloat16")


def test_why_there_is_no_pytorch_is_told(pytorch, monkeypatch) -> None:
    assert torch_embedder.why_no_torch() == ""
    monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    assert torch_embedder.why_no_torch() == "PyTorch finds no GPU"
    monkeypatch.setattr(torch_embedder, "find_spec", lambda name: None if name == "torch" else name)
    assert torch_embedder.why_no_torch() == "torch not installed"


@pytest.mark.parametrize(("starts", "said"), [(True, "on the GPU"), (False, "CUDA did not start")])
def test_float32_asks_for_cuda_where_onnxruntime_has_it_and_int8_does_not(
    starts, said, model_cache: Path, float32: Embedder, int8: Embedder, monkeypatch, caplog
) -> None:
    asked: list[list[str]] = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, graph: bytes, options: Any, providers: list[str]) -> None:
            asked.append(providers)
            super().__init__(graph, options, providers=["CPUExecutionProvider"])

        def get_providers(self) -> list[str]:
            return [*(["CUDAExecutionProvider"] if starts else []), "CPUExecutionProvider"]

    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda, cpu])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with caplog.at_level(logging.INFO):
        embedder = load_embedder(precision="float32", cache_dir=model_cache)
    assert said in caplog.text
    np.testing.assert_array_equal(embedder.embed(TEXTS), float32.embed(TEXTS))
    load_embedder(precision="int8", cache_dir=model_cache)
    assert asked == [[cuda, cpu], [cpu]]
