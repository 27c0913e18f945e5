"""The GPUs that Faiss can use, behind a seam so small that faiss-cpu can stand in for them in tests."""

from __future__ import annotations

import ctypes
import logging
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from earshot.errors import FailedPrecondition, InvalidArgument

from ..distance import Floats
from .faiss_module import faiss_module

_log = logging.getLogger(__name__)
WIDEST = 2048
"""Neighbors a query, and partitions visited: Faiss's selection on the GPU ends here."""
_MIB = 1 << 20
_CODES_WITH_HALF_TABLES = 48
_TRIED = 300, 32  # queries and neighbors


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one GPU, in bytes."""

    free: int
    total: int

    @property
    def scratch(self) -> int:
        """What Faiss sets aside for an index's intermediate results."""
        return 1536 * _MIB if self.total > 8 << 30 else 1024 * _MIB if self.total > 4 << 30 else 512 * _MIB


class Gpus(Protocol):
    """What the engine wants of them; an index that it gets belongs to one thread at a time."""

    faiss: Any
    count: int
    has_cagra: bool

    def memory(self, device: int) -> Memory:
        """Of one of them, now."""

    def flat(self, device: int, dimension: int, metric: int, *, half: bool) -> Any:
        """An empty index of vectors in float32, or float16 where `half`."""

    def fused(self, device: int, vectors: Floats, metric: int) -> Any | None:
        """Vectors in float16, exactly searched by kernels of our own; None where they do not run."""

    def moved(self, index: Any, devices: list[int]) -> Any:
        """A copy of a CPU index on one GPU, or in parts on several."""

    def cagra(self, device: int, vectors: Any, metric: int, degree: int) -> Any:
        """A graph over float32 vectors, built there.

        Raises:
            FailedPrecondition: This Faiss was built without cuVS.
        """

    def to_cpu(self, index: Any) -> Any:
        """The CPU index that equals what `moved` or `cagra` gave, and what was added to it."""

    def search_parameters(self, index: Any, leaves: int) -> Any:
        """How hard `index` is to look: nprobe of an IVF index, itopk of a graph."""


@lru_cache(maxsize=1)
def find_gpus() -> tuple[Gpus | None, str]:
    """The GPUs, or None and why there are none that Faiss can use."""
    try:
        faiss = faiss_module()
    except FailedPrecondition:
        return None, "faiss-gpu is not installed"
    except RuntimeError as error:  # faiss-gpu says so when a CUDA package is missing
        return None, str(error)
    if not hasattr(faiss, "StandardGpuResources"):
        return None, "the installed Faiss is faiss-cpu"
    count = int(faiss.get_num_gpus())
    if count == 0:
        return None, f"CUDA finds none: {_cuda_problem()}"
    return _FaissGpus(faiss, count), ""


