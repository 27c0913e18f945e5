"""Services that search, each with its own client: this project, and what users would pick instead.

For `benchmarks.service_peers`. What only one of them needs is imported where that one starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from earshot.server.run import Addresses

from .datasets import Floats, Rows
from .h2 import load_by_frames
from .load import Asked, load_by_h2load, load_by_wrk
from .peer import CLIENTS, IN_BATCH, Ask, K, Peer, Start, ladder, patiently, program_of, running
from .peer_embedded import qdrant_edge, zvec
from .peer_postgres import pgvector

__all__ = ["SERVICES"]

EF = ladder(K, 1000)


@contextmanager
def earshot(vectors: Floats, folder: Path, workers: int | None = None) -> Iterator[Peer]:
    """This project: the direct transport with a worker a core, and its Python client."""
    from earshot.index import Index, Store

    store = Store(folder)
    if "peer" not in store.indexes():
        store.create("peer")
        store.publish("peer", Index.build(vectors))
    command = (sys.executable, "-m", "benchmarks.service", "--serve", "direct", "--data-dir", str(folder))
    with running(*command, "--workers", str(workers or os.cpu_count() or 1)) as printed:
        address = patiently(lambda: json.loads(printed.read_text())["grpc"])
        settings = np.arange(0.9, 0.999, 0.005).round(3).tolist()
        yield Peer(partial(_earshot_client, address), settings, partial(_earshot_load, address))


def _earshot_client(address: str, target_recall: float) -> Ask:
    from earshot.client import Client

    client = Client(address)

    def ask(queries: Floats) -> Rows:
        if len(queries) == 1:
            found = [client.search("peer", vector=queries[0], k=K, target_recall=target_recall)]
        else:
            found = client.search_batch("peer", vectors=queries, k=K, target_recall=target_recall)
        return np.array([[int(neighbor.id) for neighbor in one] for one in found])

    return ask


def _earshot_load(address: str, target_recall: float, requests: Floats, seconds: float) -> float:
    """One request again and again over gRPC; different ones as JSON."""
    from google.protobuf.json_format import MessageToDict

    from earshot.v1 import datapoint_pb2, search_service_pb2

    shared: Any = {"neighbor_count": K, "target_recall": target_recall}
    method = "Search" if requests.shape[1] == 1 else "BatchSearch"
    messages: list[Any] = []
    for queries in requests:
        vectors = [datapoint_pb2.Vector(float32=query.astype("<f4").tobytes()) for query in queries]
        if method == "Search":
            messages.append(search_service_pb2.SearchRequest(vector=vectors[0], **shared))
        else:
            messages.append(search_service_pb2.BatchSearchRequest(vectors=vectors, **shared))
    if len(messages) == 1:
        messages[0].index = "peer"
        path, body = f"/earshot.v1.SearchService/{method}", messages[0].SerializeToString()
        return _h2load(address, path, body, seconds) * requests.shape[1]
    bodies = [json.dumps(MessageToDict(message)).encode() for message in messages]
    path = f"/v1/indexes/peer:{method[0].lower()}{method[1:]}"
    return _wrk(address, path, bodies, seconds) * requests.shape[1]


def _h2load(address: str, path: str, message: bytes, seconds: float) -> float:
    """gRPC requests a second of eight connections, the same one at a time each."""
    asked = Asked(path, path, (message,))
    return load_by_h2load(Addresses(address, f"http://{address}"), asked, CLIENTS, seconds).per_second


def _wrk(address: str, path: str, bodies: Sequence[bytes], seconds: float) -> float:
    """Requests a second of eight connections, one at a time each, in turn."""
    asked = Asked(path, path, tuple(bodies), is_json=True, is_varied=True)
    return load_by_wrk(Addresses(address, f"http://{address}"), asked, CLIENTS, seconds).per_second


@contextmanager
def milvus(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """milvus-lite's server and pymilvus; its HNSW."""
    import milvus_lite  # noqa: F401  # what the server's process needs
    from pymilvus import DataType, MilvusClient

    address = f"127.0.0.1:{_free_port()}"
    host, _, port = address.partition(":")
    command = (sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder))
    with running(*command, "--host", host, "--port", port):
        client = patiently(lambda: MilvusClient(f"http://{address}"))
        if not client.has_collection("items"):
            schema = MilvusClient.create_schema()
            schema.add_field("id", DataType.INT64, is_primary=True)
            schema.add_field("v", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
            parameters = client.prepare_index_params()
            graph = {"M": 16, "efConstruction": 200}
            parameters.add_index("v", index_type="HNSW", metric_type="IP", params=graph)
            client.create_collection("items", schema=schema, index_params=parameters)
            for start in range(0, len(vectors), IN_BATCH):
                part = enumerate(vectors[start : start + IN_BATCH].tolist(), start)
                client.insert("items", [{"id": row, "v": vector} for row, vector in part])
            client.flush("items")
        client.load_collection("items")
        yield Peer(partial(_milvus_client, address), EF, partial(_milvus_load, address))


def _milvus_client(address: str, setting: int) -> Ask:
    from pymilvus import MilvusClient

    client = MilvusClient(f"http://{address}")

    def ask(queries: Floats) -> Rows:
        found = client.search(
            "items", queries.tolist(), limit=K, search_params={"metric_type": "IP", "params": {"ef": setting}}
        )
        return np.array([[hit["id"] for hit in one] for one in found])

    return ask


def _milvus_load(address: str, setting: int, requests: Floats, seconds: float) -> float:
    from pymilvus.client.prepare import Prepare

    parameters = {"metric_type": "IP", "params": {"ef": setting}}
    messages = [
        Prepare.search_requests_with_expr("items", "v", parameters, K, data=queries.tolist())
        for queries in requests
    ]
    bodies = [message.SerializeToString() for message in messages]
    path = "/milvus.proto.milvus.MilvusService/Search"
    return load_by_frames(address, path, bodies, CLIENTS, seconds).per_second * requests.shape[1]


@contextmanager
def chroma(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """Chroma's server and its HTTP client; HNSW."""
    import chromadb

    port = _free_port()
    with running(program_of("chroma"), "run", "--path", str(folder), "--port", str(port)):
        client = patiently(lambda: chromadb.HttpClient(host="127.0.0.1", port=port))
        space = {"hnsw": {"space": "ip", "ef_construction": 200, "max_neighbors": 16}}
        items = client.get_or_create_collection("items", configuration=space)
        for start in range(items.count(), len(vectors), IN_BATCH):
            part = vectors[start : start + IN_BATCH]
            items.add([str(start + row) for row in range(len(part))], embeddings=part)
        yield Peer(partial(_chroma_client, port), EF, partial(_chroma_load, port, str(items.id)))


def _chroma_client(port: int, setting: int) -> Ask:
    import chromadb

    items = chromadb.HttpClient(host="127.0.0.1", port=port).get_collection("items")
    items.modify(configuration={"hnsw": {"ef_search": setting}})

    def ask(queries: Floats) -> Rows:
        found = items.query(query_embeddings=queries, n_results=K, include=[])
        return np.array([[int(row) for row in one] for one in found["ids"]])

    return ask


def _chroma_load(port: int, collection: str, setting: int, requests: Floats, seconds: float) -> float:
    _chroma_client(port, setting)
    bodies = [
        json.dumps({"query_embeddings": queries.tolist(), "n_results": K, "include": []}).encode()
        for queries in requests
    ]
    path = f"/api/v2/tenants/default_tenant/databases/default_database/collections/{collection}/query"
    return _wrk(f"127.0.0.1:{port}", path, bodies, seconds) * requests.shape[1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


SERVICES: dict[str, Start] = {
    "earshot": earshot,
    "earshot, one worker": partial(earshot, workers=1),
    "pgvector HNSW": pgvector,
    "pgvector IVF": partial(pgvector, index="ivfflat"),
    "milvus-lite": milvus,
    "chroma": chroma,
    "qdrant-edge": qdrant_edge,
    "zvec": zvec,
}
