"""Build, explain and tune an index of vectors from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.servers import earshot, earshot_here, earshot_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    vectors = np.random.default_rng(0).standard_normal((2000, 16)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "queries.npy", vectors[:100] + 0.1)
    done = earshot(folder / "data", "build", "mine", "--vectors", str(folder / "vectors.npy"), "--unit-norm")
    assert done.returncode == 0, done.stderr
    assert "published mine v000001: 2000 × 16, DOT_PRODUCT_DISTANCE, recall" in done.stdout
    assert "tuned on sample of base vectors" in done.stdout
    assert "bytes a vector" in done.stdout
    return folder


def test_explain_tells_what_an_index_is_made_of(folder: Path) -> None:
    shown = earshot(folder / "data", "explain", "mine")
    assert shown.returncode == 0, shown.stderr
    for words in ("mine v000001: 2000 × 16", "recall 0.95 by default", "candidates", "vectors", "all"):
        assert words in shown.stdout
    told = earshot_json(folder / "data", "explain", "mine")
    assert {"tuning", "engine", "parts"} == told.keys()


def test_indexes_tells_engine_recall_and_bytes_by_part_when_asked(folder: Path) -> None:
    shown = earshot(folder / "data", "indexes", "-v")
    assert shown.returncode == 0, shown.stderr
    for words in ("mine: scann (chosen for so many datapoints), recall 0.9", "bytes a vector", "codes"):
        assert words in shown.stdout
    (told,) = earshot_json(folder / "data", "indexes", "-v")
    assert told["operating_point"]["recall"]["low"] >= 0.95
    sizes = {part["name"]: part["bytes_a_vector"] for part in told["parts"]}
    assert sizes["vectors"] == pytest.approx(4 * 16 + 4, abs=1)
    assert "parts" not in earshot_json(folder / "data", "indexes")[0]
    refused = earshot(folder / "data", "indexes", "-v", "--server", "127.0.0.1:1")
    assert refused.returncode == 2
    assert "--verbose reads the data folder" in refused.stderr


def test_explain_tells_what_a_query_did(folder: Path) -> None:
    shown = earshot(folder / "data", "explain", "mine", "--id", "7", "-k", "5")
    assert shown.returncode == 0, shown.stderr
    for words in ("recall 0.95 asked for", "of the 5 true neighbors", "ms", "rest"):
        assert words in shown.stdout
    told = earshot_json(folder / "data", "explain", "mine", "--id", "7", "--target-recall", "1")
    assert told["neighbors"][0]["id"] == "7"
    assert told["found"] == told["true"] == 10
    assert [step["name"] for step in told["steps"]] == ["exact", "rest"]


def test_tune_publishes_what_it_measured(folder: Path) -> None:
    done = earshot(folder / "data", "tune", "mine", "--queries", str(folder / "queries.npy"))
    assert done.returncode == 0, done.stderr
    assert "tuned on given queries (50): queries.npy" in done.stdout
    assert "operating point" in done.stdout
    told = earshot_json(
        folder / "data", "tune", "mine", "--queries", str(folder / "queries.npy"), "--target-recall", "0.5"
    )
    assert told["recall"]["low"] >= 0.5
    assert earshot_json(folder / "data", "versions", "mine")[0]["current"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["explain", "mine", "a text"], 1, "knows no model"),
        (["explain", "mine", "a text", "--id", "7"], 2, "one query"),
        (["explain", "mine", "--id", "none"], 2, "'none'"),
        (["explain", "mine", "--id", "7", "--where", "="], 2, "where"),
        (["explain", "mine", "--id", "7", "--where", "a=b"], 1, "without restricts"),
        (["explain", "other"], 2, "there is no index 'other'"),
        (["build", "new", "--vectors", "none.npy"], 2, "none.npy is not there"),
        (["build", "new", "--vectors", "pyproject.toml"], 2, "no known format"),
        (
            ["tune", "mine", "--queries", "{folder}/queries.npy", "--target-recall", "7"],
            2,
            "target_recall is 7",
        ),
    ],
)
def test_mistakes_are_one_sentence(arguments: list[str], code: int, words: str, folder: Path) -> None:
    done = earshot_here(
        folder / "data", *(argument.replace("{folder}", str(folder)) for argument in arguments)
    )
    assert done.returncode == code
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_columns_of_a_table_are_filtered_by_and_shards_are_searched_as_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((2400, 8)).astype(np.float32)
    table = pa.table(
        {
            "key": [f"song-{row}" for row in range(2400)],
            "vector": pa.array(list(vectors), pa.list_(pa.float32(), 8)),
            "artist": [f"artist-{row % 40}" for row in range(2400)],
            "genre": ["jazz" if row % 5 == 0 else "folk" for row in range(2400)],
            "year": [1980 + row % 40 for row in range(2400)],
        }
    )
    pq.write_table(table, tmp_path / "songs.parquet")
    named = ["--id-column", "key", "--crowding-column", "artist", "--restrict", "genre", "--restrict", "year"]
    built = earshot_json(
        tmp_path / "data",
        "build",
        "songs",
        "--vectors",
        str(tmp_path / "songs.parquet"),
        *named,
        "--shards",
        "2",
    )
    assert built["datapoints"] == 2400
    assert len(list((tmp_path / "data").glob("indexes/songs/versions/*/shard-*"))) == 2
    asked = ["explain", "songs", "--id", "song-7", "--where", "genre=jazz", "--where", "year>=2015"]
    told = earshot_json(tmp_path / "data", *asked, "--crowding", "0", "-k", "20")
    rows = [int(neighbor["id"].removeprefix("song-")) for neighbor in told["neighbors"]]
    assert len(rows) == 20
    assert all(row % 5 == 0 and row % 40 >= 35 for row in rows)
    tags = [row % 40 for row in rows]
    assert len(set(tags)) < len(tags)
    once = earshot_json(
        tmp_path / "data", "explain", "songs", "--id", "song-7", "--crowding", "1", "-k", "20"
    )
    artists = [int(neighbor["id"].removeprefix("song-")) % 40 for neighbor in once["neighbors"]]
    assert len(set(artists)) == len(artists) == 20
    assert once["neighbors"][0]["id"] == "song-7"
