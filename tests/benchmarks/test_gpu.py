"""The benchmark's own logic, on data so small that faiss-cpu can play the GPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import gpu, gpu_contenders
from benchmarks.datasets import synthetic
from benchmarks.gpu import Device, Measurement, run, timings, verdicts
from benchmarks.gpu_contenders import Contender
from earshot.index.engines import faiss_gpu
from tests.gpus import CpuGpus


def test_every_contender_is_measured_and_exact_ones_are_exact(monkeypatch) -> None:
    gpus = CpuGpus()
    monkeypatch.setattr(faiss_gpu, "find_gpus", lambda: (gpus, ""))
    monkeypatch.setattr(gpu_contenders, "find_spec", lambda name: None)
    data = synthetic(3000, 16)
    device = Device("a stand-in", 1e9, 1e12, 1e12)
    found = run(data, gpus, device, (5,), (1, 1024), probes=(4, 16), seconds=0, say=lambda _: None)
    by_name = {(entry.contender, entry.batch): entry for entry in found}
    for batch in (1, 1024):
        assert by_name["ours, exact float32", batch].recall == 1.0
        assert by_name["faiss, exact float32", batch].recall == 1.0
        assert by_name["ours, exact float16", batch].recall > 0.98
    factories = [name for name, batch in by_name if batch == 1 and "IVF" in name]
    assert len([name for name in factories if name.startswith("faiss")]) == 4
    assert len([name for name in factories if name.startswith("ours")]) == 6
    for name in factories:
        few = name.removesuffix("16") + "4"
        if name.endswith(" 16"):
            assert by_name[name, 1].recall > by_name[few, 1].recall
    assert by_name["ours, ScaNN on the CPU at 0.95", 1].recall > 0.9
    assert (by_name["ours, exact float32", 1].of_floor or 0) > 0
    assert by_name["ours, ScaNN on the CPU at 0.95", 1].of_floor is None
    assert {verdict.goal[:4] for verdict in verdicts(found)} == {"ours", "exac"}


def test_the_floor_is_reading_for_few_queries_and_arithmetic_for_many() -> None:
    device = Device("", bandwidth=3e12, flops16=8e14, flops32=5e13)
    assert device.floor(1_000_000, 128, 2, 1) == pytest.approx(256e6 / 3e12)
    assert device.floor(1_000_000, 128, 2, 8192) == pytest.approx(2 * 8192 * 128e6 / 8e14)
    assert device.floor(1_000_000, 128, 4, 8192) == pytest.approx(2 * 8192 * 128e6 / 5e13)


def test_goals_are_judged_at_the_worst_place_and_for_large_batches_alone() -> None:
    def entry(contender: str, batch: int, speed: float, of_floor: float | None = None) -> Measurement:
        return Measurement(
            "set",
            f"{contender}, exact float16",
            "exact float16",
            10,
            batch,
            speed,
            1,
            1,
            1,
            1,
            1,
            of_floor,
        )

    found = verdicts(
        [
            entry("ours", 32, 1, 0.01),
            entry("faiss", 32, 100),
            entry("ours", 1024, 96, 0.7),
            entry("faiss", 1024, 100),
            entry("ours", 8192, 90, 0.4),
            entry("faiss", 8192, 100),
        ]
    )
    assert [(verdict.value, verdict.is_met) for verdict in found] == [(0.9, False), (0.4, False)]
    assert found[0].where == "set, exact float16, k 10, batch 8192"
    assert verdicts([entry("ours", 1024, 1)]) == []


def test_calls_are_timed_with_other_queries_each_time() -> None:
    queries = np.arange(80, dtype=np.float32).reshape(40, 2)
    seen: list[float] = []

    def search(part: np.ndarray, k: int) -> np.ndarray:
        assert part.shape == (10, 2)
        seen.append(float(part[0, 0]))
        return np.zeros((10, k), np.int64)

    assert len(timings(search, queries, 3, 10, 0)) == 5
    assert seen[2:] == [0, 20, 40, 60, 0]


def test_without_a_gpu_it_says_so(monkeypatch) -> None:
    monkeypatch.setattr(gpu, "find_gpus", lambda: (None, "CUDA finds none"))
    with pytest.raises(SystemExit, match="no GPU: CUDA finds none; this benchmark needs one"):
        gpu.main([])


def brute_force(data):
    return lambda queries, k: np.argsort(-queries @ data.base.T, axis=1)[:, :k]


def test_the_command_prints_and_writes_all_figures(monkeypatch, tmp_path, capsys) -> None:
    def two(data, gpus, probes):
        for name in ("ours", "faiss"):
            yield Contender(f"{name}, exact float32", "exact float32", 4, 0.1, 0, brute_force(data))

    monkeypatch.setattr(gpu, "find_gpus", lambda: (CpuGpus(), ""))
    monkeypatch.setattr(gpu, "contenders", two)
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    gpu.main(["--quick", "--sets", "1200x8", "--json", str(tmp_path / "gpu.json")])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["device"] is None
    assert {entry["batch"] for entry in written["measurements"]} == {1, 1024}
    assert [verdict["wanted"] for verdict in written["verdicts"]] == [0.95]
    assert "ours / raw faiss-gpu" in capsys.readouterr().out
