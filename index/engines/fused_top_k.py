"""Exact search on a GPU in two kernels that write no score to memory which cannot win.

The scores of 1,024 queries over a million vectors are 4 GB: written and read again they take several times
as long as computing them. Here a tile of the product leaves the maximum of each block of 128 vectors and of
each group in it, and no more. The k best vectors lie in the k blocks with the highest maxima, and in the k
groups of these with the highest ones, for what holds one of them has a maximum no lower than the k-th best
score; those groups alone are scored again. Triton compiles the kernels. Nothing of ours is imported: its
interpreter can run them where there is neither a GPU nor the rest of us.

After Chern et al., "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", NeurIPS 2022, which keeps a candidate
of each group and is approximate; keeping whole groups makes it exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

BLOCK = 128
"""Vectors that one maximum stands for at first; a tile holds one block or two."""
PART = 32
"""Blocks of which, where there are very many, only the highest maximum is looked at first."""
GROUPS = (8, 32)
"""Vectors a group: few make little to score again, many make few maxima."""
_PROGRAMS_A_PROCESSOR = 2
_HIDDEN = 0.5  # of the writing of maxima: the product takes longer


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program works on at a time.

    Attributes:
        queries, vectors: Whose products; queries stay where they are, vectors pass by.
        dimensions: Multiplied at once. Vectors with no more have their queries loaded once a program, others
            with each tile.
        warps: That share it.
        stages: Tiles on their way from memory, and in work.
    """

    queries: int
    vectors: int
    dimensions: int
    warps: int
    stages: int


def few(dimension: int) -> tuple[Tile, ...]:
    """Tiles for few queries, where reading the vectors is the work."""
    at_once = _at_once(dimension)
    return Tile(16, 128, at_once, 4, 4), Tile(64, 128, at_once, 4, 3)


def many(dimension: int) -> tuple[Tile, ...]:
    """Tiles for many queries, where the product is: which is fastest depends on the GPU.

    A tile costs a multiprocessor that reads its two sides at 30 bytes a clock no less than the product takes,
    unless it is large or one side stays. Two programs side by side hide each other's selections.
    """
    at_once = _at_once(dimension)
    if dimension <= at_once:
        return Tile(128, 128, at_once, 8, 2), Tile(256, 128, at_once, 8, 3), Tile(128, 128, at_once, 8, 3)
    return Tile(128, 256, at_once, 8, 3), Tile(256, 128, at_once, 8, 3), Tile(128, 128, at_once, 8, 3)


def _at_once(dimension: int) -> int:
    return int(max(triton.next_power_of_2(dimension), 16)) if dimension <= BLOCK else BLOCK // 2


