"""The demo from its command to its end, on the samples and on a feed of one's own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.servers import EARSHOT, earshot, earshot_json, environment, write_feed

FREE_PORTS = {"EARSHOT_PORT": "0", "EARSHOT_GRPC_PORT": "0"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


def test_the_demo_finds_what_it_looks_for(data_dir: Path, model_cache: Path) -> None:
    first = earshot(data_dir, "demo", "--once", **FREE_PORTS, EARSHOT_CACHE_DIR=str(model_cache))
    assert first.returncode == 0, first.stderr
    assert "published podcasts v000001: 376 documents" in first.stdout
    for title in ("Your voice is shaking", "guess numbers", "fell down"):
        assert title in first.stdout
    assert "bad records" not in first.stdout
    again = earshot(data_dir, "demo", "--once", **FREE_PORTS, EARSHOT_CACHE_DIR=str(model_cache))
    assert "nothing has changed: podcasts v000001 stays" in again.stdout


def test_passages_are_found_at_the_time_they_are_spoken(data_dir: Path, model_cache: Path) -> None:
    found = earshot_json(
        data_dir, "search", "podcasts", "what happens in your throat when you are afraid to speak"
    )
    assert any("start_s" in hit["metadata"] for hit in found["neighbors"])
    assert len({hit["crowding_tag"] for hit in found["neighbors"]}) == len(found["neighbors"])


def test_a_feed_of_ones_own_is_searched_for_its_own_titles_and_served_until_ctrl_c(
    tmp_path: Path, model_cache: Path
) -> None:
    feed = write_feed(
        tmp_path / "mine.xml",
        [
            ("a", "Bees on the balcony", "Keeping bees in town."),
            ("b", "A slow fuse", "Old houses, old wires."),
        ],
    )
    process = subprocess.Popen(
        [EARSHOT, "demo", "--feed", feed],
        env=environment(tmp_path / "data", **FREE_PORTS, EARSHOT_CACHE_DIR=str(model_cache)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        shown = ""
        for line in process.stdout:
            shown += line
            if "earshot search my-podcasts" in line:
                break
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert "Traceback" not in process.stderr.read()
    assert "Bees on the balcony" in shown
    assert "A slow fuse" in shown
    assert "until Ctrl-C" in shown
