"""GPUs played by faiss-cpu, so that all logic around a GPU runs in the ordinary suite."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from earshot.index.engines.gpus import WIDEST, Memory


class CpuGpus:
    """See `earshot.index.engines.gpus.Gpus`."""

    faiss = faiss

    def __init__(self, count: int = 1, free: int = 1 << 34, *, has_cagra: bool = True) -> None:
        self.count, self.has_cagra = count, has_cagra
        self.free = free
        self.allocated: list[int] = []

    def memory(self, device: int) -> Memory:
        assert device < self.count
        return Memory(self.free, max(self.free, 1 << 34))

    def flat(self, device: int, dimension: int, metric: int, *, half: bool) -> Any:
        self.allocated.append(device)
        if not half:
            return faiss.IndexFlat(dimension, metric)
        return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, metric)

    def fused(self, device: int, vectors: np.ndarray, metric: int) -> None:
        return None  # tests/index/engines/test_fused_top_k.py runs these kernels where there is no GPU

    def moved(self, index: Any, devices: list[int]) -> Any:
        self.allocated += devices
        if len(devices) == 1:
            return faiss.deserialize_index(faiss.serialize_index(index))
        shards = faiss.IndexShards(index.d, True, False)
        for number in range(len(devices)):
            part = faiss.deserialize_index(faiss.serialize_index(index))  # its own memory, not a mapped file
            part.reset()
            index.copy_subset_to(part, faiss.InvertedLists.SUBSET_TYPE_ID_MOD, len(devices), number)
            shards.add_shard(part)
        return shards

    def cagra(self, device: int, vectors: np.ndarray, metric: int, degree: int) -> Any:
        self.allocated.append(device)
        index = faiss.IndexHNSWCagra(vectors.shape[1], degree // 2, metric)
        index.add(vectors)
        return index

    def to_cpu(self, index: Any) -> Any:
        if not isinstance(index, faiss.IndexShards):
            return index
        whole = faiss.clone_index(index.at(0))
        for number in range(1, index.count()):
            part = faiss.clone_index(index.at(number))
            whole.merge_from(part, 0)
        return whole

    def search_parameters(self, index: Any, leaves: int) -> Any:
        assert leaves <= WIDEST
        if isinstance(index, faiss.IndexHNSW):
            return faiss.SearchParametersHNSW(efSearch=leaves)
        return faiss.SearchParametersIVF(nprobe=leaves)
