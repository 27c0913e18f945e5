"""The wheel alone, in an empty environment, outside of any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.servers import write_feed

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git tracks, as a release would be."""
    source = tmp_path_factory.mktemp("source")
    archive = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    for name in archive.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the pinned packages and the wheel; returns its folder of programs."""
    folder = tmp_path_factory.mktemp("empty") / "env"
    uv = TOOLS / "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin" / "python",
        "--no-deps",
    ]
    subprocess.run([*install, "--require-hashes", "--requirement", ROOT / "requirements.txt"], check=True)
    subprocess.run([*install, wheel], check=True)
    return folder / "bin"


def test_the_wheel_holds_the_packages_the_protos_and_the_samples_and_nothing_of_the_tests(
    wheel: Path,
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"earshot"}
    assert "earshot/v1/search_service.proto" in names
    assert "earshot/index/py.typed" in names
    assert sum(name.endswith("/feed.xml") for name in names) == 28
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_rebuild_and_search_from_outside_the_checkout(
    environment: Path, model_cache: Path, tmp_path: Path
) -> None:
    variables = {
        key: value for key, value in os.environ.items() if not key.startswith(("EARSHOT_", "PYTHON"))
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [environment / "earshot", *arguments],
            cwd=tmp_path,
            env={**variables, "EARSHOT_CACHE_DIR": str(model_cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "rebuild" in run("--help")
    write_feed(
        tmp_path / "feed.xml",
        [
            ("bread", "The loaf that collapsed", "Why sourdough falls flat in the oven."),
            ("grid", "Fifty hertz", "How the power grid keeps its frequency."),
        ],
    )
    run("rebuild", "shows", "--source", "feed.xml")
    found = json.loads(run("search", "shows", "electricity", "--json"))
    assert [hit["id"] for hit in found["neighbors"]] == ["grid", "bread"]
    assert (tmp_path / ".earshot" / "indexes" / "shows" / "CURRENT").read_text() == "v000001\n"
