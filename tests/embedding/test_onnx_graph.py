"""The graph against BERT written out in numpy, on small random weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from earshot.embedding.onnx_graph import INT8_LIMIT, build_bert, quantize_columns

LAYERS, HEADS, HIDDEN, INNER, VOCABULARY, PLACES = 2, 4, 32, 64, 50, 20
EPSILON = 1e-12
Weights = Mapping[str, NDArray[np.float32]]


@pytest.fixture(scope="module")
def weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, HIDDEN),
        "embeddings.position_embeddings.weight": (PLACES, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        "embeddings.LayerNorm.weight": (HIDDEN,),
        "embeddings.LayerNorm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        for part, rows, columns in (
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", INNER, HIDDEN),
            ("output.dense", HIDDEN, INNER),
        ):
            shapes[f"{name}.{part}.weight"] = (rows, columns)
            shapes[f"{name}.{part}.bias"] = (rows,)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"{name}.{part}.weight"] = shapes[f"{name}.{part}.bias"] = (HIDDEN,)
    random = np.random.default_rng(7)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def bert(weights: Weights, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Devlin et al. 2019, post-norm, exact GELU; mean pooling and L2 normalisation."""

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    embeddings = [
        weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")
    ]
    x = norm(embeddings[0][ids] + embeddings[1][: len(ids)] + embeddings[2][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            linear(x, f"{name}.attention.self.{part}").reshape(len(ids), HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(HIDDEN // HEADS))
        context = (scores / scores.sum(-1, keepdims=True)) @ value
        attended = linear(
            context.transpose(1, 0, 2).reshape(len(ids), HIDDEN), f"{name}.attention.output.dense"
        )
        x = norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize(("int8", "least_cosine"), [(False, 1 - 1e-6), (True, 0.995)])
@pytest.mark.parametrize("tokens", [1, 2, 7, PLACES])
def test_the_graph_computes_bert(weights: Weights, int8: bool, least_cosine: float, tokens: int) -> None:
    model = build_bert(weights, layers=LAYERS, heads=HEADS, layer_norm_epsilon=EPSILON, int8=int8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.random.default_rng(tokens).integers(0, VOCABULARY, tokens)
    (vector,) = session.run(["embedding"], {"input_ids": ids})
    assert vector @ bert(weights, ids) > least_cosine
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_the_same_weights_give_the_same_bytes(weights: Weights) -> None:
    first, second = (
        build_bert(
            weights, layers=LAYERS, heads=HEADS, layer_norm_epsilon=EPSILON, int8=True
        ).SerializeToString()
        for _ in range(2)
    )
    assert first == second


@settings(deadline=None)
@given(arrays.arrays(np.float32, (5, 3), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)))
def test_quantising_errs_by_half_a_step_at_most(matrix: NDArray[np.float32]) -> None:
    quantized, scale = quantize_columns(matrix)
    assert quantized.dtype == np.int8
    assert np.abs(quantized.astype(int)).max() <= INT8_LIMIT
    assert (np.abs(quantized * scale - matrix) <= scale * 0.501).all()
