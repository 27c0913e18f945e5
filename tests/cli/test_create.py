"""Indexes are made and removed from the command line, and rebuilt by a server."""

from __future__ import annotations

from pathlib import Path

from tests.servers import earshot, earshot_json, serving, write_feed


def test_an_index_is_made_listed_and_removed(tmp_path: Path) -> None:
    made = earshot_json(tmp_path, "create", "mine", "--dimensions", "4", "--measure", "COSINE_DISTANCE")
    assert made["config"] == {"dimensions": 4, "distance_measure": "COSINE_DISTANCE"}
    again = earshot(tmp_path, "create", "mine")
    assert (again.returncode, "already" in again.stderr) == (1, True)
    wrong = earshot(tmp_path, "create", "other", "--model", "nosuch")
    assert (wrong.returncode, "all-MiniLM-L6-v2" in wrong.stderr) == (2, True)
    assert [index["name"] for index in earshot_json(tmp_path, "indexes")] == ["indexes/mine"]
    asked = earshot(tmp_path, "delete", "mine")  # nobody there to answer
    assert asked.returncode == 1
    assert [index["name"] for index in earshot_json(tmp_path, "indexes")] == ["indexes/mine"]
    assert "deleted mine" in earshot(tmp_path, "delete", "mine", "--yes").stdout
    assert earshot_json(tmp_path, "indexes") == []


def test_a_server_rebuilds_and_rolls_back(tmp_path: Path, model_cache: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    feed = write_feed(sources / "feed.xml", [("a", "Bread", "Why sourdough falls flat.")])
    env = {"EARSHOT_REBUILD_SOURCES": f'["{sources}"]', "EARSHOT_CACHE_DIR": str(model_cache)}
    with serving(tmp_path / "data", **env) as server:
        to = ("--server", server.grpc)
        assert earshot(tmp_path, "create", "shows", *to).returncode == 0
        done = earshot_json(tmp_path, "rebuild", "shows", "--source", str(feed), *to)
        assert done["report"]["documents"] == 1
        write_feed(feed, [("a", "Bread", "Why sourdough falls flat."), ("b", "Grid", "Fifty hertz.")])
        again = earshot_json(tmp_path, "rebuild", "shows", *to)
        assert again["report"]["index_version"].endswith("v000002")
        back = earshot_json(tmp_path, "rollback", "shows", *to)
        assert back == {"index": "shows", "before": "v000002", "current": "v000001"}
        refused = earshot(tmp_path, "rebuild", "shows", "--shards", "2", *to)
        assert (refused.returncode, "--shards" in refused.stderr) == (2, True)