class _FaissGpus:
    """The real ones."""

    def __init__(self, faiss: Any, count: int) -> None:
        self.faiss = faiss
        self.count = count
        self.has_cagra = hasattr(faiss, "GpuIndexCagra")

    def memory(self, device: int) -> Memory:
        _free_what_torch_keeps()
        runtime = ctypes.CDLL(None)  # faiss-gpu has loaded CUDA's runtime for all to see
        before, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
        runtime.cudaGetDevice(ctypes.byref(before))
        runtime.cudaSetDevice(device)
        problem = runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        runtime.cudaSetDevice(before)
        if problem:
            raise FailedPrecondition(f"GPU {device} does not tell its memory: CUDA error {problem}")
        return Memory(free.value, total.value)

    def flat(self, device: int, dimension: int, metric: int, *, half: bool) -> Any:
        config = self.faiss.GpuIndexFlatConfig()
        config.device, config.useFloat16 = device, half
        # Resources of its own: they serve one thread at a time, and indexes are searched side by side.
        return self.faiss.GpuIndexFlat(self.faiss.StandardGpuResources(), dimension, metric, config)

    def fused(self, device: int, vectors: Floats, metric: int) -> Any | None:
        if metric not in (self.faiss.METRIC_INNER_PRODUCT, self.faiss.METRIC_L2):
            return None
        is_dot = metric == self.faiss.METRIC_INNER_PRODUCT
        found = fused_flat(f"cuda:{device}", vectors, is_dot=is_dot)
        if found is None:
            _free_what_torch_keeps()
        return found

    def moved(self, index: Any, devices: list[int]) -> Any:
        options = self.faiss.GpuMultipleClonerOptions()
        options.shard = len(devices) > 1
        # Tables of distances to the codes no longer fit a multiprocessor's memory in float32.
        options.useFloat16 = (
            isinstance(index, self.faiss.IndexIVFPQ) and index.pq.M >= _CODES_WITH_HALF_TABLES
        )
        return self.faiss.index_cpu_to_gpus_list(index, co=options, gpus=devices)

    def cagra(self, device: int, vectors: Any, metric: int, degree: int) -> Any:
        if not self.has_cagra:
            raise FailedPrecondition(
                "CAGRA needs a Faiss built with cuVS: install faiss-gpu-cuvs in the place of faiss-gpu"
            )
        config = self.faiss.GpuIndexCagraConfig()
        config.device, config.graph_degree, config.intermediate_graph_degree = device, degree, 2 * degree
        resources = self.faiss.StandardGpuResources()
        index = self.faiss.GpuIndexCagra(resources, vectors.shape[1], metric, config)
        index.train(vectors)
        return index

    def to_cpu(self, index: Any) -> Any:
        if not (self.has_cagra and isinstance(index, self.faiss.GpuIndexCagra)):
            return self.faiss.index_gpu_to_cpu(index)
        copy = self.faiss.IndexHNSWCagra()
        copy.base_level_only = True  # upper levels would be built here, slowly, and the GPU needs none
        index.copyTo(copy)
        return copy

    def search_parameters(self, index: Any, leaves: int) -> Any:
        if self.has_cagra and isinstance(index, self.faiss.GpuIndexCagra):
            return self.faiss.SearchParametersCagra(itopk_size=leaves)
        return self.faiss.SearchParametersIVF(nprobe=leaves)


def fused_flat(device: str, vectors: Floats, *, is_dot: bool) -> Any | None:
    """A `FusedFlat` that answered as PyTorch does, or None, which the log explains."""
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        _log.info("Faiss searches in float16: %s not installed", " and ".join(missing))
        return None
    try:
        found = import_module(f"{__package__}.fused_flat").FusedFlat(vectors, device, is_dot=is_dot)
        problem = found.prepare(vectors[: _TRIED[0]], _TRIED[1])
    # Triton's compiler and CUDA raise what they like, and Faiss can do the work.
    except Exception as error:  # noqa: BLE001
        problem = f"{type(error).__name__}: {error}"
    if problem:
        _log.warning("Faiss searches in float16, since our kernels do not run on %s: %s", device, problem)
        return None
    return found


def _free_what_torch_keeps() -> None:
    """PyTorch keeps the memory of what is gone for what is to come; nobody else can have it until then."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _cuda_problem() -> str:
    """Why CUDA finds no GPU, in its words."""
    try:
        runtime = ctypes.CDLL(None)
        count = ctypes.c_int()
        runtime.cudaGetErrorString.restype = ctypes.c_char_p
        return str(runtime.cudaGetErrorString(runtime.cudaGetDeviceCount(ctypes.byref(count))).decode())
    except (AttributeError, OSError):
        return "it does not say why"


def check_count(value: Any, known: int) -> list[int]:
    """The first `value` GPUs, all for 0.

    Raises:
        InvalidArgument: There are not so many.
    """
    if not 0 <= value <= known:
        raise InvalidArgument(f"devices is {value}; this machine has {known} GPUs", field="devices")
    return list(range(value or known))
