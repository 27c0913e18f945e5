"""Judged queries through the whole service: rebuild, then search over gRPC, beside brute force."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import nDCG

from earshot.client import Client
from earshot.embedding import load_embedder
from earshot.index import Store
from tests.servers import earshot, serving

WITHIN = 0.005
DEPTH = 10


@pytest.mark.realdata
@pytest.mark.parametrize(
    # The least is of the int8 model; what `benchmarks/embedding.py` measures of float is at most 0.01 more.
    ("name", "documents", "least"),
    [
        ("cranfield", 400, 0.46),
        pytest.param("cranfield", None, 0.37, marks=pytest.mark.slow),
        pytest.param("npl_vaswani", None, 0.35, marks=pytest.mark.slow),
        pytest.param("scifact", None, 0.63, marks=pytest.mark.slow),
    ],
)
def test_the_service_ranks_as_brute_force_does(
    shared_data: Path, name: str, documents: int | None, least: float, tmp_path: Path, model_cache: Path
) -> None:
    """Of the first so many documents and the queries that they answer, or of all."""
    folder = shared_data / "ir" / name
    with gzip.open(folder / "corpus.jsonl.gz", "rt") as file:
        corpus = list(itertools.islice(file, documents))
    (tmp_path / "corpus.jsonl").write_text("".join(corpus))
    kept = {json.loads(line)["_id"] for line in corpus}
    data_dir = tmp_path / "data"
    done = earshot(
        data_dir,
        *("rebuild", name.replace("_", "-"), "--source", str(tmp_path / "corpus.jsonl")),
        EARSHOT_CACHE_DIR=str(model_cache),
    )
    assert done.returncode == 0, done.stderr
    store = Store(data_dir)
    (index_name,) = store.indexes()
    assert store.manifest(index_name).engine.name == "scann"
    qrels = [
        qrel
        for qrel in ir_measures.read_trec_qrels(str(_trec(folder / "qrels.tsv", tmp_path)))
        if qrel.doc_id in kept
    ]
    judged = {qrel.query_id for qrel in qrels}
    with gzip.open(folder / "queries.jsonl.gz", "rt") as file:
        queries = {query["_id"]: query["text"] for query in map(json.loads, file) if query["_id"] in judged}
    assert len(queries) == len(judged)

    with (
        serving(data_dir, EARSHOT_CACHE_DIR=str(model_cache)) as server,
        Client(server.grpc) as client,
    ):
        served = [
            ir_measures.ScoredDoc(query, hit.id, hit.score)
            for query, text in queries.items()
            for hit in client.search(index_name, text, k=DEPTH)
        ]
    through_service = ir_measures.calc_aggregate([nDCG @ DEPTH], qrels, served)[nDCG @ DEPTH]
    by_brute_force = ir_measures.calc_aggregate(
        [nDCG @ DEPTH], qrels, _brute_force(store, index_name, queries, model_cache)
    )[nDCG @ DEPTH]
    print(f"{name}: nDCG@10 through the service {through_service:.4f}, by brute force {by_brute_force:.4f}")
    assert abs(through_service - by_brute_force) <= WITHIN
    assert through_service >= least


def _brute_force(
    store: Store, index_name: str, queries: dict[str, str], cache_dir: Path
) -> list[ir_measures.ScoredDoc]:
    """NumPy over the vectors as they are stored; nothing of the engines."""
    index = store.open(index_name)
    ids = index.sample_ids(len(index))
    vectors = np.stack([datapoint.vector for datapoint in index.read(ids)])
    asked = load_embedder(cache_dir=cache_dir).embed(list(queries.values()))
    scores = asked @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return [
        ir_measures.ScoredDoc(query, ids[row], float(scores[position, row]))
        for position, query in enumerate(queries)
        for row in best[position]
    ]


def _trec(path: Path, tmp_path: Path) -> Path:
    """`query-id corpus-id score`, with a header or without, as TREC writes it."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    out = tmp_path / "qrels.trec"
    out.write_text(
        "".join(
            f"{query} 0 {document} {int(grade)}\n"
            for query, document, grade in lines
            if grade.lstrip("-").isdigit()
        )
    )
    return out
