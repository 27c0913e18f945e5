"""rebuild, search, serve and the operator's commands over an object store."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

from earshot.client import Client
from tests.servers import earshot, earshot_here, serving, write_feed

EPISODES = [
    ("bread", "The loaf that collapsed", "Why sourdough falls flat in the oven."),
    ("grid", "Fifty hertz", "How the power grid keeps its frequency."),
]


def test_an_object_store_is_a_data_folder(
    s3_environment: dict[str, str], model_cache: Path, tmp_path: Path
) -> None:
    environment = {
        **s3_environment,
        "EARSHOT_DATA_DIR": f"s3://earshot-tests/{uuid.uuid4().hex}",
        "EARSHOT_CACHE_DIR": str(model_cache),
    }

    def call(*arguments: str) -> Any:
        own = arguments[0] in ("rebuild", "search", "tune")
        done = (earshot if own else earshot_here)(tmp_path, *arguments, "--json", **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    feed = write_feed(tmp_path / "feed.xml", EPISODES)
    assert call("rebuild", "shows", "--source", str(feed))["version"] == "v000001"
    assert call("search", "shows", "my bread is flat")["neighbors"][0]["id"] == "bread"
    with serving(tmp_path, **environment) as server, Client(server.grpc) as client:
        assert client.search("shows", "electricity")[0].id == "grid"
        write_feed(tmp_path / "feed.xml", [*EPISODES, ("choir", "Going flat", "Why choirs sink in pitch.")])
        assert call("rebuild", "shows", "--source", str(feed))["version"] == "v000002"
        deadline = time.monotonic() + 60
        while (found := client.search("shows", "singing in tune"))[0].id != "choir":
            assert time.monotonic() < deadline, found.index_version
            time.sleep(0.05)
    tuned = call("tune", "shows", "--target-recall", "0.9")
    assert (tuned["version"], tuned["target_recall"]) == ("v000003", 0.9)
    assert call("indexes", "-v")[0]["parts"]
    assert call("rollback", "shows")["current"] == "v000002"
    assert call("verify", "shows")["count"] == 3
    assert call("diff", "shows", "v000001", "v000002")["added"] == 1
    assert call("rollback", "shows")["current"] == "v000001"
    assert call("prune", "shows", "--keep", "1")["removed"] == ["v000002"]
    assert [version["current"] for version in call("versions", "shows")] == [False, True]
