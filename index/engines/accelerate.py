"""Matrix work that a GPU does for building: the nearest of many vectors to many others.

Through faiss-gpu or PyTorch, whichever is installed and finds a GPU; without one nothing here is used.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

import numpy as np

from ..distance import DistanceMeasure, Floats
from .base import Rows
from .faiss_module import METRICS
from .gpus import WIDEST, find_gpus

_log = logging.getLogger(__name__)
_LEAST_WORK = 1 << 33  # products; less is done here before a GPU has been woken
LEAST_QUERIES = 32
"""Fewer are never worth it."""
_VECTORS_AT_ONCE = 1 << 30  # bytes
_QUERIES_AT_ONCE = 1 << 28
_SCORES_AT_ONCE = 1 << 30


class Accelerator(Protocol):
    """Finds the nearest rows, as exactly as float32 can tell."""

    name: ClassVar[str]
    measures: ClassVar[frozenset[DistanceMeasure]]

    def nearest(
        self, vectors: Floats, queries: Floats, k: int, measure: DistanceMeasure
    ) -> tuple[Rows, Floats]:
        """The k nearest rows of `vectors`, at most `WIDEST`, best first, and their distances."""


def nearest(vectors: Floats, queries: Floats, k: int, measure: DistanceMeasure) -> tuple[Rows, Floats] | None:
    """What the accelerator finds, or None where there is none, or the work is too little for one.

    Args:
        vectors: float32 [n, dimension].
        queries: float32 [q, dimension].
        k: At most n.
        measure: As engines see it.

    Returns:
        rows int64 [q, k], best first, and distances float32 [q, k], off by what float32 rounds.
    """
    if len(queries) < LEAST_QUERIES or len(queries) * vectors.size < _LEAST_WORK or k > WIDEST:
        return None
    accelerator = find_accelerator()
    if accelerator is None or measure not in accelerator.measures:
        return None
    try:
        return accelerator.nearest(vectors, queries, k, measure)
    except RuntimeError as error:  # Faiss's and PyTorch's errors are of this class, a full memory's too
        _log.warning(
            "%s could not search %d vectors, the CPU does: %s", accelerator.name, len(vectors), error
        )
        return None


@lru_cache(maxsize=1)
def find_accelerator() -> Accelerator | None:
    """The one that is used from now on; the log says which."""
    gpus, _ = find_gpus()
    if gpus is not None:
        found: Accelerator | None = FaissAccelerator(gpus.faiss)
    else:
        found = _torch_accelerator()
    if found is not None:
        _log.info("exact truth and k-means are computed on the GPU by %s", found.name)
    return found


class FaissAccelerator:
    """Faiss's brute force, which takes vectors from the computer's memory piece by piece."""

    name: ClassVar[str] = "faiss-gpu"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(METRICS)

    def __init__(self, faiss: Any) -> None:
        self._faiss = faiss

    def nearest(
        self, vectors: Floats, queries: Floats, k: int, measure: DistanceMeasure
    ) -> tuple[Rows, Floats]:
        """See `Accelerator.nearest`."""
        distances, rows = self._faiss.knn_gpu(
            self._faiss.StandardGpuResources(),
            queries,
            vectors,
            k,
            metric=getattr(self._faiss, METRICS[measure]),
            device=0,
            vectorsMemoryLimit=_VECTORS_AT_ONCE,
            queriesMemoryLimit=_QUERIES_AT_ONCE,
        )
        return rows, distances


class TorchAccelerator:
    """A matrix product and a selection for each piece of the vectors, merged with the best so far."""

    name: ClassVar[str] = "PyTorch"
    measures: ClassVar[frozenset[DistanceMeasure]] = frozenset(METRICS) - {DistanceMeasure.L1_DISTANCE}

    def __init__(self, torch: Any, device: str = "cuda") -> None:
        self._torch, self._device = torch, device

    def nearest(
        self, vectors: Floats, queries: Floats, k: int, measure: DistanceMeasure
    ) -> tuple[Rows, Floats]:
        """See `Accelerator.nearest`."""
        step = max(1, _QUERIES_AT_ONCE // (4 * queries.shape[1]))
        parts = [
            self._nearest(vectors, queries[start : start + step], k, measure)
            for start in range(0, len(queries), step)
        ]
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([found for _, found in parts])

    def _nearest(
        self, vectors: Floats, queries: Floats, k: int, measure: DistanceMeasure
    ) -> tuple[Rows, Floats]:
        torch = self._torch
        # TF32 would keep 10 bits of each factor; it is not the default, but a user may have set it.
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        is_dot = measure is DistanceMeasure.DOT_PRODUCT_DISTANCE
        try:
            with torch.inference_mode():
                asked = torch.tensor(queries, device=self._device)
                scores = torch.full((len(queries), k), -torch.inf, device=self._device)
                rows = torch.full((len(queries), k), -1, dtype=torch.int64, device=self._device)
                step = min(_VECTORS_AT_ONCE // (4 * vectors.shape[1]), _SCORES_AT_ONCE // (4 * len(queries)))
                step = max(step, k)
                for start in range(0, len(vectors), step):
                    piece = torch.tensor(vectors[start : start + step], device=self._device)
                    found = asked @ piece.T
                    if not is_dot:
                        found.mul_(2).sub_((piece * piece).sum(1))
                    best, places = found.topk(min(k, len(piece)), dim=1)
                    scores, chosen = torch.cat((scores, best), 1).topk(k, dim=1)
                    rows = torch.cat((rows, places + start), 1).gather(1, chosen)
                if not is_dot:
                    scores = (asked * asked).sum(1, keepdim=True) - scores
                return rows.cpu().numpy(), scores.cpu().numpy()
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before


def _torch_accelerator() -> TorchAccelerator | None:
    if find_spec("torch") is None:
        return None
    torch = import_module("torch")
    return TorchAccelerator(torch) if torch.cuda.is_available() else None
