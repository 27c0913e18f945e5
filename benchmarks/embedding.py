"""What the int8 graph costs in relevance and gains in speed, against the float one.

`python -m benchmarks.embedding [--quick] [--data FOLDER] [--json PATH]`: nDCG@10 by exact search on judged
collections (title and text joined by a space), texts a second over a bulk, and the latency of single queries.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from ir_measures import Qrel, ScoredDoc, calc_aggregate, nDCG
from rich.console import Console
from rich.progress import track
from rich.table import Table

from earshot.embedding import Embedder, Precision, load_embedder

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("cranfield",)
ALL = ("scifact", "cranfield", "npl_vaswani")
MEASURE = nDCG @ 10
PASSAGE_WORDS = 120  # what a rebuild cuts transcripts into


@dataclass(frozen=True, slots=True)
class Collection:
    """A judged collection: documents, queries, and which answer which."""

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    judgments: list[Qrel]


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    precision: str
    ndcg_at_10: dict[str, float]
    passages_per_second: float
    query_ms_median: float
    query_ms_p99: float


def read_collection(folder: Path) -> Collection:
    """Read `corpus.jsonl.gz`, `queries.jsonl.gz` and `qrels.tsv` of a BEIR folder."""

    def texts(name: str) -> dict[str, str]:
        joined = (
            (row["_id"], f"{row.get('title', '')} {row['text']}".strip()) for row in _rows(folder / name)
        )
        return {key: text for key, text in joined if text}

    lines = (folder / "qrels.tsv").read_text().splitlines()
    judgments = [line.split("\t") for line in lines if not line.startswith("query-id")]
    return Collection(
        name=folder.name,
        documents=texts("corpus.jsonl.gz"),
        queries=texts("queries.jsonl.gz"),
        judgments=[Qrel(query, document, int(grade)) for query, document, grade in judgments],
    )


def ndcg(embedder: Embedder, collection: Collection) -> float:
    """Mean nDCG@10 of exact search by inner product."""
    ids = list(collection.documents)
    documents = embedder.embed(list(collection.documents.values()))
    queries = embedder.embed(list(collection.queries.values()))
    run = []
    for query, scores in zip(collection.queries, queries @ documents.T, strict=True):
        run += [
            ScoredDoc(query, ids[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:10]
        ]
    return float(calc_aggregate([MEASURE], collection.judgments, run)[MEASURE])


def passages_per_second(embedder: Embedder, collection: Collection, count: int) -> float:
    """Speed over `count` passages of 120 words cut from the collection, the first 32 as warm-up."""
    words = " ".join(collection.documents.values()).split()
    starts = range(0, min(len(words), (count + 32) * PASSAGE_WORDS), PASSAGE_WORDS)
    passages = [" ".join(words[start : start + PASSAGE_WORDS]) for start in starts]
    embedder.embed(passages[:32])
    began = time.perf_counter()
    embedder.embed(passages[32:])
    return (len(passages) - 32) / (time.perf_counter() - began)


def query_milliseconds(embedder: Embedder, collection: Collection) -> list[float]:
    """Latency of each query of the collection, embedded one by one."""
    queries = list(collection.queries.values())
    embedder.embed(queries[:10])
    took = []
    for query in queries:
        began = time.perf_counter()
        embedder.embed([query])
        took.append((time.perf_counter() - began) * 1e3)
    return took


def measure(precision: Precision, collections: list[Collection], passages: int) -> Result:
    """All figures of one precision; speed is taken on the first collection."""
    embedder = load_embedder(precision=precision)
    took = query_milliseconds(embedder, collections[0])
    return Result(
        precision=precision,
        ndcg_at_10={collection.name: ndcg(embedder, collection) for collection in collections},
        passages_per_second=passages_per_second(embedder, collections[0], passages),
        query_ms_median=float(np.median(took)),
        query_ms_p99=float(np.percentile(took, 99)),
    )


def main() -> None:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("EARSHOT_TEST_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="folder that holds ir/<collection>")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, fewer passages")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    names, passages = (QUICK, 200) if options.quick else (ALL, 600)
    if missing := [name for name in names if not (options.data / "ir" / name).is_dir()]:
        parser.error(f"{options.data / 'ir'} has no {', '.join(missing)}; name the folder with --data")
    collections = [read_collection(options.data / "ir" / name) for name in names]
    console = Console()
    results = [
        measure(precision, collections, passages)
        for precision in track(get_args(Precision), "measuring", console=console)
    ]
    console.print(_table(results))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def _table(results: list[Result]) -> Table:
    table = Table(
        "precision", title=f"all-MiniLM-L6-v2, nDCG@10 and speed on {len(os.sched_getaffinity(0))} cores"
    )
    for heading in (*results[0].ndcg_at_10, "passages/s", "query ms", "p99"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.precision,
            *(f"{value:.4f}" for value in result.ndcg_at_10.values()),
            f"{result.passages_per_second:.0f}",
            f"{result.query_ms_median:.2f}",
            f"{result.query_ms_p99:.2f}",
        )
    return table


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
