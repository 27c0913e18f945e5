"""Exact search on a GPU in two kernels that write no score to memory which cannot win.

The scores of 1,024 queries over a million vectors are 4 GB: written and read again they take several times
as long as computing them. Here a tile of the product leaves the maximum of each group of vectors, and no
more. The k best vectors lie in the k groups with the highest maxima, for a group that holds one of them has a
maximum no lower than the k-th best score; those groups alone are scored again. Triton compiles the kernels.
Nothing of ours is imported: its interpreter can run them where there is neither a GPU nor the rest of us.

After Chern et al., "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", NeurIPS 2022, which keeps a candidate
of each group and is approximate; keeping whole groups makes it exact.
"""

from __future__ import annotations

from math import log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl

_SMALLEST_GROUP, _LARGEST_GROUP = 16, 128
_VECTORS_A_TILE = 128
_DIMENSIONS_AT_ONCE = 64
_SELECTION_PASSES = 6  # of topk over what it reads
_SCORES_AT_ONCE = 1 << 28  # float32: 1 GiB
_ROWS_AT_ONCE = 1 << 18
_COMPARED = 10_000
_ROUNDED = 2e-3


class FusedFlat:
    """Vectors in float16 on one GPU, searched exactly: what Faiss's flat index is, with `top_k` inside."""

    def __init__(self, vectors: npt.NDArray[np.float32], device: str, *, is_dot: bool) -> None:
        """Move float32 [n, d] there, block by block; by L2 where not `is_dot`."""
        count, dimension = vectors.shape
        self._vectors = torch.empty((count, dimension), dtype=torch.float16, device=device)
        self._offsets = None if is_dot else torch.empty(count, dtype=torch.float32, device=device)
        for start in range(0, count, _ROWS_AT_ONCE):
            block = slice(start, start + _ROWS_AT_ONCE)
            self._vectors[block] = torch.tensor(vectors[block], device=device)
            if self._offsets is not None:
                self._offsets[block] = 0.5 * self._vectors[block].float().square().sum(1)

    def search(
        self, queries: npt.NDArray[np.float32], k: int, params: None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Distances float32 [q, k], best first, and rows int64 [q, k], as Faiss's indexes answer: -1 and
        infinite beyond the last."""
        del params
        count = len(self._vectors)
        with torch.inference_mode():
            asked = torch.tensor(queries, device=self._vectors.device).half()
            distances, rows = top_k(self._vectors, asked, min(k, count), self._offsets)
            if self._offsets is not None:
                distances = asked.float().square().sum(1, keepdim=True) - 2 * distances
            if k > count:
                worst = float("-inf") if self._offsets is None else float("inf")
                distances = torch.nn.functional.pad(distances, (0, k - count), value=worst)
                rows = torch.nn.functional.pad(rows, (0, k - count), value=-1)
            return distances.cpu().numpy(), rows.cpu().numpy()

    def differs(self, queries: npt.NDArray[np.float32], k: int) -> str:
        """How the kernels' answer differs from PyTorch's own over the first vectors, empty where it does not:
        a compiler for a GPU that nobody tried may be wrong."""
        some, offsets = self._vectors[:_COMPARED], self._offsets
        offsets = None if offsets is None else offsets[:_COMPARED]
        with torch.inference_mode():
            asked = torch.tensor(queries, device=some.device).half()
            every = asked.float() @ some.float().T
            if offsets is not None:
                every -= offsets
            k = min(k, len(some))
            found, expected = top_k(some, asked, k, offsets)[0], every.topk(k, dim=1).values
            # As far as sums in another order, and TF32 where a user has set it, may be off.
            allowed = _ROUNDED * max(1.0, float(every.abs().max()))
            off = float((found - expected).abs().max())
        return "" if off <= allowed else f"scores are off by {off}, {allowed} is rounding"


def top_k(vectors: Any, queries: Any, k: int, offsets: Any = None) -> tuple[Any, Any]:
    """The k highest q·x, or q·x − offset of x, of each query.

    Args:
        vectors: Tensor float16 [n, d], contiguous.
        queries: Tensor float16 [q, d], contiguous, on the same device.
        k: From 1 to n.
        offsets: Tensor float32 [n], subtracted from each vector's score, or None. Half the squared norms
            order by L2.

    Returns:
        Scores float32 [q, k], best first, and rows int64 [q, k], tensors on that device.
    """
    group = group_size(len(vectors), vectors.shape[1], k)
    step = max(1, _SCORES_AT_ONCE // max(triton.cdiv(len(vectors), group), k * group))
    parts = [_top_k(vectors, part, k, offsets, group) for part in queries.split(step)]
    return torch.cat([scores for scores, _ in parts]), torch.cat([rows for _, rows in parts])


def group_size(count: int, dimension: int, k: int) -> int:
    """Vectors a group: a power of two that balances the bytes of maxima, selected from in some passes, with
    those of the k groups that are read again."""
    best = sqrt(_SELECTION_PASSES * 4 * count / (2 * dimension * k))
    return int(min(max(2 ** round(log2(best)), _SMALLEST_GROUP), _LARGEST_GROUP))


def _top_k(vectors: Any, queries: Any, k: int, offsets: Any, group: int) -> tuple[Any, Any]:
    (count, dimension), asked = vectors.shape, len(queries)
    groups = triton.cdiv(count, group)
    maxima = torch.empty((asked, groups), dtype=torch.float32, device=vectors.device)
    queries_a_tile = min(128, max(16, triton.next_power_of_2(asked)))
    dimensions = min(_DIMENSIONS_AT_ONCE, max(16, triton.next_power_of_2(dimension)))
    tiles = triton.cdiv(asked, queries_a_tile) * triton.cdiv(count, _VECTORS_A_TILE)
    weights = vectors if offsets is None else offsets  # not read where there are none
    _maxima_of_groups[(tiles,)](
        queries,
        vectors,
        weights,
        maxima,
        asked,
        count,
        groups,
        dimension,
        has_offsets=offsets is not None,
        group_size=group,
        query_block=queries_a_tile,
        vector_block=_VECTORS_A_TILE,
        dimension_block=dimensions,
        num_warps=8 if queries_a_tile == 128 else 4,
    )
    chosen = maxima.topk(min(k, groups), dim=1, sorted=False).indices
    scores = torch.empty((asked, chosen.shape[1], group), dtype=torch.float32, device=vectors.device)
    _scores_of_groups[(chosen.numel(),)](
        queries,
        vectors,
        weights,
        chosen,
        scores,
        count,
        chosen.shape[1],
        dimension,
        has_offsets=offsets is not None,
        group_size=group,
        dimension_block=dimensions,
    )
    best, places = scores.view(asked, -1).topk(k, dim=1)
    rows = chosen.gather(1, places // group) * group + places % group
    return best, rows


@triton.jit
def _maxima_of_groups(
    queries,
    vectors,
    offsets,
    maxima,
    asked,
    count,
    groups,
    dimension,
    has_offsets: tl.constexpr,
    group_size: tl.constexpr,
    query_block: tl.constexpr,
    vector_block: tl.constexpr,
    dimension_block: tl.constexpr,
):
    """One tile of the product, a block of queries by one of vectors: the maximum of each group in it.

    Tiles of the same vectors follow each other: vectors come from memory once, queries from the cache.
    """
    tile = tl.program_id(0)
    query_tiles = tl.cdiv(asked, query_block)
    rows = (tile % query_tiles) * query_block + tl.arange(0, query_block)
    columns = (tile // query_tiles) * vector_block + tl.arange(0, vector_block)
    axis = tl.arange(0, dimension_block)
    query_at = queries + rows.to(tl.int64)[:, None] * dimension + axis[None, :]
    vector_at = vectors + columns.to(tl.int64)[:, None] * dimension + axis[None, :]
    scores = tl.zeros((query_block, vector_block), tl.float32)
    for start in range(0, dimension, dimension_block):
        inside = axis[None, :] < dimension - start
        query = tl.load(query_at + start, mask=(rows[:, None] < asked) & inside, other=0.0)
        vector = tl.load(vector_at + start, mask=(columns[:, None] < count) & inside, other=0.0)
        scores = tl.dot(query, tl.trans(vector), scores)
    if has_offsets:
        scores -= tl.load(offsets + columns, mask=columns < count, other=0.0)[None, :]
    scores = tl.where(columns[None, :] < count, scores, float("-inf"))
    best = tl.max(tl.reshape(scores, (query_block, vector_block // group_size, group_size)), axis=2)
    places = (tile // query_tiles) * (vector_block // group_size) + tl.arange(0, vector_block // group_size)
    at = maxima + rows.to(tl.int64)[:, None] * groups + places[None, :]
    tl.store(at, best, mask=(rows[:, None] < asked) & (places[None, :] < groups))


@triton.jit
def _scores_of_groups(
    queries,
    vectors,
    offsets,
    chosen,
    scores,
    count,
    chosen_a_query,
    dimension,
    has_offsets: tl.constexpr,
    group_size: tl.constexpr,
    dimension_block: tl.constexpr,
):
    """The scores of one chosen group of one query."""
    pair = tl.program_id(0).to(tl.int64)
    columns = tl.load(chosen + pair) * group_size + tl.arange(0, group_size)
    axis = tl.arange(0, dimension_block)
    query_at = queries + (pair // chosen_a_query) * dimension + axis
    vector_at = vectors + columns[:, None] * dimension + axis[None, :]
    found = tl.zeros((group_size,), tl.float32)
    for start in range(0, dimension, dimension_block):
        inside = axis < dimension - start
        query = tl.load(query_at + start, mask=inside, other=0.0).to(tl.float32)
        known = (columns[:, None] < count) & inside[None, :]
        vector = tl.load(vector_at + start, mask=known, other=0.0).to(tl.float32)
        found += tl.sum(query[None, :] * vector, axis=1)
    if has_offsets:
        found -= tl.load(offsets + columns, mask=columns < count, other=0.0)
    found = tl.where(columns < count, found, float("-inf"))
    tl.store(scores + pair * group_size + tl.arange(0, group_size), found)
