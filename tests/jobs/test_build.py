"""A file of vectors becomes a measured version, with what lies beside the vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from earshot.errors import FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Store
from earshot.jobs import BuildReport, BuildRequest, build

VECTORS = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def run(store: Store, vectors: Path, **options: object) -> BuildReport:
    request = BuildRequest(index="mine", vectors=vectors, **options)  # type: ignore[arg-type]
    return build(request, store=store, progress=lambda stage, done, total: None)


def test_a_table_is_published_with_ids_and_metadata(store: Store, tmp_path: Path) -> None:
    ids = [f"id {row}" for row in range(500)]
    pq.write_table(
        pa.table({"vector": list(VECTORS), "id": ids, "colour": ["red", None] * 250}), tmp_path / "a.parquet"
    )
    report = run(store, tmp_path / "a.parquet", distance_measure="COSINE_DISTANCE", target_recall=0.9)
    assert (report.version, report.datapoints, report.dimension) == ("v000001", 500, 8)
    assert report.distance_measure == "COSINE_DISTANCE"
    assert report.tuned_on == "sample of base vectors (500)"
    assert {part.name for part in report.parts} >= {"vectors", "ids", "attributes"}
    index = store.open("mine")
    assert index.read(["id 2"])[0].metadata == {"colour": "red"}
    assert index.manifest.model == {}
    assert index.search(VECTORS[7], 1).ids == [["id 7"]]


def test_queries_beside_the_vectors_tune_and_evaluate(store: Store, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", base=VECTORS, queries=VECTORS[:100] + 1)
    report = run(store, tmp_path / "a.npz")
    assert report.tuned_on == "given queries (50): queries of a.npz"
    assert report.recall.high >= 0.95
    assert store.manifest("mine").source["evaluation"]["value"] == report.recall.value


def test_ids_and_queries_can_lie_in_files_of_their_own(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    np.save(tmp_path / "q.npy", VECTORS[:10])
    (tmp_path / "ids.txt").write_text("".join(f"ünï {row}\n" for row in range(500)))
    report = run(store, tmp_path / "a.npy", ids=tmp_path / "ids.txt", tuning_queries=tmp_path / "q.npy")
    assert report.tuned_on == "given queries (10): q.npy"
    assert store.open("mine").read(["ünï 499"])[0].vector.tolist() == VECTORS[499].tolist()


def test_what_does_not_fit_publishes_nothing_and_leaves_no_index(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("one\n")
    (tmp_path / "queries.txt").write_text("a text\n")
    with pytest.raises(InvalidArgument, match="ids has 1 entries for 500"):
        run(store, tmp_path / "a.npy", ids=tmp_path / "ids.txt")
    with pytest.raises(NotFound, match=r"none\.txt"):
        run(store, tmp_path / "a.npy", ids=tmp_path / "none.txt")
    with pytest.raises(NotFound, match=r"other\.npy"):
        run(store, tmp_path / "other.npy")
    with pytest.raises(FailedPrecondition, match="has no model"):
        run(store, tmp_path / "a.npy", tuning_queries=tmp_path / "queries.txt")
    np.save(tmp_path / "q.npy", VECTORS[:, :3])
    with pytest.raises(InvalidArgument, match="tuning_queries has shape"):
        run(store, tmp_path / "a.npy", tuning_queries=tmp_path / "q.npy")
    assert store.indexes() == []
