"""Vectors in float16 on one GPU, searched exactly by kernels of our own, tried before they are trusted.

Nothing else of ours is imported, so that Triton's interpreter can run it alone.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from math import inf
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .fused_top_k import BLOCK, GROUPS, PART, Tile, few, group_size, many, top_k

_log = logging.getLogger(__name__)
_WHOLE_TILES = 256  # rows, of any shape
_MANY = 1 << 17  # rows, of which some more are no matter
_ALIGNED = 16  # dimensions: what is loaded at once begins at 16 bytes
_NUMBERS_AT_ONCE = 1 << 28  # float32: 1 GiB
_ROWS_AT_ONCE = 1 << 18
_COMPARED = 10_240  # vectors, whole tiles
_TIMED = 1024  # queries
_ROUNDED = 2e-3


class FusedFlat:
    """Vectors in float16 on one GPU, searched exactly: what Faiss's flat index is, with `top_k` inside."""

    def __init__(self, vectors: npt.NDArray[np.float32], device: str, *, is_dot: bool) -> None:
        """Move float32 [n, d] there, block by block; by L2 where not `is_dot`."""
        self._count, self._dimension = vectors.shape
        rows = _up(self._count, PART * BLOCK if self._count >= _MANY else _WHOLE_TILES)
        dimension = _up(self._dimension, _ALIGNED)
        self._vectors = torch.zeros((rows, dimension), dtype=torch.float16, device=device)
        for start in range(0, self._count, _ROWS_AT_ONCE):
            block = torch.tensor(vectors[start : start + _ROWS_AT_ONCE], device=device)
            self._vectors[start : start + len(block), : self._dimension] = block
        # Rows beyond the last repeat it, so that no maximum is of a vector that is not there.
        self._vectors[self._count :] = self._vectors[self._count - 1]
        self._offsets = None if is_dot else torch.empty(rows, dtype=torch.float32, device=device)
        if self._offsets is not None:
            for start in range(0, rows, _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                self._offsets[part] = 0.5 * self._vectors[part].float().square().sum(1)
        self._tiles = (*few(dimension), many(dimension)[0])

    def search(
        self, queries: npt.NDArray[np.float32], k: int, params: None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Distances float32 [q, k], best first, and rows int64 [q, k], as Faiss's indexes answer: -1 and
        infinite beyond the last."""
        del params
        with torch.inference_mode(), _current(self._vectors.device):
            asked = self._on_device(queries)
            parts = [self._top_k(part, min(k, self._count)) for part in asked.split(self._queries_at_once(k))]
            distances = torch.cat([scores for scores, _ in parts])
            rows = torch.cat([found for _, found in parts])
            if self._offsets is not None:
                distances = asked.float().square().sum(1, keepdim=True) - 2 * distances
            if k > self._count:
                worst = float("-inf") if self._offsets is None else float("inf")
                distances = torch.nn.functional.pad(distances, (0, k - self._count), value=worst)
                rows = torch.nn.functional.pad(rows, (0, k - self._count), value=-1)
            return _on_host(distances), _on_host(rows)

    def prepare(self, queries: npt.NDArray[np.float32], k: int) -> str:
        """Compile all kernels, and take the fastest tile for many queries.

        Returns:
            How the answer of one of them differs from PyTorch's own over the first vectors, empty where none
            does: a compiler for a GPU that nobody tried may be wrong.
        """
        dimension, at_once = self._vectors.shape[1], self._queries_at_once(1)
        with torch.inference_mode(), _current(self._vectors.device):
            asked = self._on_device(queries)
            crowd = self._vectors[: min(_TIMED, at_once, self._count)]
            seconds = {
                tile: self._seconds(tile, crowd) for tile in many(dimension) if tile.queries <= at_once
            }
            running = sorted((tile for tile in seconds if seconds[tile] < inf), key=seconds.__getitem__)
            self._tiles = (*few(dimension), *running[:1])
            _log.info("%s multiplies many queries by %s", self._vectors.device, self._tiles[-1])
            problems = (self._differs(asked, k, tile, group) for tile in self._tiles for group in GROUPS)
            return next(filter(None, problems), "")

    def _on_device(self, queries: npt.NDArray[np.float32]) -> Any:
        there = torch.from_numpy(np.require(queries, np.float32, ["C", "W"])).to(self._vectors.device).half()
        return torch.nn.functional.pad(there, (0, self._vectors.shape[1] - self._dimension))

    def _queries_at_once(self, k: int) -> int:
        """As many as whose maxima and scores fit the memory set aside, in whole tiles."""
        group = group_size(self._count, self._dimension, k)
        maxima = len(self._vectors) // BLOCK * (1 + BLOCK // group)
        fit = _NUMBERS_AT_ONCE // (maxima + 3 * k * (BLOCK // group + group))
        whole = _WHOLE_TILES if fit >= _WHOLE_TILES else self._tiles[0].queries
        return max(whole, fit // whole * whole)

    def _top_k(self, asked: Any, k: int) -> tuple[Any, Any]:
        tile = next((tile for tile in self._tiles if len(asked) <= tile.queries), self._tiles[-1])
        group = group_size(self._count, self._dimension, k)
        return top_k(self._vectors, self._count, asked, k, self._offsets, tile, group)

    def _seconds(self, tile: Tile, asked: Any) -> float:
        """What a search takes, infinite where this GPU has not the memory or the registers for it."""
        group, times = group_size(self._count, self._dimension, 1), []
        try:
            for _ in range(4):  # the first of which compiles
                began = perf_counter()
                top_k(self._vectors, self._count, asked, 1, self._offsets, tile, group)[0].cpu()
                times.append(perf_counter() - began)
        except Exception as error:  # noqa: BLE001  Triton raises what it likes; there are other tiles
            _log.info("no %s on %s: %s", tile, self._vectors.device, error)
            return inf
        return min(times)

    def _differs(self, asked: Any, k: int, tile: Tile, group: int) -> str:
        count = min(self._count, _COMPARED)
        some = self._vectors[: _up(count, _WHOLE_TILES)]
        offsets = None if self._offsets is None else self._offsets[: len(some)]
        every = asked.float() @ some[:count].float().T
        if offsets is not None:
            every -= offsets[:count]
        k = min(k, count)
        found, expected = top_k(some, count, asked, k, offsets, tile, group)[0], every.topk(k, dim=1).values
        # As far as sums in another order, and TF32 where a user has set it, may be off.
        allowed = _ROUNDED * max(1.0, float(every.abs().max()))
        off = float((found - expected).abs().max())
        return "" if off <= allowed else f"scores of {tile} are off by {off}, {allowed} is rounding"


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _current(device: Any) -> AbstractContextManager[Any]:
    """Triton starts its kernels on the thread's device, which is the first unless it is told."""
    return nullcontext() if device.type == "cpu" else torch.cuda.device(device)


def _on_host(tensor: Any) -> npt.NDArray[Any]:
    """As NumPy has it: in memory that the GPU writes to itself, and that PyTorch keeps for the next."""
    there = tensor.device.type != "cpu"
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=there)
    host.copy_(tensor)
    found: npt.NDArray[Any] = host.numpy()
    return found
