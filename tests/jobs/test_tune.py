"""Operating points are measured anew on what a person names, and published as a version like any other."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from earshot.errors import FailedPrecondition, InvalidArgument, NotFound
from earshot.index import Index, Store
from earshot.jobs import RebuildRequest, TuneReport, TuneRequest, rebuild, tune
from tests.servers import write_feed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An index of 60 documents, made from text."""
    return Store(tmp_path / "data")


@pytest.fixture
def vectors(store: Store) -> np.ndarray:
    """An index without a model."""
    vectors = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    store.create("mine")
    store.publish("mine", Index.build(vectors))
    return vectors


def run(store: Store, cache: Path, index: str = "mine", **options: object) -> TuneReport:
    request = TuneRequest(index=index, **options)  # type: ignore[arg-type]
    return tune(request, store=store, cache_dir=cache, progress=lambda stage, done, total: None)


def test_vectors_tune_vectors(store: Store, vectors: np.ndarray, tmp_path: Path, model_cache: Path) -> None:
    np.save(tmp_path / "q.npy", 3 * np.random.default_rng(1).standard_normal((200, 8)))
    report = run(store, model_cache, queries=tmp_path / "q.npy", target_recall=0.9)
    assert (report.version, report.target_recall) == ("v000002", 0.9)
    assert report.tuned_on == "given queries (100): q.npy"
    assert report.recall.high >= 0.9
    assert report.recall_before is not None
    manifest = store.manifest("mine")
    assert manifest.tuning.target_recall == 0.9
    assert manifest.source["evaluation"]["value"] == report.recall.value
    assert store.rollback("mine") == "v000001"
    assert store.manifest("mine").tuning.target_recall == 0.95


def test_without_queries_a_sample_asks_unless_real_ones_did_before(
    store: Store, vectors: np.ndarray, tmp_path: Path, model_cache: Path
) -> None:
    assert run(store, model_cache).tuned_on.startswith("sample of base vectors")
    np.save(tmp_path / "q.npy", vectors[:50])
    run(store, model_cache, queries=tmp_path / "q.npy")
    with pytest.raises(FailedPrecondition, match=r"was tuned on q\.npy; .* so name queries"):
        run(store, model_cache, target_recall=0.8)


def test_what_cannot_be_used_is_named_and_nothing_is_published(
    store: Store, vectors: np.ndarray, tmp_path: Path, model_cache: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a text\n")
    np.save(tmp_path / "narrow.npy", vectors[:, :5])
    with pytest.raises(FailedPrecondition, match="has no model"):
        run(store, model_cache, queries=tmp_path / "texts.txt")
    with pytest.raises(InvalidArgument, match="has dimension 8"):
        run(store, model_cache, queries=tmp_path / "narrow.npy")
    with pytest.raises(NotFound, match=r"none\.txt"):
        run(store, model_cache, queries=tmp_path / "none.txt")
    with pytest.raises(NotFound, match="there is no index"):
        run(store, model_cache, "other")
    assert store.current("mine") == "v000001"


def test_texts_tune_an_index_made_from_text(store: Store, tmp_path: Path, model_cache: Path) -> None:
    episodes = [(f"e{number}", f"Episode {number}", f"About the number {number}.") for number in range(60)]
    feed = write_feed(tmp_path / "feed.xml", episodes)

    def build(**options: object) -> str:
        request = RebuildRequest(index="shows", sources=[feed], **options)  # type: ignore[arg-type]
        report = rebuild(
            request,
            data_dir=tmp_path / "data",
            cache_dir=model_cache,
            progress=lambda step, done, total: None,
        )
        return report.tuned_on if report.published else "nothing new"

    assert build() == "given queries (30): titles of its documents"
    lines = "\n\nwhich number is\nwhat is two\nwhat is two\n"
    (tmp_path / "texts.txt").write_text(lines)
    assert run(store, model_cache, "shows", queries=tmp_path / "texts.txt").tuned_on.endswith(
        "(2): texts.txt"
    )
    with gzip.open(tmp_path / "texts.jsonl.gz", "wt") as stream:
        stream.write('{"_id": 1, "text": "which number is"}\n')
    report = run(store, model_cache, "shows", queries=tmp_path / "texts.jsonl.gz", target_recall=0.8)
    assert report.tuned_on == "given queries (1): texts.jsonl.gz"
    assert build() == "nothing new"
    assert run(store, model_cache, "shows").tuned_on == "given queries (30): titles of its documents"
    assert build(tuning_queries=tmp_path / "texts.txt") == "given queries (2): texts.txt"
    assert build(tuning_queries=tmp_path / "texts.txt") == "nothing new"
    (tmp_path / "texts.txt").write_text("another question")
    assert build(tuning_queries=tmp_path / "texts.txt") == "given queries (1): texts.txt"
    manifest = store.manifest("shows")
    assert manifest.model["name"] == "all-MiniLM-L6-v2"
    assert manifest.config == {"per_crowding_attribute_neighbor_count": 1}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"\n \n", "holds no query"),
        ("a.txt", b"fine\n\xff\n", "line 2"),
        ("a.jsonl", b'{"text": "fine"}\n{"title": "x"}\n', "line 2.*text"),
        ("a.txt.gz", b"not gzip", "line 0"),
    ],
)
def test_damaged_files_of_queries_are_named(
    name: str, content: bytes, words: str, store: Store, tmp_path: Path, model_cache: Path
) -> None:
    feed = write_feed(tmp_path / "feed.xml", [("a", "A title", "A text")])
    rebuild(
        RebuildRequest(index="shows", sources=[feed]),
        data_dir=tmp_path / "data",
        cache_dir=model_cache,
        progress=lambda step, done, total: None,
    )
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=words):
        run(store, model_cache, "shows", queries=tmp_path / name)
