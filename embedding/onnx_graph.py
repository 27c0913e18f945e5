"""A BERT sentence encoder as an ONNX graph, written node by node from its weights: no torch, no export.

One text a run: token ids in, one unit vector out. Nothing is ever padded, so there is no mask to lose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights: TypeAlias = Mapping[str, NDArray[Any]]

OPSET = 20
IR_VERSION = 10  # what onnxruntime 1.20 reads; newer ones read it too
MICROSOFT = "com.microsoft"

# 7 bits: on x86 without VNNI two 8-bit products are added in 16 bits and would saturate. So one graph, and
# one digest, serves every CPU; nDCG@10 does not tell it from 8 bits.
INT8_LIMIT = 63


class _Graph:
    """Nodes and initializers in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, array: NDArray[Any]) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> list[str]:
        name = f"{op}_{len(self.nodes)}"
        results = [f"{name}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=name, domain=domain, **attributes))
        return results

    def one(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.add(op, *inputs, domain=domain, **attributes)[0]


def quantize_columns(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric 7-bit quantisation of shape (rows, columns), one scale a column.

    Returns int8 of the same shape and float32 scales of shape (columns,); `q * scale` approximates.
    """
    scale = np.abs(matrix).max(axis=0) / np.float32(INT8_LIMIT)
    scale[scale == 0] = 1
    return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)


def build_bert(
    weights: Weights, *, layers: int, heads: int, layer_norm_epsilon: float, int8: bool
) -> onnx.ModelProto:
    """The encoder, mean pooling over the tokens and L2 normalisation, as one ONNX model.

    `weights` carries the names and shapes of Hugging Face's `BertModel`. The model takes `input_ids`, int64
    of shape (tokens,), and gives `embedding`, float32 of shape (hidden,). With `int8` the matrix products
    take 7-bit weights, a scale a column, and 8-bit activations scaled at run time, in the feed-forward layers
    a scale a token (it halves the error); attention, layer norms and GELU stay in float (Devlin et al. 2019;
    Zafrir et al. 2019, Q8BERT).
    """
    graph = _Graph()
    hidden_size = weights["embeddings.LayerNorm.weight"].shape[0]
    head_size = hidden_size // heads
    split_heads = graph.constant(np.array([-1, 3, heads, head_size]))
    join_heads = graph.constant(np.array([-1, hidden_size]))
    axis_0, last_axis = graph.constant(np.array([0])), graph.constant(np.array([-1]))
    smallest = graph.constant(np.array(1e-12, np.float32))

    def linear(x: str, *names: str, per_token: bool = False) -> str:
        """One product for all of `names`, their outputs side by side."""
        matrix = np.concatenate([weights[f"{name}.weight"] for name in names]).T
        bias = graph.constant(np.concatenate([weights[f"{name}.bias"] for name in names]))
        if not int8:
            return graph.one("Add", graph.one("MatMul", x, graph.constant(matrix)), bias)
        quantized, scale = quantize_columns(matrix)
        columns = [graph.constant(part) for part in (quantized, scale, np.zeros(scale.shape, np.int8))]
        if not per_token:
            return graph.one("DynamicQuantizeMatMul", x, *columns, bias, domain=MICROSOFT)
        # One range serves the whole product, and a few tokens reach far: bring each to [-1, 1] first.
        reach = graph.one("Max", graph.one("ReduceMax", graph.one("Abs", x), last_axis), smallest)
        product = graph.one("DynamicQuantizeMatMul", graph.one("Div", x, reach), *columns, domain=MICROSOFT)
        return graph.one("Add", graph.one("Mul", product, reach), bias)

    def add_and_norm(x: str, y: str, name: str) -> str:
        # Not SkipLayerNormalization: its CPU kernel takes ten times as long as these two.
        gain, bias = (graph.constant(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        total = graph.one("Add", x, y)
        return graph.one("LayerNormalization", total, gain, bias, epsilon=layer_norm_epsilon)

    def attention(x: str, name: str) -> str:
        packed = linear(x, *(f"{name}.self.{part}" for part in ("query", "key", "value")))
        by_part = graph.one("Transpose", graph.one("Reshape", packed, split_heads), perm=[1, 2, 0, 3])
        parts = graph.add("Split", by_part, outputs=3, axis=0, num_outputs=3)
        query, key, value = (graph.one("Squeeze", part, axis_0) for part in parts)
        scores = graph.one("FusedMatMul", query, key, domain=MICROSOFT, transB=1, alpha=head_size**-0.5)
        context = graph.one("MatMul", graph.one("Softmax", scores), value)
        joined = graph.one("Reshape", graph.one("Transpose", context, perm=[1, 0, 2]), join_heads)
        return linear(joined, f"{name}.output.dense")

    words = _words(graph, weights["embeddings.word_embeddings.weight"], int8)
    # A single text is all segment 0, so its row joins the positions.
    places = (
        weights["embeddings.position_embeddings.weight"]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    positions = graph.one("Slice", graph.constant(places), axis_0, graph.one("Shape", "input_ids"))
    x = add_and_norm(words, positions, "embeddings.LayerNorm")
    for layer in range(layers):
        name = f"encoder.layer.{layer}"
        x = add_and_norm(attention(x, f"{name}.attention"), x, f"{name}.attention.output.LayerNorm")
        inner = graph.one("Gelu", linear(x, f"{name}.intermediate.dense", per_token=True), approximate="none")
        x = add_and_norm(linear(inner, f"{name}.output.dense", per_token=True), x, f"{name}.output.LayerNorm")
    mean = graph.one("ReduceMean", x, axis_0, keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["embedding"], axis=-1, p=2))

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert_sentence_encoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["tokens"])],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [hidden_size])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        producer_name="earshot",
    )
    model.ir_version = IR_VERSION
    return model


def _words(graph: _Graph, table: NDArray[np.float32], int8: bool) -> str:
    """Look the word vectors up; in int8 a scale a word, which makes the file a third as large."""
    if not int8:
        return graph.one("Gather", graph.constant(table), "input_ids")
    quantized, scale = quantize_columns(np.ascontiguousarray(table.T))
    rows = graph.one("Gather", graph.constant(quantized.T), "input_ids")
    scales = graph.one("Gather", graph.constant(scale[:, np.newaxis]), "input_ids")
    return graph.one("Mul", graph.one("Cast", rows, to=TensorProto.FLOAT), scales)
