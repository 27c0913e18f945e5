"""Engines inside the asking process, without any socket, for `benchmarks.service_peers`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import peers
from .datasets import Floats, Rows
from .peer import Ask, K, Peer, ladder

__all__ = ["qdrant_edge", "zvec"]

SETTINGS = ladder(K, 1000)


@contextmanager
def qdrant_edge(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """Qdrant's engine without its server; batches go to its `query_batch`."""
    import qdrant_edge as qdrant

    shard = _kept("qdrant-edge", vectors, folder, qdrant.EdgeShard.load)

    def connect(setting: int) -> Ask:
        params = qdrant.SearchParams(hnsw_ef=setting)

        def ask(queries: Floats) -> Rows:
            requests = [
                qdrant.QueryRequest(limit=K, query=qdrant.Query.Nearest(query), params=params)
                for query in queries.tolist()
            ]
            found = (
                shard.query_batch(qdrant.QueryBatchRequest(requests))
                if len(requests) > 1
                else [shard.query(requests[0])]
            )
            return np.array([[point.id for point in points] for points in found])

        return ask

    yield Peer(connect, SETTINGS, is_embedded=True)


@contextmanager
def zvec(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """Zvec; it has no call for several queries, so a batch is one after another."""
    import zvec

    collection = _kept("zvec", vectors, folder, zvec.open)

    def connect(setting: int) -> Ask:
        param = zvec.HnswQueryParam(ef=setting)

        def ask(queries: Floats) -> Rows:
            found = [
                collection.query(zvec.Query("v", vector=query, param=param), topk=K, output_fields=[])
                for query in queries.tolist()
            ]
            return np.array([[int(document.id) for document in documents] for documents in found])

        return ask

    yield Peer(connect, SETTINGS, is_embedded=True)


def _kept(name: str, vectors: Floats, folder: Path, load: Callable[[str], Any]) -> Any:
    """What `benchmarks.peers` builds, loaded; what was built is closed when nobody refers to it any more."""
    path = folder / "data"
    if not path.exists():
        peers.PEERS[name](vectors, "DOT_PRODUCT_DISTANCE", path, os.cpu_count() or 1)
    return load(str(path))
