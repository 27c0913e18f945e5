"""The kernels for exact search in float16 where there is no GPU: interpreted, and compiled for three."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from earshot.index.engines import gpus

ENGINES = Path(gpus.__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interpret", "compile"])
def test_the_kernels_agree_with_exact_search_and_compile_for_gpus(how) -> None:
    python = os.environ.get("EARSHOT_TORCH_PYTHON")
    if not python:
        pytest.skip("EARSHOT_TORCH_PYTHON names no interpreter with PyTorch and Triton; run `make test-slow`")
    runner = Path(__file__).with_name("fused_kernels.py")
    done = subprocess.run([python, runner, ENGINES, how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_pytorch_and_triton_faiss_does_the_work(monkeypatch, caplog) -> None:
    monkeypatch.setattr(gpus, "find_spec", lambda name: None)
    caplog.set_level("INFO")
    assert gpus.fused_flat("cuda:0", np.zeros((1, 2), np.float32), is_dot=True) is None
    assert "torch and triton not installed" in caplog.text


def test_kernels_that_fail_or_differ_leave_the_work_to_faiss(monkeypatch, caplog) -> None:
    class Flat:
        def __init__(self, vectors, device, *, is_dot) -> None:
            assert (device, is_dot) == ("cuda:1", False)

        def prepare(self, queries, k) -> str:
            return "scores are off by 3"

    class Module:
        FusedFlat = Flat

    monkeypatch.setattr(gpus, "find_spec", lambda name: True)
    monkeypatch.setattr(gpus, "import_module", lambda name: Module)
    assert gpus.fused_flat("cuda:1", np.zeros((1, 2), np.float32), is_dot=False) is None
    assert "our kernels do not run on cuda:1: scores are off by 3" in caplog.text
    monkeypatch.setattr(Flat, "prepare", lambda *_: "")
    assert isinstance(gpus.fused_flat("cuda:1", np.zeros((1, 2), np.float32), is_dot=False), Flat)
    monkeypatch.setattr(gpus, "import_module", lambda name: 1 / 0)
    assert gpus.fused_flat("cuda:1", np.zeros((1, 2), np.float32), is_dot=False) is None
    assert "ZeroDivisionError" in caplog.text
