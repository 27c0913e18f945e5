"""Other engines in this process, behind one function each: build, then search batches with one knob.

All graphs have 16 links a node (32 in the lowest layer) and were built with a width of 200, the usual choice
of ann-benchmarks. A peer whose package is not installed is left out, and the caller says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Search = Callable[[Floats, int, int], Rows]
"""(queries [q, d], k, setting) → rows [q, k]"""

LINKS, WIDTH = 16, 200
IN_BATCH = 20_000


def faiss_hnsw(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """Faiss's HNSW over float32; the setting is efSearch."""
    del folder
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, _faiss_metric(measure))
    index.hnsw.efConstruction = WIDTH
    index.add(vectors)
    faiss.omp_set_num_threads(1)

    def search(queries: Floats, k: int, setting: int) -> Rows:
        return index.search(queries, k, params=faiss.SearchParametersHNSW(efSearch=setting))[1]

    return search


def faiss_ivf_pq(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """Faiss's IVF with 4-bit fast-scan codes, refined in float32; the setting is nprobe, 8 k are refined."""
    del folder
    import faiss

    count, dimension = vectors.shape
    codes = dimension // 2 if dimension % 2 == 0 else dimension
    faiss.omp_set_num_threads(threads)
    factory = f"IVF{round(count**0.5)},PQ{codes}x4fs,RFlat"
    index = faiss.index_factory(dimension, factory, _faiss_metric(measure))
    index.train(vectors)
    index.add(vectors)
    faiss.omp_set_num_threads(1)

    def search(queries: Floats, k: int, setting: int) -> Rows:
        probing = faiss.SearchParametersIVF(nprobe=setting)
        refining: Any = faiss.IndexRefineSearchParameters(k_factor=8, base_index_params=probing)
        return index.search(queries, k, params=refining)[1]

    return search


def hnswlib(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """hnswlib, where HNSW's authors wrote it; the setting is ef."""
    del folder
    import hnswlib

    index = hnswlib.Index("l2" if measure == "SQUARED_L2_DISTANCE" else "ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=WIDTH, M=LINKS)
    index.add_items(vectors, num_threads=threads)

    def search(queries: Floats, k: int, setting: int) -> Rows:
        index.set_ef(max(setting, k))
        return index.knn_query(queries, k, num_threads=1)[0].astype(np.int64)

    return search


def usearch(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """USearch's HNSW over float32; the setting is its expansion."""
    del folder
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1],
        metric="l2sq" if measure == "SQUARED_L2_DISTANCE" else "ip",
        dtype="f32",
        connectivity=LINKS,
        expansion_add=WIDTH,
    )
    index.add(np.arange(len(vectors)), vectors, threads=threads)

    def search(queries: Floats, k: int, setting: int) -> Rows:
        index.expansion_search = setting
        return index.search(queries, k, threads=1).keys.reshape(len(queries), k).astype(np.int64)

    return search


def qdrant_edge(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """Qdrant's engine without its server; the setting is hnsw_ef."""
    import qdrant_edge as qdrant

    distance = qdrant.Distance.Euclid if measure == "SQUARED_L2_DISTANCE" else qdrant.Distance.Dot
    config = qdrant.EdgeConfig(
        vectors=qdrant.EdgeVectorParams(size=vectors.shape[1], distance=distance),
        hnsw_config=qdrant.HnswIndexConfig(
            m=LINKS, ef_construct=WIDTH, full_scan_threshold=10, max_indexing_threads=threads
        ),
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1),
        max_search_threads=1,
    )
    shard = qdrant.EdgeShard.create(str(folder), config)
    for start in range(0, len(vectors), IN_BATCH):
        part = vectors[start : start + IN_BATCH].tolist()
        points = [qdrant.Point(start + i, vector) for i, vector in enumerate(part)]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
    shard.optimize()

    def search(queries: Floats, k: int, setting: int) -> Rows:
        params = qdrant.SearchParams(hnsw_ef=setting)
        found = [
            shard.query(qdrant.QueryRequest(limit=k, query=qdrant.Query.Nearest(query), params=params))
            for query in queries.tolist()
        ]
        return np.array([[point.id for point in points] for points in found])

    return search


def zvec(vectors: Floats, measure: str, folder: Path, threads: int) -> Search:
    """Zvec's HNSW over float32; the setting is ef."""
    import zvec

    metric = zvec.MetricType.L2 if measure == "SQUARED_L2_DISTANCE" else zvec.MetricType.IP
    graph = zvec.HnswIndexParam(metric_type=metric, m=LINKS, ef_construction=WIDTH)
    field = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, vectors.shape[1], graph)
    collection = zvec.create_and_open(str(folder), zvec.CollectionSchema(name="peer", vectors=field))
    for start in range(0, len(vectors), 1000):
        part = enumerate(vectors[start : start + 1000].tolist(), start)
        collection.insert([zvec.Doc(id=str(row), vectors={"v": vector}) for row, vector in part])
    collection.optimize(zvec.OptimizeOption(concurrency=threads))

    def search(queries: Floats, k: int, setting: int) -> Rows:
        param = zvec.HnswQueryParam(ef=setting)
        found = [
            collection.query(zvec.Query("v", vector=query, param=param), topk=k, output_fields=[])
            for query in queries.tolist()
        ]
        return np.array([[int(document.id) for document in documents] for documents in found])

    return search


PEERS: dict[str, Callable[[Floats, str, Path, int], Search]] = {
    "faiss HNSW": faiss_hnsw,
    "faiss IVF-PQ": faiss_ivf_pq,
    "hnswlib": hnswlib,
    "usearch": usearch,
    "qdrant-edge": qdrant_edge,
    "zvec": zvec,
}


def _faiss_metric(measure: str) -> Any:
    import faiss

    return faiss.METRIC_L2 if measure == "SQUARED_L2_DISTANCE" else faiss.METRIC_INNER_PRODUCT
