"""The command line as a person and a program use it: words, JSON, exit codes, no stack traces."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import EARSHOT, earshot, earshot_here, earshot_json, environment, serving, write_feed

EPISODES = [
    ("bread", "The loaf that collapsed", "Why sourdough falls flat in the oven."),
    ("grid", "Fifty hertz", "How the power grid keeps its frequency."),
    ("choir", "Going flat", "Why choirs sink in pitch during a concert."),
]

IDS = [episode[0] for episode in EPISODES]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    feed = write_feed(folder / "feed.xml", EPISODES)
    done = earshot(folder / "data", "rebuild", "shows", "--source", str(feed))
    assert done.returncode == 0, done.stderr
    assert "published shows v000001: 3 documents, 3 datapoints" in done.stdout
    return folder / "data"


def test_help_names_every_command_and_each_has_its_own(data_dir: Path) -> None:
    overview = earshot(data_dir, "--help")
    assert overview.returncode == 0
    for command in (
        *("rebuild", "serve", "search", "indexes", "demo"),
        *("versions", "verify", "diff", "rollback", "prune"),
    ):
        assert command in overview.stdout
        assert earshot_here(data_dir, command, "--help").returncode == 0


def test_search_reads_the_folder_without_a_server(data_dir: Path) -> None:
    shown = earshot(data_dir, "search", "shows", "my bread is flat", "-k", "1")
    assert shown.returncode == 0
    assert "The loaf that collapsed" in shown.stdout
    assert "2026-01-05" in shown.stdout


def test_search_answers_the_same_from_folder_grpc_and_http(data_dir: Path) -> None:
    def neighbors(*arguments: str) -> Any:
        return earshot_json(data_dir, "search", "shows", "singing in tune", *arguments)["neighbors"]

    with serving(data_dir) as server:
        from_folder = neighbors()
        assert from_folder[0]["id"] == "choir"
        assert neighbors("--server", server.grpc) == from_folder
        assert neighbors("--server", server.http) == from_folder
        assert earshot_json(data_dir, "indexes", "--server", server.grpc) == earshot_json(data_dir, "indexes")


def test_a_search_can_be_narrowed(data_dir: Path) -> None:
    def found(*conditions: str) -> list[str]:
        options = [word for condition in conditions for word in ("--where", condition)]
        told = earshot_here(data_dir, "search", "shows", "flat", *options, "--json")
        return sorted(neighbor["id"] for neighbor in json.loads(told.stdout)["neighbors"])

    assert found() == found("language=en", "year=2026", "date>=20260105", "show=A show") == sorted(IDS)
    assert found("language!=en") == found("year>2026") == found("show=Another") == []


def test_a_text_is_explained(data_dir: Path) -> None:
    told = earshot_json(data_dir, "explain", "shows", "my bread is flat", "--where", "language=en")
    assert told["neighbors"][0]["id"] == "bread"
    assert (told["found"], told["true"], told["filter"]["passing"]) == (3, 3, 3)


def test_indexes_and_versions_as_json(data_dir: Path) -> None:
    (index,) = earshot_json(data_dir, "indexes")
    assert index["name"] == "indexes/shows"
    assert index["current_version"] == "indexes/shows/versions/v000001"
    assert (index["datapoint_count"], index["dimensions"]) == (3, 384)
    assert index["measured_recall"] == 1.0
    (version,) = earshot_json(data_dir, "versions", "shows")
    assert version["current"]
    assert version["complete"]


def test_a_rebuild_reports_as_json(data_dir: Path) -> None:
    report = earshot_json(data_dir, "rebuild", "shows", "--source", str(data_dir.parent / "feed.xml"))
    assert report["published"] is False
    assert report["version"] == "v000001"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("search", "nosuch", "text"), 2, "nosuch"),
        (("search", "shows", " "), 2, "text is empty"),
        (("search", "shows", "text", "-k", "0"), 2, "neighbor_count is 0"),
        (("search", "shows"), 2, "Missing argument"),
        (("search", "shows", "text", "--where", "language"), 2, "where is 'language'"),
        (("search", "shows", "text", "--where", "year>=soon"), 2, "compares the token 'soon'"),
        (("search", "shows", "x", "--server", "127.0.0.1:1"), 1, "127.0.0.1:1"),
        (("versions", "nosuch"), 2, "nosuch"),
        (("rebuild", "shows"), 2, "--source"),
        (("rebuild", "Bad Name", "--source", "feed.xml"), 2, "Bad Name"),
        (("rebuild", "shows", "--source", "missing.xml"), 2, "missing.xml"),
        (("rebuild", "shows", "--source", "missing.xml", "--max-bad", "lots"), 2, "max_bad is 'lots'"),
        (("rebuild", "shows", "--source", "x", "--field", "nonsense"), 2, "nonsense"),
        (("serve", "--port", "99999"), 2, "99999"),
        (("nosuchcommand",), 2, "nosuchcommand"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(
    data_dir: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = earshot_here(data_dir, *arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failed_job_exits_with_one(data_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "bad.jsonl"
    source.write_text('{"id": "a", "title": "fine"}\n{broken\n')
    done = earshot(data_dir, "rebuild", "shows", "--source", str(source))
    assert done.returncode == 1
    assert "bad.jsonl:2" in done.stderr
    assert earshot_json(data_dir, "versions", "shows")[0]["current"]


def test_a_port_in_use_is_one_line_that_says_what_to_do(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        http = earshot(data_dir, "serve", "--port", port, "--grpc-port", "0")
        grpc = earshot(data_dir, "serve", "--port", "0", "--grpc-port", port)
    assert (http.returncode, grpc.returncode) == (1, 1)
    assert f"error: port {port} on 127.0.0.1" in http.stderr
    assert "--port" in http.stderr
    assert f"error: port {port} on 127.0.0.1" in grpc.stderr
    assert "--grpc-port" in grpc.stderr
    assert "Traceback" not in http.stderr + grpc.stderr


def test_a_data_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "data"
    blocked.write_text("in the way")
    feed = write_feed(tmp_path / "feed.xml", EPISODES)
    done = earshot(blocked, "rebuild", "shows", "--source", str(feed))
    assert done.returncode == 1
    assert done.stderr.count("error:") == 1
    assert str(blocked) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_one_line_and_leaves_the_old_version(data_dir: Path, tmp_path: Path) -> None:
    feed = write_feed(tmp_path / "more.xml", [*EPISODES, ("new", "New", "Something else entirely.")])
    # The kernel's own limit on the size of a file stands in for a full disk; 20 KB hold no version.
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f 20; exec "{EARSHOT}" rebuild shows --source "{feed}"'],
        env={
            **environment(data_dir),
            "EARSHOT_CACHE_DIR": os.environ.get("EARSHOT_CACHE_DIR", str(tmp_path / "none")),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert earshot_json(data_dir, "indexes")[0]["current_version"].endswith("v000001")


def test_ctrl_c_stops_the_server_without_a_trace(data_dir: Path) -> None:
    with serving(data_dir) as server:
        server.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 20
        while server.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.process.poll() == 0
        assert "Traceback" not in server.log()


def test_settings_come_from_flags_before_environment_before_file(tmp_path: Path) -> None:
    (tmp_path / "earshot.toml").write_text('data_dir = "from-file"\n')
    bare = {key: value for key, value in os.environ.items() if not key.startswith("EARSHOT_DATA")}

    def data_dir_of(*arguments: str, **env: str) -> str:
        done = subprocess.run(
            [EARSHOT, "search", "nosuch", "x", *arguments],
            cwd=tmp_path,
            env={**bare, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stderr

    assert "from-file" in data_dir_of()
    assert "from-env" in data_dir_of(EARSHOT_DATA_DIR="from-env")
    assert "from-flag" in data_dir_of("--data-dir", "from-flag", EARSHOT_DATA_DIR="from-env")
    (tmp_path / "earshot.toml").write_text("colour = 'blue'\n")
    assert "colour" in data_dir_of()
    (tmp_path / "earshot.toml").write_text("not toml at all [")
    assert "earshot.toml" in data_dir_of()


def test_json_output_is_json_alone(data_dir: Path) -> None:
    done = earshot(data_dir, "search", "shows", "bread", "--json")
    assert json.loads(done.stdout)["neighbors"]
    assert done.stderr == ""
