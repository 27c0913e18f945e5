"""Runs a sentence encoder with onnxruntime and tokenizers, a text at a time, a thread a core.

Measured on 2 cores, a text a run beats every batching (no padding, no waiting on the slowest), and a text's
vector depends on that text alone: int8 scales its activations over whatever shares the run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from .base import Advance, Vectors, check_texts

_log = logging.getLogger(__name__)
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_BLOCK = 1024  # texts handed to the pool at once; bounds the futures in flight


class OnnxEmbedder:
    """An `Embedder` over a graph of `onnx_graph.build_bert` and a Hugging Face tokenizer."""

    def __init__(
        self,
        graph: bytes,
        tokenizer: bytes,
        *,
        model_id: str,
        digest: str,
        max_tokens: int,
        threads: int | None,
        on_gpu: bool = False,
    ) -> None:
        """Load the graph; `threads` defaults to the cores this process may use.

        `on_gpu` runs it on a GPU where onnxruntime was built with CUDA (the package onnxruntime-gpu).
        """
        self.model_id = model_id
        self.digest = digest
        self.max_tokens = max_tokens
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        options = onnxruntime.SessionOptions()
        # Each run stays in the thread that calls it: the pool below is the parallelism.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        known = onnxruntime.get_available_providers()
        providers = [_CUDA, _CPU] if on_gpu and _CUDA in known else [_CPU]
        self._session = onnxruntime.InferenceSession(graph, options, providers=providers)
        if len(providers) > 1:  # onnxruntime goes on without a provider that it cannot start
            where = (
                "on the GPU" if _CUDA in self._session.get_providers() else "on the CPU: CUDA did not start"
            )
            _log.info("%s embeds with onnxruntime, %s", model_id, where)
        self.dimensions: int = self._session.get_outputs()[0].shape[-1]
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), "embed")

    def embed(self, texts: Sequence[str], *, progress: Advance | None = None) -> Vectors:
        """One unit vector a text, float32 (len(texts), dimensions). See `Embedder.embed`.

        A single text is embedded in the calling thread, so a query never waits behind a rebuild.
        """
        check_texts(texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            rows = map(self._embed_one, block) if len(block) == 1 else self._pool.map(self._embed_one, block)
            for row, vector in enumerate(rows, start):
                vectors[row] = vector
                if progress:
                    progress(1)
        return vectors

    def _embed_one(self, text: str) -> Vectors:
        ids = np.array(self._tokenizer.encode(text).ids, np.int64)
        (vector,) = self._session.run(["embedding"], {"input_ids": ids})
        return cast(Vectors, vector)
