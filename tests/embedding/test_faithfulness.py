"""Our graph against sentence-transformers on PyTorch, which runs in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from earshot.embedding import MODELS, Embedder

WORDS = """the host and her guest talk about sourdough bread, trains at night, mail servers, Größe,
    naïveté, C++ compilers and what 3.14 % of listeners said on 2024-02-29; 東京 too!""".split()  # noqa: SIM905
# 1 to about 500 tokens: the longest are cut, the shortest would be nearly all padding in the batch.
TEXTS = [
    " ".join((WORDS * 20)[start : start + words])
    for start, words in enumerate((1, 2, 3, 8, 21, 60, 150, 400))
]


@pytest.mark.slow
def test_the_float_graph_is_faithful_to_pytorch_in_one_padded_batch(
    float32: Embedder, int8: Embedder
) -> None:
    python = os.environ.get("EARSHOT_TORCH_PYTHON")
    if not python:
        pytest.skip(
            "EARSHOT_TORCH_PYTHON names no interpreter with sentence-transformers; run `make test-slow`"
        )
    model = MODELS[float32.model_id]
    folder = importlib.metadata.distribution(model.distribution).locate_file(model.folder)
    result = subprocess.run(
        [python, Path(__file__).with_name("reference_vectors.py"), str(folder)],
        input=json.dumps(TEXTS).encode(),
        capture_output=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert result.returncode == 0, result.stderr.decode()
    reference = np.load(io.BytesIO(result.stdout), allow_pickle=False)
    cosines = (float32.embed(TEXTS) * reference).sum(axis=1)
    assert cosines.min() >= 0.9999, cosines
    assert (int8.embed(TEXTS) * reference).sum(axis=1).min() > 0.99
