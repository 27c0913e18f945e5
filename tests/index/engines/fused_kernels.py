"""The kernels of exact search interpreted on the CPU, and compiled for GPUs, where PyTorch and Triton are.

`python fused_kernels.py FOLDER interpret|compile`, FOLDER being that of the engines. Prints what failed and
exits 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

SHAPES = (
    (1000, 17, 3, 5),
    (300, 128, 17, 10),
    (257, 200, 18, 9),
    (130, 64, 1, 130),
    (150, 100, 5, 40),
    (16, 8, 2, 16),
    (1, 3, 1, 1),
)
CAPABILITIES = (80, 90, 100)  # A100, H100, B200
DIMENSIONS = (96, 128, 768)
SPARE = 16  # bytes of a thread's memory that cost nothing
POINTERS = {
    "queries": "*fp16",
    "vectors": "*fp16",
    "offsets": "*fp32",
    "of_blocks": "*fp32",
    "of_groups": "*fp32",
    "scores": "*fp32",
    "chosen": "*i64",
}


def load(folder: str, name: str) -> Any:
    """A module of the folder, without the package that it is."""
    package = ModuleType("engines")
    package.__path__ = [folder]
    sys.modules["engines"] = package
    return importlib.import_module(f"engines.{name}")


def interpret(folder: str) -> None:
    """Every shape and tile, under both measures, through the class that the engine holds."""
    import numpy as np

    module = load(folder, "fused_flat")
    generator = np.random.default_rng(0)
    for count, dimension, asked, k in SHAPES:
        vectors = generator.standard_normal((count, dimension), dtype=np.float32)
        queries = generator.standard_normal((asked, dimension), dtype=np.float32)
        seen, sought = (part.astype(np.float16).astype(np.float64) for part in (vectors, queries))
        for is_dot in (True, False):
            flat = module.FusedFlat(vectors, "cpu", is_dot=is_dot)
            every = sought @ seen.T
            if not is_dot:
                every = ((sought[:, None] - seen) ** 2).sum(axis=2)
            expected = np.sort(every, axis=1)[:, :: -1 if is_dot else 1][:, :k]
            for tile in (*module.few(dimension), *module.many(dimension)):
                flat._tiles = (tile,)
                distances, rows = flat.search(queries, k + 1)
                np.testing.assert_allclose(distances[:, :k], expected, atol=2e-3)
                # Which of two rows as near as rounding tells is no matter; that each is there once is.
                np.testing.assert_allclose(np.take_along_axis(every, rows[:, :k], 1), expected, atol=2e-3)
                assert all(len(set(found)) == k + 1 for found in rows.tolist())
                assert (rows[:, k] == -1).all() == (k == count)
    assert flat.prepare(queries, 1) == ""
    check_selection(load(folder, "fused_top_k"))
    module.top_k = lambda vectors, count, queries, *_: (queries.float()[:, :1] + 1e3, None)
    assert "are off" in flat.prepare(queries, 1)


def check_selection(module: Any) -> None:
    """Rows in parts, not in whole parts, too short to be taken apart, and with equal numbers."""
    import torch

    for width, k, kinds in (
        (8192, 5, 1 << 20),
        (8192, 64, 1 << 20),
        (8192, 65, 1 << 20),
        (999, 7, 1 << 20),
        (4096, 9, 3),
    ):
        values = torch.randint(kinds, (11, width), generator=torch.Generator().manual_seed(k)).float()
        found = module.highest(values, k)
        assert all(len(set(row)) == k for row in found.tolist()), (width, k)
        assert values.gather(1, found).sort(descending=True).values.equal(values.topk(k).values), (width, k)


def compile_for_gpus(folder: str) -> None:
    """Both kernels, every tile, to machine code that uses the matrix units and keeps to the registers."""
    module = load(folder, "fused_top_k")
    for capability in CAPABILITIES:
        for dimension in DIMENSIONS:
            for has_offsets in (False, True):
                same = {"has_offsets": has_offsets, "dimension": dimension}
                fitting = set(module.many(dimension))
                for tile in (*module.few(dimension), *module.many(dimension)):
                    for group in module.GROUPS:
                        blocks = {
                            "group_size": group,
                            "query_block": tile.queries,
                            "vector_block": tile.vectors,
                            "dimension_block": tile.dimensions,
                            "stages": tile.stages,
                        }
                        made = compiled(module._maxima, {**same, **blocks}, capability, tile.warps)
                        assert "mma" in made.asm["ptx"], (capability, tile)
                        if capability == 90 and tile.queries >= 64:
                            assert "wgmma" in made.asm["ptx"], tile
                        if spilled(made):
                            fitting.discard(tile)
                            assert tile in module.many(dimension), (capability, dimension, tile, group)
                assert fitting, (capability, dimension)
                for group in module.GROUPS:
                    blocks = {"group_size": group, "dimension_block": 128}
                    compiled(module._scores, {**same, **blocks}, capability, 1)


def compiled(kernel: Any, constants: dict[str, int], capability: int, warps: int) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {
        name: POINTERS.get(name) or ("constexpr" if name in constants else "i32") for name in kernel.arg_names
    }
    source = ASTSource(
        kernel,
        signature=types,
        constexprs=constants,
        attrs={
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(kernel.arg_names)
            if name in POINTERS
        },
    )
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": warps})


def spilled(made: Any) -> bool:
    """Whether a thread keeps more than a register or two in memory, as the machine code says."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [str(tool), "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (stack,) = re.findall(r"STACK:(\d+)", said)
    return int(stack) > SPARE


if __name__ == "__main__":
    if importlib.util.find_spec("triton") is None:
        sys.exit("no triton")
    if sys.argv[2] == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    {"interpret": interpret, "compile": compile_for_gpus}[sys.argv[2]](sys.argv[1])
