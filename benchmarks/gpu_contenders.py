"""Who searches in the benchmark of the GPU: each builds from one matrix and answers batches of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.datasets import Dataset, Floats, Rows
from earshot.index import FaissGpuParameters, Index
from earshot.index.engines.gpu_copies import training_sample
from earshot.index.engines.gpus import Gpus

Search = Callable[[Floats, int], Rows]
PROBES = (8, 32, 128)


@dataclass(frozen=True, slots=True)
class Contender:
    """One index under one setting.

    Attributes:
        name: Whose, and of what kind.
        kind: What is compared with what: rows of one kind and setting do the same work.
        bytes_a_number: Of the vectors that exact search reads; 0 where not all are read.
        build_s: Seconds to build, or 0 for a further setting of an index built before.
        gpu_bytes: That the GPU lost meanwhile.
        search: Rows of the k nearest.
    """

    name: str
    kind: str
    bytes_a_number: int
    build_s: float
    gpu_bytes: int
    search: Search


def contenders(data: Dataset, gpus: Gpus, probes: tuple[int, ...] = PROBES) -> Iterator[Contender]:
    """One after the other, so that each has the memory for itself once the one before is dropped."""
    for precision, size in (("FLOAT32", 4), ("FLOAT16", 2)):
        kind = f"exact {precision.lower()}"
        flat = FaissGpuParameters(precision=precision)
        yield from _ours(data, gpus, flat, kind, size, (1,))
        yield _raw_flat(data, gpus, kind, size)
    leaves = FaissGpuParameters.ivf(len(data.base)).layout.leaves
    for codec in ("Flat", "SQfp16"):
        parameters = FaissGpuParameters(f"IVF{leaves},{codec}")
        yield from _ours(data, gpus, parameters, parameters.factory, 0, probes)
        yield from _raw_ivf(data, gpus, parameters, probes)
    refined = FaissGpuParameters.ivf_pq(*data.base.shape)
    yield from _ours(data, gpus, refined, refined.factory, 0, probes)
    if gpus.has_cagra:
        yield from _ours(data, gpus, FaissGpuParameters("CAGRA32"), "CAGRA32", 0, (32, 64, 128))
    if find_spec("torch"):
        torch = import_module("torch")
        if torch.cuda.is_available():
            yield _torch(data, torch)
    if find_spec("cuvs"):
        yield from _cuvs(data)
    yield _scann(data)


def _ours(
    data: Dataset, gpus: Gpus, parameters: FaissGpuParameters, kind: str, size: int, probes: tuple[int, ...]
) -> Iterator[Contender]:
    free = gpus.memory(0).free
    index = Index.build(
        data.base,
        engine=parameters,
        distance_measure=data.measure,
        tuning_queries=data.queries[:64],  # the benchmark names its own settings
    )
    seconds, taken = index.manifest.seconds["build"], free - gpus.memory(0).free
    leaves = max(1, parameters.layout.leaves)
    for number, leaves_visited in enumerate(probe for probe in probes if probe <= leaves or size):
        fraction = min(1.0, leaves_visited / leaves)

        def search(queries: Floats, k: int, fraction: float = fraction) -> Rows:
            return index.search(
                queries, k, fraction_leaf_nodes_to_search=fraction, approximate_neighbor_count=10 * k
            ).rows

        label = kind if size else f"{kind} at {leaves_visited}"
        yield Contender(f"ours, {label}", label, size, 0 if number else seconds, taken, search)


def _raw_flat(data: Dataset, gpus: Gpus, kind: str, size: int) -> Contender:
    free, began = gpus.memory(0).free, perf_counter()
    metric = _metric(gpus, data)
    index = gpus.flat(0, data.base.shape[1], metric, half=size == 2)
    index.add(data.base)
    seconds = perf_counter() - began
    return Contender(
        f"faiss, {kind}",
        kind,
        size,
        seconds,
        free - gpus.memory(0).free,
        lambda queries, k: index.search(queries, k)[1],
    )


def _raw_ivf(
    data: Dataset, gpus: Gpus, parameters: FaissGpuParameters, probes: tuple[int, ...]
) -> Iterator[Contender]:
    free, began = gpus.memory(0).free, perf_counter()
    cpu = gpus.faiss.index_factory(data.base.shape[1], parameters.factory, _metric(gpus, data))
    nearest = gpus.flat(0, data.base.shape[1], gpus.faiss.METRIC_L2, half=False)
    cpu.clustering_index = nearest
    cpu.train(training_sample(data.base, parameters.layout))
    cpu.clustering_index = None
    index = gpus.moved(cpu, [0])
    index.add(data.base)
    seconds, taken = perf_counter() - began, free - gpus.memory(0).free
    for number, probe in enumerate(probes):
        search = partial(_probe, index, gpus.search_parameters(index, probe))
        label = f"{parameters.factory} at {probe}"
        yield Contender(f"faiss, {label}", label, 0, 0 if number else seconds, taken, search)


def _probe(index: Any, parameters: Any, queries: Floats, k: int) -> Rows:
    rows: Rows = index.search(queries, k, params=parameters)[1]
    return rows


def _metric(gpus: Gpus, data: Dataset) -> int:
    is_dot = data.measure == "DOT_PRODUCT_DISTANCE"
    return int(gpus.faiss.METRIC_INNER_PRODUCT if is_dot else gpus.faiss.METRIC_L2)


def _torch(data: Dataset, torch: Any, device: str = "cuda") -> Contender:
    """What a few lines of PyTorch do: a product and a selection, the scores in memory between them."""
    began = perf_counter()
    base = torch.tensor(data.base, device=device).to(torch.float16)

    def search(queries: Floats, k: int) -> Rows:
        with torch.inference_mode():
            asked = torch.tensor(queries, device=device).to(torch.float16)
            # So many queries at a time that their scores take 4 GiB.
            parts = asked.split(max(1, (2 << 30) // len(base)))
            found = [(part @ base.T).topk(k, dim=1).indices for part in parts]
            return np.asarray(torch.cat(found).cpu().numpy(), np.int64)

    return Contender(
        "PyTorch, exact float16", "exact float16", 2, perf_counter() - began, 2 * base.numel(), search
    )


def _cuvs(data: Dataset) -> Iterator[Contender]:
    """NVIDIA's own library; queries and answers go through CuPy."""
    cupy = import_module("cupy")
    metric = "inner_product" if data.measure == "DOT_PRODUCT_DISTANCE" else "sqeuclidean"
    base = cupy.asarray(data.base)
    brute_force, cagra = (import_module(f"cuvs.neighbors.{name}") for name in ("brute_force", "cagra"))
    began = perf_counter()
    exact = brute_force.build(base, metric=metric)
    seconds = perf_counter() - began

    def search(queries: Floats, k: int) -> Rows:
        found = brute_force.search(exact, cupy.asarray(queries), k)[1]
        return np.asarray(cupy.asnumpy(cupy.asarray(found)), np.int64)

    yield Contender("cuVS, exact float32", "exact float32", 4, seconds, data.base.nbytes, search)
    began = perf_counter()
    graph = cagra.build(cagra.IndexParams(metric=metric, graph_degree=32), base)
    seconds = perf_counter() - began
    for number, width in enumerate((32, 64, 128)):

        def walk(queries: Floats, k: int, width: int = width) -> Rows:
            how = cagra.SearchParams(itopk_size=max(width, k))
            found = cagra.search(how, graph, cupy.asarray(queries), k)[1]
            return np.asarray(cupy.asnumpy(cupy.asarray(found)), np.int64)

        label = f"CAGRA32 at {width}"
        yield Contender(f"cuVS, {label}", label, 0, 0 if number else seconds, data.base.nbytes, walk)


def _scann(data: Dataset) -> Contender:
    """Our ScaNN on the CPU of the same machine, at recall 0.95."""
    index = Index.build(data.base, engine="scann", distance_measure=data.measure, target_recall=0.95)
    return Contender(
        "ours, ScaNN on the CPU at 0.95",
        "cpu",
        0,
        index.manifest.seconds["build"],
        0,
        lambda queries, k: index.search(queries, k).rows,
    )