def group_size(count: int, dimension: int, k: int) -> int:
    """Vectors a group: what makes the fewest bytes, of maxima written and of groups scored again."""

    def read_and_written(group: int) -> float:
        return _HIDDEN * 4 * count / group + 2 * dimension * (k + BLOCK // group) * group

    return min(GROUPS, key=read_and_written)


def top_k(
    vectors: Any, count: int, queries: Any, k: int, offsets: Any, tile: Tile, group: int
) -> tuple[Any, Any]:
    """The k highest q·x, or q·x − offset of x, of each query.

    Args:
        vectors: Tensor float16 [n, d], contiguous, n a multiple of 256 and d one of 16; rows from `count` on
            repeat the one before.
        count: Of vectors to be found.
        queries: Tensor float16 [q, d], on the same device.
        k: From 1 to `count`.
        offsets: Tensor float32 [n], subtracted from each vector's score, or None. Half the squared norms
            order by L2.
        tile: How the work is cut.
        group: One of `GROUPS`.

    Returns:
        Scores float32 [q, k], best first, and rows int64 [q, k], tensors on that device.
    """
    (padded, dimension), asked = vectors.shape, len(queries)
    query_tiles, tiles = triton.cdiv(asked, tile.queries), padded // tile.vectors
    queries = torch.nn.functional.pad(queries, (0, 0, 0, query_tiles * tile.queries - asked)).contiguous()
    blocks, groups = padded // BLOCK, BLOCK // group
    of_blocks = torch.empty((len(queries), blocks), dtype=torch.float32, device=vectors.device)
    of_groups = torch.empty((len(queries), blocks, groups), dtype=torch.float32, device=vectors.device)
    slices = min(tiles, max(1, _programs(vectors.device) // query_tiles))
    tiles_a_program = triton.cdiv(tiles, slices)
    weights = vectors if offsets is None else offsets  # not read where there are none
    _maxima[(query_tiles * triton.cdiv(tiles, tiles_a_program),)](
        queries,
        vectors,
        weights,
        of_blocks,
        of_groups,
        tiles,
        query_tiles,
        tiles_a_program,
        has_offsets=offsets is not None,
        dimension=dimension,
        group_size=group,
        query_block=tile.queries,
        vector_block=tile.vectors,
        dimension_block=tile.dimensions,
        stages=tile.stages,
        num_warps=tile.warps,
    )
    known = triton.cdiv(count, BLOCK)
    of_blocks[:, known:] = float("-inf")  # all are repetitions
    best = highest(of_blocks[:asked], min(k, known))
    # In the last block up to all groups but one may hold nothing but repetitions.
    chosen = _highest_within(of_groups[:asked], best, k + groups - 1)
    scores = torch.empty((*chosen.shape, group), dtype=torch.float32, device=vectors.device)
    _scores[(chosen.numel(),)](
        queries,
        vectors,
        weights,
        chosen,
        scores,
        count,
        chosen.shape[1],
        has_offsets=offsets is not None,
        dimension=dimension,
        group_size=group,
        dimension_block=_at_once(dimension),
        num_warps=1,
    )
    found, places = scores.flatten(1).topk(k, dim=1)
    return found, _rows(chosen.gather(1, places // group), places % group, group)


def highest(values: Any, k: int) -> Any:
    """Places of the k highest of each row of a tensor [r, n], int64 [r, k], in any order.

    PyTorch's selection reads a row some eighteen times; of a long one, of whole parts, it is shown only the
    parts with the highest maxima.
    """
    width = values.shape[1]
    if width % PART or width < 4 * k * PART:
        return values.topk(k, dim=1, sorted=False).indices
    parts = values.unflatten(1, (-1, PART))
    return _highest_within(parts, parts.amax(dim=2).topk(k, dim=1, sorted=False).indices, k)


def _highest_within(parts: Any, chosen: Any, k: int) -> Any:
    """Of a tensor [r, parts, size] the places of the k highest in the chosen parts, as if it were [r, n]."""
    size = parts.shape[2]
    within = parts.gather(1, chosen[:, :, None].expand(-1, -1, size)).flatten(1)
    places = within.topk(min(k, within.shape[1]), dim=1, sorted=False).indices
    return chosen.gather(1, places // size) * size + places % size


def _programs(device: Any) -> int:
    if device.type == "cpu":
        return _PROGRAMS_A_PROCESSOR
    return int(_PROGRAMS_A_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count)


def _rows(chosen: Any, member: Any, group: int) -> Any:
    """Where a group's members lie: in pairs, eight rows apart.

    So the matrix units leave a tile: a thread has every fourth pair of a row's scores, and finds the maximum
    of a group without a word to others.
    """
    block, span, pair = chosen // (BLOCK // group), chosen % (BLOCK // group) // 4, chosen % 4
    return block * BLOCK + span * 4 * group + member // 2 * 8 + pair * 2 + member % 2


@triton.jit
def _maxima(
    queries,
    vectors,
    offsets,
    of_blocks,
    of_groups,
    tiles,
    query_tiles,
    tiles_a_program,
    has_offsets: tl.constexpr,
    dimension: tl.constexpr,
    group_size: tl.constexpr,
    query_block: tl.constexpr,
    vector_block: tl.constexpr,
    dimension_block: tl.constexpr,
    stages: tl.constexpr,
):
    """Some tiles of the product: the maxima of their blocks and groups.

    Programs of the same vectors follow each other: vectors come from memory once, then from the cache.
    """
    blocks: tl.constexpr = vector_block // 128
    spans: tl.constexpr = 32 // group_size
    is_whole: tl.constexpr = dimension % dimension_block == 0
    stays: tl.constexpr = dimension <= dimension_block
    program = tl.program_id(0)
    rows = ((program % query_tiles) * query_block + tl.arange(0, query_block)).to(tl.int64)
    axis = tl.arange(0, dimension_block)
    query_at = queries + rows[:, None] * dimension + axis[None, :]
    vector_at = vectors + tl.arange(0, vector_block)[:, None] * dimension + axis[None, :]
    block_at = of_blocks + rows[:, None] * (tiles * blocks)
    group_at = of_groups + (rows * (tiles * blocks))[:, None, None, None] * (4 * spans)
    if stays:
        query = _loaded(query_at, axis, dimension, is_whole)
    first = (program // query_tiles).to(tl.int64) * tiles_a_program
    for tile in tl.range(first, min(first + tiles_a_program, tiles), num_stages=stages):
        start = tile * (vector_block * dimension)
        if stays:
            vector = _loaded(vector_at + start, axis, dimension, is_whole)
            scores = tl.dot(query, tl.trans(vector))
        else:
            scores = tl.zeros((query_block, vector_block), tl.float32)
            for done in range(0, dimension, dimension_block):
                query = _loaded(query_at + done, axis, dimension - done, is_whole)
                vector = _loaded(vector_at + start + done, axis, dimension - done, is_whole)
                scores = tl.dot(query, tl.trans(vector), scores)
        if has_offsets:
            scores -= tl.load(offsets + tile * vector_block + tl.arange(0, vector_block))[None, :]
        pairs = tl.reshape(scores, (query_block, blocks, spans, group_size // 2, 4, 2))
        best = tl.max(tl.max(pairs, axis=5), axis=3)
        block = tile * blocks + tl.arange(0, blocks)
        tl.store(block_at + block[None, :], tl.max(tl.max(best, axis=3), axis=2))
        group = (block[:, None, None] * spans + tl.arange(0, spans)[None, :, None]) * 4 + tl.arange(0, 4)
        tl.store(group_at + group[None, :, :, :], best)


@triton.jit
def _loaded(at, axis, dimension, is_whole: tl.constexpr):
    return tl.load(at) if is_whole else tl.load(at, mask=axis[None, :] < dimension, other=0.0)


@triton.jit
def _scores(
    queries,
    vectors,
    offsets,
    chosen,
    scores,
    count,
    chosen_a_query,
    has_offsets: tl.constexpr,
    dimension: tl.constexpr,
    group_size: tl.constexpr,
    dimension_block: tl.constexpr,
):
    """The scores of one chosen group of one query."""
    place = tl.program_id(0).to(tl.int64)
    group = tl.load(chosen + place)
    member = tl.arange(0, group_size)
    groups: tl.constexpr = 128 // group_size
    first = group // groups * 128 + (group % groups // 4) * (4 * group_size) + group % 4 * 2
    columns = first + member // 2 * 8 + member % 2
    axis = tl.arange(0, dimension_block)
    query_at = queries + (place // chosen_a_query) * dimension + axis
    vector_at = vectors + columns[:, None] * dimension + axis[None, :]
    found = tl.zeros((group_size,), tl.float32)
    for start in range(0, dimension, dimension_block):
        inside = axis < dimension - start
        query = tl.load(query_at + start, mask=inside, other=0.0).to(tl.float32)
        vector = tl.load(vector_at + start, mask=inside[None, :], other=0.0).to(tl.float32)
        found += tl.sum(query[None, :] * vector, axis=1)
    if has_offsets:
        found -= tl.load(offsets + columns)
    found = tl.where(columns < count, found, float("-inf"))
    tl.store(scores + place * group_size + member, found)
