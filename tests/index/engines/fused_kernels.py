"""`fused_top_k` interpreted on the CPU, and compiled for GPUs, in an environment with PyTorch and Triton.

`python fused_kernels.py FILE interpret|compile`, FILE being the module. Prints what failed and exits 1.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

SHAPES = (
    (1000, 17, 3, 5),
    (300, 128, 17, 10),
    (130, 64, 1, 130),
    (150, 100, 5, 40),
    (16, 8, 2, 16),
    (1, 3, 1, 1),
)
CAPABILITIES = (80, 90, 100)  # A100, H100, B200
POINTERS = {"queries": "*fp16", "vectors": "*fp16", "offsets": "*fp32"}
BLOCKS = {"group_size": 64, "query_block": 128, "vector_block": 128, "dimension_block": 64}


def load(file: str) -> Any:
    """The module by its file, without the package around it."""
    spec = importlib.util.spec_from_file_location("fused_top_k", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def interpret(module: Any) -> None:
    """Every shape, under both measures, through the class that the engine holds."""
    import numpy as np

    generator = np.random.default_rng(0)
    for count, dimension, asked, k in SHAPES:
        vectors = generator.standard_normal((count, dimension), dtype=np.float32)
        queries = generator.standard_normal((asked, dimension), dtype=np.float32)
        seen, sought = (part.astype(np.float16).astype(np.float64) for part in (vectors, queries))
        for is_dot in (True, False):
            flat = module.FusedFlat(vectors, "cpu", is_dot=is_dot)
            assert flat.differs(queries, k) == "", (count, dimension, is_dot)
            distances, rows = flat.search(queries, k + 1)
            every = sought @ seen.T
            if not is_dot:
                every = ((sought[:, None] - seen) ** 2).sum(axis=2)
            expected = np.sort(every, axis=1)[:, :: -1 if is_dot else 1][:, :k]
            np.testing.assert_allclose(distances[:, :k], expected, atol=2e-3)
            # Which of two rows as near as rounding tells is no matter; that each is there once is.
            np.testing.assert_allclose(np.take_along_axis(every, rows[:, :k], axis=1), expected, atol=2e-3)
            assert all(len(set(found)) == k + 1 for found in rows.tolist())
            assert (rows[:, k] == -1).all() == (k == count)
    damaged = module.FusedFlat(vectors, "cpu", is_dot=True)
    module.top_k = lambda vectors, queries, k, offsets: (queries.float()[:, :1] + 1e3, None)
    assert "scores are off" in damaged.differs(queries, 1)


def compile_for_gpus(module: Any) -> None:
    """Both kernels, to machine code that uses the matrix units."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for capability in CAPABILITIES:
        for has_offsets in (False, True):
            for kernel in (module._maxima_of_groups, module._scores_of_groups):
                types: dict[str, str] = {}
                constants: dict[str, int] = {"has_offsets": has_offsets}
                for name in kernel.arg_names:
                    if name in BLOCKS:
                        constants[name] = BLOCKS[name]
                    types[name] = POINTERS.get(name) or ("constexpr" if name in constants else "i32")
                    types[name] = {"maxima": "*fp32", "scores": "*fp32", "chosen": "*i64"}.get(
                        name, types[name]
                    )
                aligned = [place for place, name in enumerate(kernel.arg_names) if "*" in types[name]]
                aligned.append(kernel.arg_names.index("dimension"))
                source = ASTSource(
                    kernel,
                    signature=types,
                    constexprs=constants,
                    attrs={(place,): [["tt.divisibility", 16]] for place in aligned},
                )
                made = triton.compile(
                    source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8}
                )
                assert made.asm["cubin"], (capability, kernel)
                if kernel is module._maxima_of_groups:
                    assert "mma" in made.asm["ptx"], capability


if __name__ == "__main__":
    if importlib.util.find_spec("triton") is None:
        sys.exit("no triton")
    if sys.argv[2] == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    {"interpret": interpret, "compile": compile_for_gpus}[sys.argv[2]](load(sys.argv[1]))
