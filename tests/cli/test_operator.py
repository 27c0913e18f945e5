"""What an operator does to versions: verify, diff, rollback, prune, in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from earshot.cli.main import app
from earshot.errors import InvalidArgument, NotFound
from earshot.index import Index, Store
from tests.servers import earshot


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Three versions: 40 datapoints, then two removed and one added, then the same again."""
    store = Store(tmp_path / "data")
    store.create("shows")
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    ids = [f"id-{row}" for row in range(40)]
    store.publish("shows", Index.build(vectors, ids))
    for _ in range(2):
        later = Index.build(vectors[1:], [*ids[2:], "new"], target_recall=0.9)
        store.publish("shows", later, manifest_extra={"model": {"name": "a model"}})
    return tmp_path / "data"


def call(data_dir: Path, *arguments: str) -> Result:
    """The command in this process, which spares it the start of another."""
    environment = {"EARSHOT_DATA_DIR": str(data_dir), "COLUMNS": "200"}
    return CliRunner().invoke(app, arguments, env=environment)


def said(data_dir: Path, *arguments: str) -> str:
    result = call(data_dir, *arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def told(data_dir: Path, *arguments: str) -> Any:
    return json.loads(said(data_dir, *arguments, "--json"))


def test_verify_tells_what_it_read(data_dir: Path) -> None:
    words = said(data_dir, "verify", "shows")
    assert "shows v000003 is whole" in words
    assert "39 datapoints, sample recall 1.0000" in words
    report = told(data_dir, "verify", "shows", "v000001")
    assert (report["version"], report["count"]) == ("v000001", 40)


def test_verify_fails_on_a_flipped_bit_and_names_the_file(data_dir: Path) -> None:
    file = data_dir / "indexes/shows/versions/v000003/shard-00000/vectors.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done = earshot(data_dir, "verify", "shows")
    assert done.returncode == 1
    assert "vectors.npy was changed or damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_diff_counts_ids_and_names_what_changed(data_dir: Path) -> None:
    report = told(data_dir, "diff", "shows", "v000001", "v000002")
    assert (report["added"], report["removed"], report["kept"]) == (1, 2, 38)
    changes = {change["name"]: (change["before"], change["after"]) for change in report["changes"]}
    assert changes["count"] == (40, 39)
    assert changes["model.name"] == (None, "a model")
    assert changes["tuning.target_recall"] == (0.95, 0.9)
    words = said(data_dir, "diff", "shows", "v000001", "v000002")
    assert "1 added, 2 removed, 38 kept" in words
    assert "model.name - a model" in words
    same = told(data_dir, "diff", "shows", "v000002", "v000003")
    assert (same["added"], same["removed"], same["kept"], same["changes"]) == (0, 0, 39, [])


def test_rollback_goes_back_and_forth(data_dir: Path) -> None:
    assert "shows now serves v000002; it was v000003" in said(data_dir, "rollback", "shows")
    report = told(data_dir, "rollback", "shows", "v000003")
    assert report == {"index": "shows", "before": "v000002", "current": "v000003"}


def test_prune_keeps_what_it_is_told_and_the_current(data_dir: Path) -> None:
    said(data_dir, "rollback", "shows", "v000001")
    assert told(data_dir, "prune", "shows", "--keep", "1")["removed"] == ["v000002"]
    assert said(data_dir, "prune", "shows", "--keep", "1") == "nothing to remove"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "nosuch"), "nosuch"),
        (("verify", "shows", "v9"), "v9"),
        (("diff", "shows", "v000001", "latest"), "latest"),
        (("rollback", "shows", "v000077"), "v000077"),
        (("prune", "shows", "--keep", "0"), "keep is 0"),
    ],
)
def test_a_wrong_name_is_named(data_dir: Path, arguments: tuple[str, ...], words: str) -> None:
    error = call(data_dir, *arguments).exception
    assert isinstance(error, InvalidArgument | NotFound)
    assert words in error.message
